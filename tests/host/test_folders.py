"""Model folders as they lie on people's drives: every node stays, lists are quick and hide only what is sure."""

import json
import os
import re
import stat
import time
from pathlib import Path

import pytest

from kinetograph.modules.families import FAMILIES
from kinetograph.tests.host.conftest import UNREADABLE
from kinetograph.tests.host.graphs import node

pytestmark = pytest.mark.newest

IDS = json.loads((Path(__file__).parents[1] / "node_ids.json").read_text())
# (node, the input that names a file)
CHOICES = {
    "KinetographCogVideoXLoader": ("model", "text_encoder", "vae"),
    "KinetographSVDLoader": ("model", "image_encoder", "vae"),
    "KinetographExVideoPatch": ("exvideo",),
    "KinetographMotionModuleApply": ("motion_module",),
    "KinetographModelDoctor": ("model",),
}
SVD, COGVIDEOX, FOLDER = "SVD/tiny-svd.safetensors", "CogVideo/tiny-5B", "SVD/tiny-svd"
PATIENCE = 30  # seconds for headers that are read in the background
QUICK = 3.0  # seconds for an answer to a page, with hundreds of files
MANY = 300


@pytest.fixture(scope="module")
def drive(base):
    """What must be in no list, by what is said of it; links that lead back; a name that is no text."""
    svd = base / "models" / "SVD"
    for name, kind in {"pipe": stat.S_IFIFO, "socket": stat.S_IFSOCK}.items():
        os.mknod(svd / f"{name}.safetensors", kind | 0o600)
    (svd / "device.safetensors").symlink_to("/dev/zero")
    (svd / "astray.safetensors").symlink_to(svd / "gone.safetensors")
    (svd / "._tiny-svd.safetensors").write_bytes(b"\x00\x05\x16\x07" + bytes(4092))
    (svd / "unreadable.safetensors").write_bytes(b"x" * 100)
    (svd / "unreadable.safetensors").chmod(0)
    (svd / "a" / "b").mkdir(parents=True)
    (svd / "a" / "b" / "back").symlink_to(svd, target_is_directory=True)
    (svd / "café\udce9.safetensors").hardlink_to(svd / "tiny-svd.safetensors")
    return {
        "SVD/pipe.safetensors": "is a pipe, not a file with weights",
        "SVD/socket.safetensors": "is a socket, not a file with weights",
        "SVD/device.safetensors": "is a device, not a file with weights",
        "SVD/astray.safetensors": "is a link to something that is not there",
        "SVD/._tiny-svd.safetensors": "is what macOS keeps beside a file",
    }


def lists(client, name):
    """{input: names offered} of one node, as a page asks for them."""
    inputs = client.get_json(f"/object_info/{name}")[name]["input"]["required"]
    return {place: inputs[place][1]["options"] for place in CHOICES[name]}


def offered(client, name, place, until):
    """A list once its headers are read: when `until` holds of it, or when patience ends."""
    deadline = time.monotonic() + PATIENCE
    while True:
        names = lists(client, name)[place]
        if until(names) or time.monotonic() > deadline:
            return names
        time.sleep(1.0)


def refusal(client, name, **chosen):
    """What is said at the post of a graph that loads or looks at a model."""
    own = {
        "KinetographCogVideoXLoader": "from the model's folder",
        "KinetographSVDLoader": "from the checkpoint",
    }
    inputs = {place: own[name] for place in CHOICES[name] if name in own} | chosen
    if name in own:
        inputs["weight_dtype"] = "auto"
    graph = {"load": node(name, **inputs)}
    if name == "KinetographExVideoPatch":
        parts = dict.fromkeys(("image_encoder", "vae"), "from the checkpoint")
        graph["svd"] = node("KinetographSVDLoader", model=SVD, weight_dtype="auto", **parts)
        graph["load"]["inputs"]["model"] = ["svd", 0]
    if name != "KinetographModelDoctor":
        graph["end"] = node("PreviewAny", source=["load", 0])
    result = client.run(graph, timeout=60)
    assert result.status == "refused", result.message
    assert [*result.node_errors] == ["load"] and "not in list" not in result.message
    return result.message


