"""Disks that are full, read-only or gone, folders without rights, no more open files: words that help, nothing left."""

import errno
import os
import re
import shutil
import subprocess
import time

import pytest
import torch

from kinetograph.modules.videofile.encoding import parse_encoding
from kinetograph.modules.videofile.errors import DiskFull, Shortage, VideoError, in_our_words, reason
from kinetograph.modules.videofile.formats import FORMATS
from kinetograph.modules.videofile.metadata import Notes
from kinetograph.modules.videofile.readback import inspect
from kinetograph.modules.videofile.writer import Job, VideoWriter, write_clip
from kinetograph.tests.clips import make_clip

SOFTWARE = [entry.name for entry in FORMATS if "nvenc" not in entry.name]
ROOT = pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="takes the rights away from root")


def job(folder, name="video/h264-mp4", options=None, pingpong=False, loop_count=0, **more):
    return Job(folder, "clip", parse_encoding(name, 8, options, loop_count, pingpong), **more)


def noise(frames, size=128):
    return torch.rand(frames, size, size, 3, generator=torch.Generator().manual_seed(0))


def figures(text):
    """(free for the clip, needed, written), in bytes, as an error tells them."""
    found = re.search(
        r"([\d.]+ [kM]B) were free for this clip, (?:more than|at least about) ([\d.]+ [kM]B) are needed "
        r"\(([\d.]+ [kM]B) were written",
        text,
    )
    assert found, text
    return [float(word.split()[0]) * {"kB": 1e3, "MB": 1e6}[word.split()[1]] for word in found.groups()]


@pytest.fixture
def small_disk(tmp_path):
    """A function that mounts a disk of so many KiB."""
    mounted = []

    def mount(kibibytes):
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "tmpfs", str(folder)]
        if os.name != "posix" or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("mounting a small disk needs root on Linux")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("kibibytes", [4, 16, 64, 256])
@pytest.mark.parametrize("name", SOFTWARE)
def test_a_full_disk_is_an_error_that_says_how_full(small_disk, name, kibibytes):
    disk = small_disk(kibibytes)
    clip = torch.rand(24, 128, 128, 3, generator=torch.Generator().manual_seed(0))
    try:
        with VideoWriter(job(disk, name, num_frames=24)) as writer:
            writer.write(clip)
    except DiskFull as full:
        number, unit = re.search(r"([\d.]+) (kB|MB) were free for this clip", str(full)).groups()
        free = float(number) * {"kB": 1e3, "MB": 1e6}[unit]
        assert free == pytest.approx(kibibytes * 1024, rel=0.1, abs=5000), full
        assert re.search(rf"(more than {number}|at least about [\d.]+) [kM]B are needed", str(full)), full
        assert not list(disk.iterdir())
    else:
        assert inspect(writer.path).num_frames == 24 or name == "image/webp"
        assert list(disk.iterdir()) == [writer.path]


def test_a_disk_that_fills_in_the_replay_file_is_an_error(small_disk):
    disk = small_disk(512)
    with pytest.raises(DiskFull), VideoWriter(job(disk, pingpong=True)) as writer:
        writer.write(make_clip(64))
    assert not list(disk.iterdir())


