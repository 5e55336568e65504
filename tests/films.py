"""Tiny films for tests: every frame tells its number, nothing is lost, and each corner has a mark of its own."""

import io
import subprocess
from fractions import Fraction

import av
import imageio_ffmpeg
import numpy as np

SIZE = 48, 32  # width, height
CORNERS = ((0, 0), (0, -1), (-1, 0), (-1, -1))


def shots(count, width=SIZE[0], height=SIZE[1]):
    """Grey frames whose value is four times their number, with another mark in each corner."""
    frames = np.empty((count, height, width, 3), np.uint8)
    frames[:] = (4 * np.arange(count) % 256)[:, None, None, None]
    for mark, (down, across) in zip((10, 80, 150, 220), CORNERS, strict=True):
        rows = slice(0, 8) if down == 0 else slice(-8, None)
        columns = slice(0, 8) if across == 0 else slice(-8, None)
        frames[:, rows, columns] = (mark, 255 - mark, 30)
    return frames


def write(
    target,
    frames,
    rate=24,
    times=None,
    sound=None,
    codec="libx264rgb",
    muxer=None,
    gop=12,
    tick=None,
    b_frames=False,
):
    """A file of frames, lossless without B frames. `times` are in `tick`s, `sound` is (samples, rate, start)."""
    with av.open(target, "w", format=muxer) as container:
        stream = container.add_stream(codec, rate=Fraction(rate).limit_denominator(10**5))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "rgb24" if codec == "libx264rgb" else "bgr0"
        stream.gop_size = gop
        if codec == "libx264rgb":
            stream.options = {"qp": "0"}
        if b_frames:
            stream.codec_context.max_b_frames = 2
            stream.options = {"crf": "1", "x264-params": "b-adapt=0:scenecut=0"}
        if tick:
            stream.codec_context.time_base = tick
        heard = sound and container.add_stream("pcm_f32le", rate=sound[1], layout="stereo")
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = (
                (number, 1 / Fraction(rate)) if times is None else (times[number], tick)
            )
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if heard:
            piece = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(sound[0].T).reshape(1, -1), "flt", "stereo"
            )
            piece.sample_rate, piece.pts = sound[1], round(sound[2] * sound[1])
            container.mux(heard.encode(piece))
            container.mux(heard.encode())
    return target if isinstance(target, io.BytesIO) else str(target)


def numbers(frames):
    return [(int(frame[16, 24, 0]) + 2) // 4 for frame in frames]


def run_ffmpeg(*arguments):
    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    return subprocess.run(
        [ffmpeg, "-v", "error", "-y", *map(str, arguments)], check=True, capture_output=True
    )
