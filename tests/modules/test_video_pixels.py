"""Frames however they lie in memory, and their alpha: kept where the format can, else dropped and said so."""

import math
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from kinetograph.modules.videofile.encoding import parse_encoding
from kinetograph.modules.videofile.errors import VideoError
from kinetograph.modules.videofile.formats import FORMATS
from kinetograph.modules.videofile.pixels import to_pixels, with_alpha
from kinetograph.modules.videofile.readback import Contents, inspect, read_frames, verify
from kinetograph.modules.videofile.writer import Job, VideoWriter
from kinetograph.tests.clips import make_clip, psnr

LAYOUTS = {
    "permuted": lambda clip: clip.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1),
    "across": lambda clip: clip.transpose(1, 2).contiguous().transpose(1, 2),
    "strided": lambda clip: clip.repeat_interleave(2, 2)[:, :, ::2],
    "cut out": lambda clip: torch.nn.functional.pad(clip, (1, 1, 3, 3))[:, :, 3:-3, 1:-1],
    "learned": lambda clip: clip.clone().requires_grad_(clip.is_floating_point()),
}
KINDS = {"float": torch.float32, "half": torch.float16, "bfloat": torch.bfloat16, "double": torch.float64}
EVERY = [(entry.name, {}) for entry in FORMATS if "nvenc" not in entry.name] + [
    ("video/h264-mp4", {"pix_fmt": "yuv420p10le"}),
    ("video/ffv1-mkv", {"pix_fmt": "gbrp16le"}),
    ("video/ffv1-mkv", {"pix_fmt": "yuv444p10le"}),
    ("video/ProRes", {"profile": "4444 alpha"}),
    ("video/webm", {"pix_fmt": "yuva420p"}),
]
KEEPING = [
    ("image/webp-alpha", {"lossless": True}, math.inf),
    ("image/webp-alpha", {}, math.inf),  # libwebp keeps alpha without loss at any quality
    ("video/ProRes", {"profile": "4444 alpha"}, 60),
    ("video/ProRes", {"profile": "4444xq alpha"}, 60),
    ("video/webm", {"pix_fmt": "yuva420p"}, 38),
]
DROPPING = [
    ("video/h264-mp4", {}),
    ("video/h265-mp4", {}),
    ("video/webm", {}),
    ("video/ProRes", {"profile": "4444"}),
    ("image/gif", {}),
    ("image/webp", {}),
]


def write(folder, clip, name, options=None, pingpong=False, chunk=2):
    with VideoWriter(Job(folder, "clip", parse_encoding(name, 8, options, 0, pingpong))) as writer:
        for part in clip.split(chunk):
            writer.write(part)
    return writer


def see_through(frames=4):
    """A clip with a hole that moves and a half transparent edge."""
    clip = make_clip(frames)
    alpha = (clip[..., :1] > 0.5).float()
    alpha[:, :, -8:] = 0.25
    return torch.cat([clip, alpha], dim=-1)


def alpha_of(path):
    """The alpha of every frame, (f, h, w) bytes."""
    if path.suffix == ".webp":
        with Image.open(path) as picture:
            return np.stack([np.asarray(f.convert("RGBA"))[..., 3] for f in ImageSequence.Iterator(picture)])
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        if path.suffix == ".mov":
            return np.stack([frame.to_ndarray(format="rgba")[..., 3] for frame in container.decode(video)])
        decoder = av.CodecContext.create("libvpx-vp9", "r")
        frames = [frame for packet in container.demux(video) for frame in decoder.decode(packet)]
        return np.stack([frame.to_ndarray(format="rgba")[..., 3] for frame in frames])


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("kind", [*KINDS.values(), torch.uint8], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_frame_is_the_same_however_it_lies_in_memory(layout, kind, deep):
    clip = (make_clip(2, 6, 10) * (255 if kind == torch.uint8 else 1)).to(kind)
    laid = LAYOUTS[layout](clip)
    assert layout == "learned" or not laid[1].is_contiguous()
    ours = to_pixels(laid[1], 1, deep)
    assert ours.flags.c_contiguous and ours.dtype == (np.uint16 if deep else np.uint8)
    assert np.array_equal(ours, to_pixels(clip[1].contiguous(), 1, deep))


@pytest.mark.parametrize(("name", "options"), EVERY, ids=str)
def test_every_format_takes_frames_that_are_not_contiguous(tmp_path, name, options):
    """Half precision, permuted, and played back and forth, against the same frames laid out plainly."""
    clip = make_clip(4, 32, 32).half()
    files = [
        write(tmp_path, laid, name, options, pingpong=True) for laid in (LAYOUTS["permuted"](clip), clip)
    ]
    ours, plain = (np.stack(list(read_frames(writer.path))) for writer in files)
    assert len(ours) == 6 and psnr(ours, plain) >= 60  # threads of some encoders decide differently


@pytest.mark.parametrize(("name", "options", "least"), KEEPING, ids=str)
def test_alpha_is_kept_where_it_was_asked_for(tmp_path, name, options, least):
    clip = see_through()
    writer = write(tmp_path, LAYOUTS["permuted"](clip), name, options)
    assert inspect(writer.path).alpha and not any("alpha" in said for said in writer.said)
    wanted = (clip[..., 3] * 255).round().numpy().astype(np.uint8)
    assert psnr(alpha_of(writer.path), wanted) >= least


@pytest.mark.parametrize(("name", "options"), DROPPING, ids=str)
def test_alpha_is_dropped_elsewhere_and_said_so(tmp_path, name, options):
    clip = see_through()
    writer = write(tmp_path, clip, name, options)
    assert not inspect(writer.path).alpha
    said = next(said for said in writer.said if "alpha" in said)
    assert name in said and "pix_fmt yuva420p" in said and "image/webp-alpha" in said
    plain = write(tmp_path, clip[..., :3], name, options)
    assert psnr(list(read_frames(writer.path)), list(read_frames(plain.path))) >= 60
    assert not any("alpha" in said for said in plain.said)


@pytest.mark.parametrize(("name", "options", "least"), KEEPING[1:], ids=str)
def test_frames_without_alpha_are_opaque_where_alpha_is_kept(tmp_path, name, options, least):
    writer = write(tmp_path, make_clip(3), name, options, pingpong=True)
    assert writer.num_frames == 4 and alpha_of(writer.path).min() >= 253


def test_alpha_that_got_lost_is_caught():
    encoding, lost = parse_encoding("image/webp-alpha", 8), Contents(8, 4, 4, Fraction(1), "")
    verify(lost, encoding, 8, 4, 4, Fraction(0), alpha=False)
    with pytest.raises(VideoError, match="transparent frames were written, none are in it"):
        verify(lost, encoding, 8, 4, 4, Fraction(0), alpha=True)


def test_alpha_beside_three_channels():
    clip = make_clip(2, 4, 4)
    assert with_alpha(clip, False).shape[-1] == 3
    assert (
        with_alpha(clip, True)[..., 3].eq(1).all()
        and with_alpha((clip * 255).byte(), True)[..., 3].eq(255).all()
    )


def test_a_single_transparent_webp_stays_transparent(tmp_path):
    writer = write(tmp_path, see_through(1), "image/webp-alpha", {"lossless": True})
    assert alpha_of(writer.path).min() == 0
