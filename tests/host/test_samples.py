"""Pictures and clips that the templates start from: they are in ComfyUI's input folder, and what lies there stays."""

import json
import resource
import signal

import pytest

from kinetograph.tools.commands import ROOT

INPUT = ROOT / "workflows" / "input"
SAMPLES = sorted(path for path in INPUT.rglob("*") if path.is_file())
READERS = {"LoadImage": "image", "LoadVideo": "file"}


@pytest.fixture
def supplied(comfy_here, tmp_path):
    """A function that supplies an input folder, here an empty one, and returns it."""
    import folder_paths

    from kinetograph.nodes.host.files import supply_samples

    before = folder_paths.get_input_directory()
    folder = tmp_path / "input"

    def supply():
        supply_samples()
        return folder

    folder_paths.set_input_directory(str(folder))
    yield supply
    folder_paths.set_input_directory(before)


def test_every_start_picture_of_a_template_is_in_its_list(client):
    schemas = client.get_json("/object_info")
    listed = {kind: schemas[kind]["input"]["required"][name] for kind, name in READERS.items()}
    chosen = [
        (node["class_type"], node["inputs"][READERS[node["class_type"]]])
        for path in (ROOT / "workflows" / "api").glob("*.json")
        for node in json.loads(path.read_text(encoding="utf-8")).values()
        if node["class_type"] in READERS
    ]
    assert len({kind for kind, _ in chosen}) == 2
    assert [(kind, name) for kind, name in chosen if name not in choices_of(listed[kind])] == []


def choices_of(spec):
    """The words of a list in /object_info, as older and newer hosts write it."""
    return spec[0] if isinstance(spec[0], list) else spec[1]["options"]


def test_a_new_folder_gets_them_all_unchanged(supplied):
    folder = supplied()
    assert len(SAMPLES) > 10
    assert {name: file.read_bytes() for name, file in files_in(folder).items()} == {
        name: file.read_bytes() for name, file in files_in(INPUT).items()
    }


def files_in(folder):
    """{name below the folder: file}, of what can be read and of links to nothing."""
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if not path.is_dir()}


def test_what_is_there_stays_as_it_is(supplied, tmp_path):
    mine, gone = [tmp_path / "input" / sample.relative_to(INPUT) for sample in SAMPLES][:2]
    mine.parent.mkdir(parents=True)
    mine.write_text("a picture of mine")
    gone.symlink_to("nowhere")
    folder = supplied()
    assert mine.read_text() == "a picture of mine"
    assert gone.is_symlink() and not gone.exists()
    assert files_in(folder).keys() == files_in(INPUT).keys()


def test_a_folder_that_cannot_be_made_is_told_and_nothing_stops(supplied, tmp_path, caplog):
    (tmp_path / "input").write_text("no folder")
    supplied()
    assert "could not be laid into" in caplog.text


def test_no_part_of_a_file_is_left_on_a_full_disk(supplied, tmp_path, caplog):
    largest = max(SAMPLES, key=lambda file: file.stat().st_size)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest.stat().st_size // 2, hard))
        folder = supplied()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert "could not be laid into" in caplog.text
    whole, left = (
        {name: file.stat().st_size for name, file in files_in(place).items()} for place in (INPUT, folder)
    )
    assert left and left == {name: whole[name] for name in left}
    assert largest.name not in left
