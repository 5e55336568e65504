"""Runs inside the environment: reopens a video, counts its frames, lays them out on one picture.

    python contact_sheet.py VIDEO SHEET FRAMES WIDTH HEIGHT

Exits with 1 when the file does not hold that many frames of that size.
"""

import sys

import av
from PIL import Image

MOST_TILES = 32
COLUMNS = 8
MARGIN = 2


def read_frames(path: str) -> list[Image.Image]:
    with av.open(path) as container:
        return [frame.to_image() for frame in container.decode(video=0)]


def draw_sheet(frames: list[Image.Image]) -> Image.Image:
    """At most 32 frames, evenly chosen from first to last."""
    count = min(len(frames), MOST_TILES)
    chosen = [frames[round(i * (len(frames) - 1) / max(1, count - 1))] for i in range(count)]
    width, height = chosen[0].size
    rows = -(-count // COLUMNS)
    columns = min(count, COLUMNS)
    size = (columns * (width + MARGIN) + MARGIN, rows * (height + MARGIN) + MARGIN)
    sheet = Image.new("RGB", size, "white")
    for i, frame in enumerate(chosen):
        row, column = divmod(i, COLUMNS)
        sheet.paste(frame, (MARGIN + column * (width + MARGIN), MARGIN + row * (height + MARGIN)))
    return sheet


def main(video: str, sheet: str, *asked: str) -> int:
    num_frames, width, height = map(int, asked)
    frames = read_frames(video)
    held = {(len(frames), *frame.size) for frame in frames} or {(0, 0, 0)}
    if held != {(num_frames, width, height)}:
        print(f"{video} holds {held} (frames, width, height); asked were {(num_frames, width, height)}.")
        return 1
    draw_sheet(frames).save(sheet)
    print(f"Reopened: {num_frames} frames of {width}x{height}")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
