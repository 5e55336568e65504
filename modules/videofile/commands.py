"""The encoder's command lines: argument lists from checked settings and our own absolute paths, no shell."""

from pathlib import Path

from .encoding import Encoding

# ffmpeg speaks http, ftp, concat and more: nothing but files and pipes may be opened, in or out.
LOCAL_ONLY = ["-protocol_whitelist", "file,pipe"]
QUIET = ["-hide_banner", "-nostdin", "-loglevel", "error", "-n"]

# RGB becomes BT.709 limited range and says so; untagged files are shown with shifted colours.
MATRIX = "scale=out_color_matrix=bt709:out_range=tv:flags=bicubic+accurate_rnd+full_chroma_int"
COLOURS = ["-color_primaries", "bt709", "-color_trc", "bt709", "-colorspace", "bt709", "-color_range", "tv"]
PALETTE = "[0:v]split[clip][seen];[seen]palettegen[palette]"
RAW = {(False, False): "rgb24", (True, False): "rgb48le", (False, True): "rgba", (True, True): "rgba64le"}
DITHER = {"bayer": "bayer:bayer_scale=4"}  # the filter's words where they differ from ours


def file_url(path: Path) -> str:
    """A path that ffmpeg takes for a file whatever its name contains."""
    return f"file:{path}"


def raw_frames(encoding: Encoding, width: int, height: int) -> list[str]:
    """Input: raw frames on standard input."""
    pixels = RAW[encoding.deep, encoding.alpha]
    size, rate = f"{width}x{height}", str(encoding.frame_rate)
    shape = ["-pix_fmt", pixels, "-video_size", size, "-framerate", rate]
    return [*LOCAL_ONLY, "-f", "rawvideo", *shape, "-i", "pipe:0"]


def tag_file(tags: Path | None, index: int) -> tuple[list[str], list[str]]:
    """(input, mapping) that put the metadata of an ffmetadata file into the output."""
    if tags is None:
        return [], ["-map_metadata", "-1"]
    return [*LOCAL_ONLY, "-f", "ffmetadata", "-i", file_url(tags)], ["-map_metadata", str(index)]


def output(encoding: Encoding, target: Path) -> list[str]:
    """Output: the container and the file."""
    form = encoding.format
    return [*form.container, *LOCAL_ONLY, "-f", form.muxer, file_url(target)]


def exact_rate(encoding: Encoding) -> list[str]:
    """The rate of an output; ffmpeg otherwise guesses one, and takes 119.88 for 120 and 239 for 240."""
    return ["-r", str(encoding.frame_rate)]


def colours(encoding: Encoding) -> list[str]:
    return ["-vf", MATRIX, *COLOURS] if encoding.pix_fmt.startswith(("yuv", "p010")) else []


def encode(encoding: Encoding, width: int, height: int, tags: Path | None, target: Path) -> list[str]:
    """Raw frames on standard input to the finished picture stream."""
    tag_input, tag_map = tag_file(tags, 1)
    codec = [*exact_rate(encoding), *colours(encoding), *encoding.codec_argv(), *repeats(encoding)]
    sources = [*raw_frames(encoding, width, height), *tag_input]
    return [*QUIET, *sources, "-map", "0:v:0", *tag_map, *codec, *output(encoding, target)]


def try_encoder(encoding: Encoding, width: int, height: int) -> list[str]:
    """Raw frames on standard input through the encoder into nothing."""
    codec = [*colours(encoding), *encoding.codec_argv()]
    return [*QUIET, *raw_frames(encoding, width, height), *codec, "-f", "null", "-"]


def repeats(encoding: Encoding) -> list[str]:
    """How often a looping picture is shown: gif counts repeats, webp counts showings, 0 is forever."""
    if not encoding.format.loops:
        return []
    once_more = int(encoding.format.muxer == "webp" and encoding.loop_count > 0)
    return ["-loop", str(encoding.loop_count + once_more)]


def gather_palette(encoding: Encoding, width: int, height: int, clip: Path, palette: Path) -> list[str]:
    """First pass of a gif: keep the frames without loss on disk, gather one palette for all of them."""
    kept = [
        "-map",
        "[clip]",
        *exact_rate(encoding),
        "-c:v",
        "ffv1",
        "-pix_fmt",
        "bgr0",
        *LOCAL_ONLY,
        "-f",
        "matroska",
        file_url(clip),
    ]
    shown = [
        "-map",
        "[palette]",
        "-frames:v",
        "1",
        *LOCAL_ONLY,
        "-f",
        "image2",
        "-update",
        "1",
        "-c:v",
        "png",
    ]
    frames = raw_frames(encoding, width, height)
    return [*QUIET, *frames, "-filter_complex", PALETTE, *kept, *shown, file_url(palette)]


def apply_palette(encoding: Encoding, clip: Path, palette: Path, target: Path) -> list[str]:
    """Second pass of a gif."""
    dither = str(encoding.options["dither"])
    use = f"[0:v][1:v]paletteuse=dither={DITHER.get(dither, dither)}"
    sources = [*LOCAL_ONLY, "-i", file_url(clip), *LOCAL_ONLY, "-i", file_url(palette)]
    shown = [*exact_rate(encoding), *repeats(encoding)]
    return [*QUIET, *sources, "-filter_complex", use, *shown, *output(encoding, target)]


def add_audio(
    encoding: Encoding,
    video: Path,
    audio: Path,
    channels: int,
    sample_rate: int,
    tags: Path | None,
    target: Path,
) -> list[str]:
    """Put raw 32-bit float sound beside a finished picture stream, which is copied untouched."""
    tag_input, tag_map = tag_file(tags, 2)
    sound = ["-f", "f32le", "-ar", str(sample_rate), "-ac", str(channels), "-i", file_url(audio)]
    sources = [*LOCAL_ONLY, "-i", file_url(video), *LOCAL_ONLY, *sound, *tag_input]
    streams = ["-map", "0:v:0", "-map", "1:a:0", *tag_map, "-c:v", "copy", *encoding.format.audio]
    return [*QUIET, *sources, *streams, *output(encoding, target)]
