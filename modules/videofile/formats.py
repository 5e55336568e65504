"""The video formats users know from VideoHelperSuite, as one table."""

from dataclasses import dataclass
from typing import Literal

from .errors import VideoError
from .options import Amount, Argv, Choice, Option, Switch

MAX_RATE = 240.0  # frames per second


@dataclass(frozen=True)
class VideoFormat:
    """One way to store a clip: container, encoder, what a user may choose, and what it can hold."""

    name: str
    suffix: str
    muxer: str
    codec: Argv
    options: tuple[Option, ...]
    container: Argv = ()
    audio: Argv = ()  # empty: holds no sound
    tags: Literal["mp4", "matroska", "exif", "comment"] = "mp4"  # where the workflow is kept
    loops: bool = False  # repeats are a number in the file, not repeated frames
    alpha: bool = False  # keeps transparency whatever the options; in others a pix_fmt may
    even_420: bool = False  # the encoder refuses odd sizes with halved chroma
    min_side: int = 1
    max_side: int = 16384
    max_rate: float = MAX_RATE
    unseen: str = ""  # why a browser may not show the file

    def size_problem(self, pix_fmt: str, width: int, height: int) -> str | None:
        """Why a picture size does not fit, with the nearest sizes that do; None when it does."""
        even = self.even_420 and is_420(pix_fmt)
        if even and (width % 2 or height % 2):
            fits = " or ".join(f"{width + dw}x{height + dh}" for dw, dh in _to_even(width, height))
            return (
                f"{self.name} with {pix_fmt} needs even width and height: frames are {width}x{height}, "
                f"resize or crop them to {fits}, or choose a pix_fmt without halved chroma."
            )
        if min(width, height) < self.min_side or max(width, height) > self.max_side:
            return (
                f"{self.name} holds pictures of {self.min_side} to {self.max_side} pixels a side: frames are "
                f"{width}x{height}. Resize them or choose another format."
            )
        return None

    def check_sound(self) -> None:
        """VideoError when the format holds no sound."""
        if not self.audio:
            raise VideoError(
                f"{self.name} holds no sound: disconnect audio, or choose a format like video/h264-mp4."
            )


def is_420(pix_fmt: str) -> bool:
    """Whether a pixel format halves chroma in both directions."""
    return pix_fmt.startswith(("yuv420", "yuva420", "p010"))


def _to_even(width: int, height: int) -> list[tuple[int, int]]:
    smaller, larger = (-(width % 2), -(height % 2)), (width % 2, height % 2)
    return [change for change in (smaller, larger) if width + change[0] > 0 and height + change[1] > 0]


def _pix_fmt(*names: str) -> Choice:
    words = {name: ("-pix_fmt", name) for name in names}
    text = (
        "Pixel format. yuv420p plays everywhere; 10le keeps smooth gradients, yuva the alpha of RGBA frames."
    )
    return Choice("pix_fmt", words, text)


def _crf(high: int, default: int, flag: str = "-crf") -> Amount:
    text = f"Quality: 0 is best and largest, {high} is worst and smallest."
    return Amount("crf", flag, 0, high, default, text)


_MP4 = ("-movflags", "use_metadata_tags+faststart")
_HVC1 = (*_MP4, "-tag:v", "hvc1")  # the tag that Apple's players ask for
_AAC = ("-c:a", "aac", "-b:a", "192k")
_OPUS = ("-c:a", "libopus", "-b:a", "128k")
_VP9 = ("-c:v", "libvpx-vp9", "-b:v", "0", "-deadline", "good", "-cpu-used", "4", "-row-mt", "1")
_FFV1 = ("-c:v", "ffv1", "-level", "3", "-slices", "4", "-slicecrc", "1", "-g", "1")
_NVENC = ("-preset", "p5", "-rc", "vbr", "-b:v", "0")
_X265 = ("-c:v", "libx265", "-preset", "medium", "-x265-params", "log-level=error")
_PRORES_422 = {name: ("-profile:v", name, "-pix_fmt", "yuv422p10le") for name in ("hq", "standard", "lt")}
_PRORES_444 = {name: ("-profile:v", name, "-pix_fmt", "yuv444p10le") for name in ("4444", "4444xq")}
_PRORES_ALPHA = {f"{name} alpha": ("-profile:v", name, "-pix_fmt", "yuva444p10le") for name in _PRORES_444}
_WEBP = ("-c:v", "libwebp_anim", "-pix_fmt", "bgra")
_WEBP_OPTIONS = (
    Amount("quality", "-quality", 0, 100, 80, "0 is smallest, 100 is best."),
    Switch(
        "lossless",
        False,
        ("-lossless", "1", "-compression_level", "2"),
        ("-lossless", "0"),
        "Keep every pixel exactly; quality then means effort.",
    ),
)
_WEBP_SIDE = 16383
_NOT_SHOWN = "is saved, but browsers cannot play it: open it in a video player or an editor."
_HEVC = (
    "H.265 plays only in browsers and systems that bring a decoder for it: if nothing shows here, open the file in "
    "a video player, or choose video/h264-mp4."
)
_DITHERS = ("bayer", "sierra2_4a", "floyd_steinberg", "none")