# no file of the session is a motion module
WITHOUT_FILES = ("KinetographMotionModuleApply",)


def test_an_unreadable_folder_takes_no_node_away(client, server, base, drive):
    folder = base / "models" / "SVD" / UNREADABLE
    assert folder.is_dir() and stat.S_IMODE(folder.stat().st_mode) == 0
    if Path("/proc/self/status").exists():
        status = Path(f"/proc/{server.process.pid}/status").read_text()
        assert not int(re.search(r"CapEff:\s+(\w+)", status).group(1), 16) & 0b110, "root reads everything"
    assert {name for name in client.get_json("/object_info") if name.startswith("Kinetograph")} == {*IDS}
    assert SVD in lists(client, "KinetographSVDLoader")["model"]


def test_lists_hold_files_and_folders_alone(client, drive):
    """Neither links that lead back nor a name that is no text harm them."""
    for name in CHOICES:
        for place, names in lists(client, name).items():
            assert not [entry for entry in names if entry in drive or "/back/" in entry], f"{name}.{place}"
            assert names or name in WITHOUT_FILES, f"{name}.{place}"
            "\n".join(names).encode()
    assert "SVD/café%E9.safetensors" in lists(client, "KinetographModelDoctor")["model"]


def test_links_that_multiply_end(comfy_here, tmp_path, monkeypatch):
    """Eight folders that each link to all of them: 8^40 names for whoever follows every link."""
    import folder_paths

    from kinetograph.nodes.pipeline import models

    for i in range(8):
        (tmp_path / str(i)).mkdir()
        (tmp_path / str(i) / "x.safetensors").write_bytes(b"x")
        for j in range(8):
            (tmp_path / str(i) / f"to{j}").symlink_to(tmp_path / str(j), target_is_directory=True)
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "SVD", ([str(tmp_path)], {".safetensors"}))
    begun = time.process_time()
    names = models.list_models(("extension",))
    assert time.process_time() - begun < 10
    assert {f"SVD/{i}/x.safetensors" for i in range(8)} <= {*names}
    assert models.find_model("SVD/7/x.safetensors", ("extension",)) == tmp_path / "7" / "x.safetensors"


def test_what_cannot_be_opened_is_refused_at_once_and_in_words(client, base, drive):
    said = {
        **drive,
        "SVD/unreadable.safetensors": "cannot be read: ComfyUI may not read it",
        f"SVD/{UNREADABLE}": f"{UNREADABLE} cannot be read: ComfyUI may not read it",
        "SVD/café%E9.safetensors": "lies under a name that is no text",
    }
    for model, words in said.items():
        message = refusal(client, "KinetographSVDLoader", model=model)
        assert words in message and str(base) not in message, message
    words = said["SVD/pipe.safetensors"]
    assert words in refusal(client, "KinetographExVideoPatch", exvideo="SVD/pipe.safetensors")


ABSENT = {
    "CogVideo/CogVideoX-2b": "Put it into models/CogVideo and refresh the list (press R), or choose another one. "
    'Model Download fetches it: choose the release "CogVideoX 2B" there.',
    "CogVideo/mine": "Put it into models/CogVideo and refresh the list (press R), or choose another one. Model Download "
    "fetches published models; the templates that begin with try need none.",
    "svd_xt.safetensors": "models/checkpoints",
    "Motion_Module/easyanimate_v1_mm.safetensors": 'says how to fetch it: choose the release "EasyAnimate v1" there',
    "checkpoints/svd_xt.safetensors": 'the release "SVD-XT" there',
    "CogVideoX_1_5_5b_T2V_bf16.safetensors": 'the release "CogVideoX 1.5-5B, one file" there',
    "../../../../etc/passwd": "There is no model",
    "/etc/passwd": "There is no model",
    "\x1b[2J" + "x" * 2**20: "There is no model '\\x1b[2J",
    "SVD/" + "y" * 5_000: "There is no model",
    "\0": "There is no model",
    "": "There is no model",
}


