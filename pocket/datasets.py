"""`python tools/pack.py kinetograph.pocket.datasets NAME FOLDER --count N`: the worlds as folders to train on.

Clips and pictures lie in the formats that users have (`modules/training/data`), without loss: the same numbers as the
drawn ones to the next 255th. `NAME` is one of `WORLDS`.
"""

import argparse
import csv
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import torch
from PIL import Image
from torch import Tensor

from . import scenes, shapes
from .mark import put_mark
from .sd import world
from .shapes import draw
from .svd import world as sliding

RATE = 8
# part of the sliding clips that stand still
STILL = {sliding.FRAMES: 0.12, sliding.LONG_FRAMES: 0.05}
CHALK = "white"


@dataclass(frozen=True)
class Item:
    """One clip or picture (f, h, w, 3) in 0..1, and what is said of it."""

    frames: Tensor
    caption: str
    # frames a second
    rate: int = RATE
    # a clip of the same size to follow
    control: Tensor | None = None
    numbers: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class World:
    """What an item of a seed is; the first seed, which no score uses; how a folder of it is written if nothing is said."""

    draw: Callable[[int], Item]
    first_seed: int
    format: str


def photo(seed: int) -> Item:
    """One moment of a small shape's way (pocket SD and PixArt)."""
    shown = world.photo(seed)
    return Item(draw(shown.clip, 1), shown.caption)


def chalk(seed: int) -> Item:
    """The same in chalk, which is white whatever colour the caption names."""
    shown = world.photo(seed)
    return Item(draw(replace(shown.clip, colour=CHALK), 1), shown.caption)


def clip(seed: int) -> Item:
    """A small shape on its way."""
    shown = world.captioned(seed)
    return Item(draw(shown.clip, world.FRAMES), shown.caption)


def pan(motion: str) -> Callable[[int], Item]:
    """Clips that move one way, of which captions say nothing."""

    def item(seed: int) -> Item:
        shown = world.pan_clip(seed, motion)
        return Item(draw(shown.clip, world.FRAMES), shown.caption)

    return item


def marked(plain: Callable[[int], Item]) -> Callable[[int], Item]:
    """The same under a watermark."""

    def item(seed: int) -> Item:
        known = plain(seed)
        return replace(known, frames=put_mark(known.frames))

    return item


def slide(frames: int) -> Callable[[int], Item]:
    """Clips of the pocket SVD; how fast a shape goes is told by the motion bucket alone."""

    def item(seed: int) -> Item:
        still = random.Random(f"still {seed}").random() < STILL[frames]
        known = (sliding.still_clip if still else sliding.sample_clip)(seed)
        caption = f"a {known.colour} {known.shape} {known.motion}"
        pixels = draw(known, frames, sliding.SIZE)  # type: ignore[arg-type]
        return Item(pixels, caption, known.fps, numbers={"motion_bucket_id": known.bucket})

    return item


def shape(seed: int) -> Item:
    """A clip of the pocket CogVideoX."""
    known = shapes.sample_clip(seed)
    return Item(draw(known), known.caption)


def scene(seed: int) -> Item:
    """A clip to paint into."""
    known = scenes.draw_scene(seed)[0]
    return Item(scenes.draw_scenes([known])[0], known.caption)


def silhouette(seed: int) -> Item:
    """A clip with its shape's silhouette to follow."""
    known, called = scenes.draw_scene(seed)[0], scenes.misnamed_scene(seed)
    frames, control = (make([known])[0] for make in (scenes.draw_scenes, scenes.draw_silhouettes))
    return Item(frames, called.caption, control=control)


