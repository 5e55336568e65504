"""Runs inside the environment: makes torchvision and torchaudio importable beside a torch without CUDA.

Their wheels may carry compiled parts that only load beside a CUDA torch. ComfyUI needs the Python parts
alone. Nothing is touched when both import. Writes which device torch sees to the file given.
"""

import importlib
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

HOOK = '''"""Declares two torchvision operators whose compiled part cannot load beside a torch without CUDA."""

import sys


class _BeforeTorchvision:
    """Finds nothing; looks out for the first import of torchvision and declares its operators then."""

    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            self.declare()
        return None

    @staticmethod
    def declare():
        import torch

        if torch.version.cuda is None:
            library = torch.library.Library("torchvision", "DEF")
            for name in ("nms", "qnms"):
                library.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            _BeforeTorchvision.kept = library


sys.meta_path.insert(0, _BeforeTorchvision())
'''


def imports(name: str) -> str:
    """The last line of what goes wrong when a fresh interpreter imports `name`; empty when all is well."""
    done = subprocess.run([sys.executable, "-c", f"import {name}"], capture_output=True, text=True)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["it crashed"])[-1]


def mend_torchvision(site: Path) -> None:
    (site / "kinetograph_torchvision.py").write_text(HOOK)
    (site / "kinetograph_torchvision.pth").write_text("import kinetograph_torchvision\n")


def mend_torchaudio(site: Path) -> None:
    for library in (site / "torchaudio" / "lib").glob("*.so"):
        library.unlink()


def main(device_file: str) -> None:
    torch = importlib.import_module("torch")
    spec = find_spec("torchvision")
    if spec is None or spec.origin is None:
        sys.exit("torchvision is not installed")
    site = Path(spec.origin).parents[1]
    for name, mend in (("torchvision", mend_torchvision), ("torchaudio", mend_torchaudio)):
        if imports(name) and torch.version.cuda is None:
            mend(site)
        if trouble := imports(name):
            sys.exit(f"{name} cannot be imported: {trouble}")
    sees_device = torch.cuda.is_available() or torch.backends.mps.is_available()
    Path(device_file).write_text("accelerator" if sees_device else "cpu")


if __name__ == "__main__":
    main(sys.argv[1])