@pytest.mark.parametrize("model", ABSENT, ids=lambda name: ascii(name[:30]))
def test_a_model_that_never_was_there_is_told_where_it_goes(client, base, model):
    for name in ("KinetographCogVideoXLoader", "KinetographSVDLoader", "KinetographModelDoctor"):
        message = refusal(client, name, model=model)
        assert ABSENT[model] in message or (name.endswith("Doctor") and "models/SVD" in message)
        assert "no longer" not in message and str(base) not in message and "Model Download " in message
        assert len(message) < 3_000


def test_the_pocket_models_are_there_from_the_start_behind_all_others(client):
    """On a server that nobody gave them to; no loader of the host lists one."""
    pocket = "SVD/pocket-svd.safetensors"
    names = offered(client, "KinetographSVDLoader", "model", lambda names: COGVIDEOX not in names)
    assert names[-1] == pocket and "SVD/tiny-svd" in names
    name, inputs = "KinetographSVDLoader", {"model": pocket, "image_encoder": "from the checkpoint"}
    inputs |= {"vae": "from the checkpoint", "weight_dtype": "auto"}
    graph = {"1": {"class_type": name, "inputs": inputs}}
    graph["2"] = {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}}
    assert client.run(graph).status == "success"
    known = client.get_json("/object_info")
    mine = [key for key in known if "pocket-" in json.dumps(known[key])]
    assert mine and [key for key in mine if not key.startswith("Kinetograph")] == []


def test_a_list_leaves_out_what_is_surely_another_kinds_and_the_post_says_what_it_is(client, drive):
    ours = offered(client, "KinetographCogVideoXLoader", "model", lambda names: SVD not in names)
    assert COGVIDEOX in ours and SVD not in ours and FOLDER not in ours
    theirs = offered(client, "KinetographSVDLoader", "model", lambda names: COGVIDEOX not in names)
    assert {SVD, FOLDER} <= {*theirs} and COGVIDEOX not in theirs
    assert SVD not in lists(client, "KinetographExVideoPatch")["exvideo"]
    assert {SVD, FOLDER, COGVIDEOX} <= {*lists(client, "KinetographModelDoctor")["model"]}
    wrong = {
        "KinetographCogVideoXLoader": (SVD, "SVD Loader"),
        "KinetographSVDLoader": (COGVIDEOX, "CogVideoX Loader"),
    }
    for name, (model, right) in wrong.items():
        assert refusal(client, name, model=model).count(f": use {right}.") >= 1
    assert "use SVD Loader." in refusal(client, "KinetographExVideoPatch", exvideo=SVD)
    assert "use SVD Loader." in refusal(client, "KinetographCogVideoXLoader", model=COGVIDEOX, vae=SVD)


def test_nodes_are_named_as_on_the_screen(client):
    nodes = {part.node for family in FAMILIES for part in family.parts.values()}
    assert {name: client.get_json(f"/object_info/{name}")[name]["display_name"] for name, _ in nodes} == dict(
        nodes
    )


def test_hundreds_of_files_do_not_keep_a_page_waiting(client, base):
    """Their headers are read while the page has its answer; then the list is right."""
    folder = base / "models" / "checkpoints" / "many"
    folder.mkdir(parents=True)
    files = [folder / f"{i}.safetensors" for i in range(MANY)]
    for file in files:
        file.hardlink_to(base / "models" / "SVD" / "tiny-svd.safetensors")
    try:
        begun = time.monotonic()
        first = lists(client, "KinetographCogVideoXLoader")["model"]
        assert time.monotonic() - begun < QUICK
        assert {f"many/{file.name}" for file in files} <= {*first}, "what was not read yet is offered"
        last = offered(
            client,
            "KinetographCogVideoXLoader",
            "model",
            lambda names: not any("many/" in name for name in names),
        )
        assert not any("many/" in name for name in last) and COGVIDEOX in last
        assert sum("many/" in name for name in lists(client, "KinetographSVDLoader")["model"]) == MANY
    finally:
        for file in files:
            file.unlink()