WORLDS: dict[str, World] = {
    "photos": World(photo, 5_000_000, "diffusers"),
    "photos-marked": World(marked(photo), 5_000_000, "diffusers"),
    "photos-chalk": World(chalk, 8_000_000, "diffusers"),
    "clips": World(clip, 6_000_000, "webvid"),
    "clips-marked": World(marked(clip), 6_000_000, "webvid"),
    "pan-left": World(pan("moving left"), 7_000_000, "captions"),
    "pan-right": World(pan("moving right"), 7_000_000, "captions"),
    "pan-up": World(pan("moving up"), 7_000_000, "captions"),
    "slides": World(slide(sliding.FRAMES), 3_000_000, "normal"),
    "slides-long": World(slide(sliding.LONG_FRAMES), 3_500_000, "normal"),
    "shapes": World(shape, 10_000_000, "captions"),
    "scenes": World(scene, 50_000_000, "normal"),
    "scenes-control": World(silhouette, 50_000_000, "normal"),
}


def write_pixels(file: Path, frames_fhwc: Tensor, rate: int) -> Path:
    """A PNG of one frame, or an mp4 of more, exact; the file with its suffix."""
    pixels = (frames_fhwc * 255).round().to(torch.uint8).contiguous().numpy()
    if len(pixels) == 1:
        path = file.with_suffix(".png")
        Image.fromarray(pixels[0]).save(path)
        return path
    path = file.with_suffix(".mp4")
    with av.open(str(path), "w") as container:
        # RGB, as YUV rounds colours
        stream = container.add_stream("libx264rgb", Fraction(rate), options={"qp": "0"})
        _, stream.height, stream.width, _ = pixels.shape
        stream.pix_fmt = "rgb24"
        for frame in pixels:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def write_items(world: World, folder: Path, count: int) -> Iterator[tuple[Path, Path | None, Item]]:
    """The files of so many items, and those of clips to follow."""
    for i in range(count):
        item = world.draw(world.first_seed + i)
        file = write_pixels(folder / f"{i:05d}", item.frames, item.rate)
        control = None
        if item.control is not None:
            control = write_pixels(folder / "control" / f"{i:05d}", item.control, item.rate)
        yield file, control, item


def json_row(folder: Path, file: Path, control: Path | None, item: Item) -> dict[str, Any]:
    """An entry of a JSON list."""
    height, width = item.frames.shape[1:3]
    row: dict[str, Any] = {
        "file_path": file.name,
        "text": item.caption,
        "type": "video" if file.suffix == ".mp4" else "image",
        "width": width,
        "height": height,
    }
    if control is not None:
        row["control_file_path"] = control.relative_to(folder).as_posix()
    return row | item.numbers


def write_folder(name: str, folder: Path, count: int, format: str = "") -> None:
    """So many items of a world, in its own format or another one."""
    chosen = WORLDS[name]
    (folder / "control").mkdir(parents=True, exist_ok=True)
    items = list(write_items(chosen, folder, count))
    format = format or chosen.format
    if format == "webvid":
        with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(("videoid", "name", "page_dir"))
            table.writerows((path.stem, item.caption, "") for path, _, item in items)
    elif format == "normal":
        rows = [json_row(folder, *row) for row in items]
        (folder / "metadata.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    elif format == "diffusers":
        rows = [json.dumps({"file_name": path.name, "text": item.caption}) for path, _, item in items]
        (folder / "metadata.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    else:
        for path, _, item in items:
            path.with_suffix(".txt").write_text(item.caption + "\n", encoding="utf-8")
    if not any(control for _, control, _ in items):
        (folder / "control").rmdir()


def main() -> None:
    reader = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    reader.add_argument("name", choices=WORLDS)
    reader.add_argument("folder", type=Path)
    reader.add_argument("--count", type=int, default=500)
    reader.add_argument("--format", choices=("webvid", "normal", "diffusers", "captions"), default="")
    chosen = reader.parse_args()
    if any(chosen.folder.glob("*")):
        raise SystemExit(
            f"{chosen.folder} holds something already: name a folder that is empty or not there yet."
        )
    write_folder(chosen.name, chosen.folder, chosen.count, chosen.format)


if __name__ == "__main__":
    main()