@pytest.mark.parametrize("more", [{}, {"pingpong": True}, {"loop_count": 2}], ids=str)
def test_the_figures_of_a_full_disk_are_true(small_disk, tmp_path, more):
    """A clip of noise, whose frames take the same room each, on half the disk that it needs."""
    (tmp_path / "large").mkdir()
    clip = noise(96)
    wanted = job(tmp_path / "large", "video/ffv1-mkv", num_frames=96, **more)
    needed = write_clip(wanted, [clip]).path.stat().st_size + (clip.numel() if more else 0)
    disk = small_disk(needed // 2048)
    with pytest.raises(DiskFull) as raised:
        write_clip(job(disk, "video/ffv1-mkv", num_frames=96, **more), clip.split(1))
    free, told, written = figures(str(raised.value))
    assert free == pytest.approx(needed / 2, rel=0.06)
    assert written == pytest.approx(free, rel=0.06)  # nothing of a full disk is free
    assert needed * 0.6 < told < needed * 1.1  # ffmpeg holds some frames that are not on the disk yet
    assert not list(disk.iterdir())


def test_what_is_needed_is_not_made_up(small_disk):
    """Nobody knows how long the clip would have become, and x264 holds many frames back."""
    disk = small_disk(64)
    with pytest.raises(DiskFull, match=r"more than (\d+) kB are needed.*encoder had \d+ frames") as raised:
        write_clip(job(disk), noise(24).split(1))
    free, told, _ = figures(str(raised.value))
    assert free == told


def test_a_disk_that_holds_no_more_files_is_not_called_full(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    # The root, the workspace and its owner take three of five: one is left for tags, one for the clip.
    command = ["mount", "-t", "tmpfs", "-o", "size=64m,nr_inodes=4", "tmpfs", str(disk)]
    if os.name != "posix" or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root on Linux")
    try:
        with pytest.raises(DiskFull, match=r"takes no more, although there is room.*6\d\.\d MB are free now"):
            write_clip(job(disk, notes=Notes({"prompt": "{}"}, {})), [make_clip(2)])
        assert not list(disk.iterdir())
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_read_only_disk_is_an_error(small_disk):
    disk = small_disk(512)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(VideoError, match="Cannot write into the output folder: its disk is read-only"):
        write_clip(job(disk), [make_clip(2)])


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(
        VideoError, match="Cannot write into the output folder: it is not there.*Make it again"
    ):
        write_clip(job(tmp_path / "no"), [make_clip(2)])
    (tmp_path / "file").write_text("x")
    with pytest.raises(VideoError, match="a file lies where a folder should be"):
        write_clip(job(tmp_path / "file"), [make_clip(2)])


@ROOT
def test_a_folder_without_rights_is_an_error(tmp_path):
    (tmp_path / "theirs").mkdir(mode=0o755)
    os.seteuid(65534)
    try:
        with pytest.raises(VideoError, match="this user has no right to it.*ComfyUI may write there"):
            write_clip(job(tmp_path / "theirs"), [make_clip(2)])
    finally:
        os.seteuid(0)


def remove(folder):
    """Also where ffmpeg makes a file in it meanwhile."""
    patience = time.monotonic() + 10
    while folder.exists():
        shutil.rmtree(folder, ignore_errors=time.monotonic() < patience)


def replace_by_a_file(folder):
    remove(folder)
    folder.write_text("x")


def replace_by_another(folder):
    remove(folder)
    folder.mkdir()


MOMENTS = ("before the first frame", "between frames", "before the end")
HARMS = [
    *((name, moment, remove) for name in ("video/webm", "image/gif", "image/webp") for moment in MOMENTS),
    *(
        ("video/h264-mp4", moment, harm)
        for moment in MOMENTS
        for harm in (replace_by_a_file, replace_by_another)
    ),
]


@pytest.mark.parametrize(("name", "moment", "harm"), HARMS)
def test_an_output_folder_that_goes_meanwhile_is_an_error(tmp_path, name, moment, harm):
    folder = tmp_path / "output"
    folder.mkdir()
    with pytest.raises(VideoError, match="output folder was moved, removed or replaced") as raised:
        with VideoWriter(job(folder, name, notes=Notes({"prompt": "{}"}, {}))) as writer:
            if moment == "before the first frame":
                harm(folder)
            writer.write(make_clip(3))
            harm(folder) if moment == "between frames" else None
            writer.write(make_clip(3)) if moment == "between frames" else None
            harm(folder) if moment == "before the end" else None
    assert str(tmp_path) not in str(raised.value)
    assert not folder.is_dir() or not list(folder.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="limits of open files are POSIX")
@pytest.mark.parametrize("name", ["video/h264-mp4", "image/gif", "image/webp"])
def test_too_few_open_files_are_an_error(tmp_path, name):
    """From none at all to enough: an error with words that help each time, and nothing stays behind."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    write_clip(job(tmp_path, name), [make_clip(2)]).path.unlink()  # what is imported late is imported now
    said = []
    for spare in range(40):
        taken = [os.open(os.devnull, os.O_RDONLY)]
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (taken[0] + 64, limits[1]))
            with pytest.raises(OSError):
                while True:
                    taken.append(os.open(os.devnull, os.O_RDONLY))
            for descriptor in taken[-spare:] if spare else ():
                os.close(descriptor)
            del taken[len(taken) - spare :]
            writer = write_clip(job(tmp_path, name, notes=Notes({"prompt": "{}"}, {})), [make_clip(2)])
        except VideoError as error:
            said.append(str(error))
        else:
            break
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            for descriptor in taken:
                os.close(descriptor)
        assert not list(tmp_path.iterdir()), (spare, said[-1])
    else:
        pytest.fail("40 open files were too few")
    assert len(said) > 5 and [path for path in tmp_path.iterdir()] == [writer.path]
    for words in said:
        assert "too many files are open" in words.lower() and "[Errno" not in words, words
        assert str(tmp_path) not in words


def test_no_words_of_the_system_reach_the_user():
    for code in (errno.ENOENT, errno.EACCES, errno.EROFS, errno.EMFILE, errno.EIO, errno.ENAMETOOLONG):
        words = reason(OSError(code, os.strerror(code), "/secret/path"))
        assert os.strerror(code) not in words and "secret" not in words and "refused it" not in words
    assert reason(OSError(errno.EXDEV, "x")) == "this computer refused it (EXDEV)"
    assert reason(OSError("no number")) == "this computer refused it (unknown cause)"
    with pytest.raises(DiskFull, match="its disk is full"), in_our_words():
        raise OSError(errno.ENOSPC, "x", "/secret/path")
    with pytest.raises(Shortage, match="too many files are open"), in_our_words():
        raise OSError(errno.EMFILE, "x", "/secret/path")
