"""The archive that the registry would get: files that git knows, less what `.comfyignore` names."""

import subprocess
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = "pocket/models/"


def _list(*arguments):
    """Names that `git ls-files` answers. Raises FileNotFoundError without git."""
    command = ["git", "-c", "safe.directory=*", *arguments, "-z"]  # whoever owns the folder
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    return set(done.stdout.decode().split("\0")) - {""}


def names():
    """Names of the files in the archive, sorted. In a folder that is no repository, of all that git would take."""
    if (ROOT / ".git").exists():
        return _chosen(["ls-files", "--cached"])
    with tempfile.TemporaryDirectory() as other:
        subprocess.run(["git", "init", "-q", other], check=True)
        places = ["--git-dir", f"{other}/.git", "--work-tree", str(ROOT)]
        return _chosen([*places, "ls-files", "--others", "--exclude-standard"])


def _chosen(listing):
    everything = _list(*listing)
    plain = [word for word in listing if word != "--exclude-standard"]
    return sorted(everything - _list(*plain, "--ignored", "--exclude-from=.comfyignore"))


def build(path, compression=zipfile.ZIP_DEFLATED):
    """Write the archive, and return its path."""
    with zipfile.ZipFile(path, "w", compression) as file:
        for name in names():
            file.write(ROOT / name, name)
    return path