FORMATS: tuple[VideoFormat, ...] = (
    VideoFormat(
        "video/h264-mp4",
        ".mp4",
        "mp4",
        ("-c:v", "libx264", "-preset", "medium"),
        (_crf(51, 19), _pix_fmt("yuv420p", "yuv444p", "yuv420p10le")),
        _MP4,
        _AAC,
        even_420=True,
    ),
    VideoFormat(
        "video/h265-mp4",
        ".mp4",
        "mp4",
        _X265,
        (_crf(51, 22), _pix_fmt("yuv420p10le", "yuv420p", "yuv444p")),
        _HVC1,
        _AAC,
        even_420=True,
        min_side=16,
        unseen=_HEVC,
    ),
    VideoFormat(
        "video/webm",
        ".webm",
        "webm",
        _VP9,
        (_crf(63, 20), _pix_fmt("yuv420p", "yuv444p", "yuva420p")),
        audio=_OPUS,
        tags="matroska",
    ),
    VideoFormat(
        "video/av1-webm",
        ".webm",
        "webm",
        ("-c:v", "libsvtav1", "-preset", "8"),
        (_crf(63, 23), _pix_fmt("yuv420p10le", "yuv420p")),
        audio=_OPUS,
        tags="matroska",
        min_side=16,
    ),
    VideoFormat(
        "video/ProRes",
        ".mov",
        "mov",
        ("-c:v", "prores_ks", "-vendor", "apl0"),
        (
            Choice(
                "profile",
                _PRORES_422 | _PRORES_444 | _PRORES_ALPHA,
                "ProRes flavour; 4444 keeps full chroma, alpha keeps the transparency of RGBA frames too.",
            ),
        ),
        ("-movflags", "use_metadata_tags+faststart"),
        ("-c:a", "pcm_s16le"),
        unseen=f"A ProRes .mov {_NOT_SHOWN}",
    ),
    VideoFormat(
        "video/ffv1-mkv",
        ".mkv",
        "matroska",
        _FFV1,
        (_pix_fmt("bgr0", "gbrp16le", "yuv444p10le"),),
        audio=("-c:a", "flac"),
        tags="matroska",
        min_side=2,
        unseen=f"An FFV1 .mkv {_NOT_SHOWN}",
    ),
    VideoFormat(
        "image/gif",
        ".gif",
        "gif",
        ("-c:v", "gif"),
        (
            Choice(
                "dither",
                dict.fromkeys(_DITHERS, ()),  # goes into a filter, see commands.py
                "How 256 colours stand in for all: bayer is small and steady.",
            ),
        ),
        tags="comment",
        loops=True,
        max_rate=50.0,  # players slow delays below 2/100 s down to 10/100 s
    ),
    VideoFormat(
        "image/webp",
        ".webp",
        "webp",
        _WEBP,
        _WEBP_OPTIONS,
        tags="exif",
        loops=True,
        max_side=_WEBP_SIDE,
    ),
    VideoFormat(
        "video/nvenc_h264-mp4",
        ".mp4",
        "mp4",
        ("-c:v", "h264_nvenc", *_NVENC),
        (_crf(51, 19, "-cq"), _pix_fmt("yuv420p", "yuv444p")),
        _MP4,
        _AAC,
        even_420=True,
        max_side=4096,
    ),
    VideoFormat(
        "video/nvenc_hevc-mp4",
        ".mp4",
        "mp4",
        ("-c:v", "hevc_nvenc", *_NVENC),
        (_crf(51, 22, "-cq"), _pix_fmt("yuv420p", "p010le")),
        _HVC1,
        _AAC,
        even_420=True,
        max_side=8192,
        unseen=_HEVC,
    ),
    VideoFormat(
        "video/nvenc_av1-mp4",
        ".mp4",
        "mp4",
        ("-c:v", "av1_nvenc", *_NVENC),
        (_crf(51, 27, "-cq"), _pix_fmt("yuv420p", "p010le")),
        _MP4,
        _AAC,
        even_420=True,
        max_side=8192,
    ),
    # A switch inside image/webp would move the widgets behind it in workflows that are saved by position.
    VideoFormat(
        "image/webp-alpha",
        ".webp",
        "webp",
        _WEBP,
        _WEBP_OPTIONS,
        tags="exif",
        loops=True,
        alpha=True,
        max_side=_WEBP_SIDE,
    ),
)
KEEPS_ALPHA = "video/webm with pix_fmt yuva420p, video/ProRes with profile '4444 alpha', or image/webp-alpha"


def find_format(name: object) -> VideoFormat:
    """The format of that name; VideoError lists the names there are."""
    for entry in FORMATS:
        if entry.name == name:
            return entry
    raise VideoError(f"format must be one of {', '.join(entry.name for entry in FORMATS)}: got {name!r}.")
