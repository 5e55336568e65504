"""Fetches published models from a shell: `python dev.py fetch NAME`, the same as the node Model Download."""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from kinetograph.modules.download.errors import DownloadError, amount
from kinetograph.modules.download.fetch import download
from kinetograph.modules.download.hub import Hub
from kinetograph.modules.families import DOWNLOADS

WIDTH = 30
# between two looks of the bar
SECONDS = 0.2
# names that ComfyUI had for folders before, in which files may still lie
FORMER = {"text_encoders": "clip", "diffusion_models": "unet"}


def read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="dev.py fetch", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="a release, such as SVD-XT; --list names all"
    )
    parser.add_argument(
        "--models", type=Path, help="ComfyUI's models folder; default: that of the ComfyUI at COMFYUI_PATH"
    )
    parser.add_argument("--list", action="store_true", help="name the releases, their size and their page")
    parser.add_argument("--without-needs", action="store_true", help="nothing that it needs beside it")
    parser.add_argument(
        "--check", action="store_true", help="read what is there already and compare its hash"
    )
    choice = parser.parse_args(arguments)
    if not choice.list and not choice.names:
        parser.error("name a release, such as SVD-XT, or use --list")
    return choice


def main(arguments: Sequence[str] | None = None) -> int:
    """0: all is there; 1: something stands in the way, told on stderr; 130: stopped, parts are kept."""
    choice = read_arguments(arguments)
    if choice.list:
        print("\n".join(list_lines()))
        return 0
    try:
        print(fetch(choice.names, models_folder(choice.models), not choice.without_needs, choice.check))
    except DownloadError as problem:
        print(f"\n{problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. What came is kept, and the next run goes on from there.", file=sys.stderr)
        return 130
    return 0


def fetch(names: Sequence[str], models: Path, with_needs: bool, reads_all: bool) -> str:
    """Bring releases into a models folder; the report."""

    def roots_of(key: str) -> list[Path]:
        return [models / name for name in (key, FORMER.get(key)) if name]

    hub = Hub.of_environment()
    return download(names, DOWNLOADS, roots_of, hub, say, bar(), with_needs, reads_all)


def models_folder(wish: Path | None) -> Path:
    """Where models go; DownloadError where nobody says so, or no folder is there."""
    own = os.environ.get("COMFYUI_PATH")
    folder = wish or (Path(own).expanduser() / "models" if own else None)
    if folder is None:
        raise DownloadError(
            "Where to? Name ComfyUI's models folder: --models ComfyUI/models, or set COMFYUI_PATH to ComfyUI's folder."
        )
    if not folder.is_dir():
        raise DownloadError(f"There is no folder {folder}: name ComfyUI's models folder with --models.")
    return folder.resolve()


def list_lines() -> list[str]:
    """One line for each release: its name, size, folder and page."""
    width = max(map(len, DOWNLOADS))
    lines = []
    for name, release in DOWNLOADS.items():
        size = release.bytes or (release.gigabytes or 0) * 1e9
        lines.append(
            f"{name:{width}}  {amount(size) if size else '?':>9}  {release.folder:20}  {release.address}"
        )
    return lines


def say(text: str) -> None:
    print(text, flush=True)


def bar() -> Callable[[int, int], None]:
    """A progress bar on stderr, where that is a terminal."""
    shown = 0.0

    def move(done: int, total: int) -> None:
        nonlocal shown
        now = time.monotonic()
        if total <= 1 or not sys.stderr.isatty() or (done < total and now - shown < SECONDS):
            return
        shown = now
        filled = "#" * (WIDTH * done // total)
        end = "\n" if done >= total else ""
        sys.stderr.write(f"\r[{filled:{WIDTH}}] {amount(done)} of {amount(total)}   {end}")
        sys.stderr.flush()

    return move


if __name__ == "__main__":
    sys.exit(main())
