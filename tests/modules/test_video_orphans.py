"""Workspaces that nobody works in any more go at once where that is sure, and after a day where it is not."""

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kinetograph.modules.videofile import orphans
from kinetograph.modules.videofile.orphans import OWNER, PREFIX, claim, sweep_below, sweep_orphans, this_boot
from kinetograph.modules.videofile.workspace import Workspace

PACK = Path(sys.modules["kinetograph"].__path__[0]) / "tools" / "pack.py"
DAY = 24 * 3600


def left_behind(folder, owner=None, name="left"):
    """A workspace whose process is gone; `owner` is what it said of itself."""
    work = folder / f"{PREFIX}{name}"
    work.mkdir(parents=True)
    (work / "picture.mp4").write_bytes(b"half a clip")
    if owner is not None:
        (work / OWNER).write_text(owner if isinstance(owner, str) else json.dumps(owner))
    return work


def grow_old(work, seconds=25 * 3600):
    for path in (*work.iterdir(), work):
        os.utime(path, (time.time() - seconds,) * 2)


def test_a_workspace_names_host_boot_and_process(tmp_path):
    with Workspace(tmp_path) as work:
        owner = json.loads(work.file(OWNER).read_text())
        assert owner == {**this_boot(), "process": os.getpid()} and all(owner.values())
        assert set(owner) == {"host", "boot", "process"}
    assert not list(tmp_path.iterdir())


def test_what_this_boot_left_behind_goes_when_its_folder_is_used(tmp_path):
    work = left_behind(tmp_path, {**this_boot(), "process": 1})
    with Workspace(tmp_path):
        assert not work.exists()


def test_a_workspace_in_use_stays_however_old(tmp_path):
    with Workspace(tmp_path) as work:
        grow_old(work.path, 10 * DAY)
        assert sweep_orphans(tmp_path) == sweep_orphans(tmp_path, age=-1) == 0
        with Workspace(tmp_path):
            assert work.path.exists()


HOLD = """
import runpy, sys
from pathlib import Path
runpy.run_path(sys.argv[1])["register"]()
from kinetograph.modules.videofile.workspace import Workspace
with Workspace(Path(sys.argv[2])):
    print("ready", flush=True)
    sys.stdin.read()
"""


def test_another_process_keeps_its_workspace_until_it_is_killed(tmp_path):
    command = [sys.executable, "-c", HOLD, str(PACK), str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"ready\n"
        assert sweep_below([tmp_path]) == 0 and len(list(tmp_path.iterdir())) == 1
        other.kill()
    assert sweep_below([tmp_path]) == 1 and not list(tmp_path.iterdir())


STRANGERS = {
    "another host": {**this_boot(), "host": "elsewhere", "process": 1},
    "before the last start": {**this_boot(), "boot": "yesterday", "process": 1},
    "an older pack": None,
    "killed at its birth": "",
    "half a text": '{"host": "x',
    "a list": "[1, 2]",
    "no boot": {"host": this_boot()["host"]},
    "deep": "[" * 4000,
}


@pytest.mark.parametrize("owner", STRANGERS)
def test_what_may_be_of_another_machine_goes_after_a_day(tmp_path, owner):
    work = left_behind(tmp_path, STRANGERS[owner])
    grow_old(work, DAY - 60)
    assert sweep_orphans(tmp_path) == 0 and work.exists()
    grow_old(work, DAY + 60)
    assert sweep_orphans(tmp_path) == 1 and not work.exists()


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP])
def test_where_files_cannot_be_locked_nobody_claims_anything(tmp_path, monkeypatch, code):
    def refuse(descriptor):
        raise OSError(code, "no locks here")

    monkeypatch.setattr(orphans, "try_lock", refuse)
    with Workspace(tmp_path) as work:
        assert not work.file(OWNER).exists()
        assert sweep_orphans(tmp_path) == 0
        work.file("picture.mp4").touch()
        grow_old(work.path, DAY + 60)
        assert sweep_orphans(tmp_path) == 1
    assert not list(tmp_path.iterdir())


def test_a_closed_claim_is_none(tmp_path):
    work = left_behind(tmp_path)
    descriptor = claim(work)
    assert sweep_orphans(tmp_path) == 0
    os.close(descriptor)
    assert sweep_orphans(tmp_path) == 1


@pytest.mark.skipif(os.name != "posix", reason="links and pipes")
def test_odd_things_named_like_a_workspace_are_left_alone(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / f"{PREFIX}link").symlink_to(tmp_path / "kept")
    (tmp_path / f"{PREFIX}file").write_text("x")
    pipe = left_behind(tmp_path, name="pipe")
    os.mkfifo(pipe / OWNER)
    away = left_behind(tmp_path, name="away")
    (tmp_path / "outside.json").write_text(json.dumps(this_boot()))
    (away / OWNER).symlink_to(tmp_path / "outside.json")
    before = sorted(tmp_path.iterdir())
    assert sweep_below([tmp_path]) == 0 and sorted(tmp_path.iterdir()) == before


def test_the_start_sweeps_all_folders_of_results(tmp_path):
    ours = {**this_boot(), "process": 1}
    output, temp = tmp_path / "output", tmp_path / "temp"
    for folder in (output, output / "video", output / "video" / "2026" / "cats", temp):
        left_behind(folder, ours)
    hidden = left_behind(output / ".snapshots", ours)
    outside = left_behind(tmp_path / "outside", ours)
    (output / "away").symlink_to(outside.parent)
    (output / "loop").symlink_to(output)
    assert sweep_below([output, temp, tmp_path / "none", output / "video" / "2026"]) == 4
    assert sorted(tmp_path.rglob(f"{PREFIX}*")) == sorted([hidden, outside])


def test_the_start_waits_for_no_endless_folder(tmp_path, monkeypatch):
    for number in range(50):
        left_behind(tmp_path / f"{number}", {**this_boot(), "process": 1})
    assert sweep_below([tmp_path], seconds=-1) == 0
    assert sweep_below([tmp_path]) == 50


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="takes the rights away from root")
def test_folders_without_rights_are_passed_over(tmp_path):
    theirs = left_behind(tmp_path, {**this_boot(), "process": 1})
    grow_old(theirs)
    theirs.chmod(0o700)
    tmp_path.chmod(0o777)
    (tmp_path / "closed").mkdir(mode=0o700)
    (tmp_path / "open").mkdir()
    os.chmod(tmp_path / "open", 0o777)
    for parent in list(tmp_path.parents)[:3]:
        if parent.name.startswith(("pytest", "popen")):
            parent.chmod(0o755)
    os.seteuid(65534)
    try:
        assert sweep_below([tmp_path]) == 0
        with Workspace(tmp_path / "open"), Workspace(tmp_path):
            pass
    finally:
        os.seteuid(0)
    assert theirs.exists() and not list((tmp_path / "open").iterdir())
