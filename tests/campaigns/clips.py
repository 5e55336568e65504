"""Prompts that write clips, and frames that are hard to compress, so that writing them takes its time."""

import torch

from kinetograph.modules.videofile.encoding import parse_encoding
from kinetograph.modules.videofile.readback import inspect
from kinetograph.modules.videofile.writer import Job, write_clip
from kinetograph.tests.host.graphs import node

SHOTS, SIDE = 8, 128  # frames of noise, pixels on a side
FORMATS = {
    "video/h264-mp4": {"crf": 19, "pix_fmt": "yuv420p"},
    "video/webm": {"crf": 20, "pix_fmt": "yuv420p"},
    "image/gif": {"dither": "bayer"},
    "image/webp": {"quality": 80, "lossless": False},
    "video/ffv1-mkv": {"pix_fmt": "bgr0"},
}
SUFFIXES = {".mp4", ".webm", ".gif", ".webp", ".mkv"}


def write_noise(base):
    """A lossless clip of noise in the input folder; returns its name there."""
    folder = base / "input"
    folder.mkdir(parents=True, exist_ok=True)
    clip = torch.rand(SHOTS, SIDE, SIDE, 3, generator=torch.Generator().manual_seed(0))
    encoding = parse_encoding("image/webp", 8, {"lossless": True})
    return write_clip(Job(folder, "noise", encoding), [clip]).path.name


def noisy(noise, repeats):
    """SHOTS * repeats frames as ["frames", 0]."""
    return {
        "noise": node("LoadImage", image=noise),
        "frames": node("RepeatImageBatch", image=["noise", 0], amount=repeats),
    }


def file_settings(prefix, name="video/h264-mp4", rate=8.0):
    """What every node that writes a clip asks."""
    options = {f"format.{key}": value for key, value in FORMATS[name].items()}
    common = {"frame_rate": rate, "loop_count": 0, "filename_prefix": prefix, "format": name}
    return {**common, **options, "save_output": True, "save_metadata": True, "trim_to_audio": False}


def combined(prefix, name="video/h264-mp4", rate=8.0):
    """VideoCombine of ["frames", 0]."""
    return node(
        "KinetographVideoCombine", images=["frames", 0], pingpong=False, **file_settings(prefix, name, rate)
    )


def plain(prefix, name="video/h264-mp4", frames=4, color=0x3366CC):
    """A prompt that writes a few frames at once."""
    image = node("EmptyImage", width=64, height=64, batch_size=frames, color=color)
    return {"frames": image, "save": combined(prefix, name)}


def finished(folder):
    """Every file under the name of a finished clip."""
    return {path for path in folder.rglob("*") if path.suffix in SUFFIXES and not is_hidden(path, folder)}


def is_hidden(path, folder):
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def is_whole(path, frames):
    """Whether a clip opens and holds what was put in."""
    try:
        return inspect(path).num_frames == frames
    except Exception:
        return False
