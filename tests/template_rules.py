"""Conventions of templates, ComfyUI's own and this pack's: each a function of a name and a template that yields complaints."""

import json
import re
from itertools import combinations
from pathlib import Path

import av
from PIL import Image

from kinetograph.modules.families import RELEASES

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = ROOT / "workflows"
TEMPLATES = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(WORKFLOWS.glob("*.json"))}
TRIES = {name for name in TEMPLATES if name.startswith("try_")}
REAL = set(TEMPLATES) - TRIES
SYSTEMS = ("animatediff", "animatelcm", "cogvideox", "easyanimate", "exvideo", "pixart", "svd", "try")
GROUPS = ["Load", "Describe", "Sample", "Save"]
NOTE, DOWNLOAD = "MarkdownNote", "KinetographModelDownload"
BYPASSED, TITLE = 4, 30
VRAM = json.loads((ROOT / "benchmarks" / "results" / "vram.json").read_text("utf-8"))
BY_NAME = {release.name: release for release in RELEASES}
# what the page offers a download for
OFFERED = (".safetensors", ".sft", ".ckpt", ".pth", ".pt")
STARTS = {"LoadImage": "image", "LoadVideo": "file"}
SIZED = ("KinetographVideoLatent", "KinetographFitVideo")
SAVERS = ("KinetographVideoCombine", "KinetographVAEDecodeToVideo", "KinetographVideoContinue", "SaveImage")
# widgets that name files; none is a word of ours, such as "from the model's folder"
FILES = (
    "model",
    "text_encoder",
    "image_encoder",
    "vae",
    "ckpt_name",
    "lora_name",
    "exvideo",
    "motion_module",
)
FILES += ("personalized", "sparsectrl")
COMPANIONS = ("fixed", "increment", "decrement", "randomize")


def nodes_of(template, *kinds):
    """All nodes but notes, or those of some kinds."""
    return [node for node in template["nodes"] if (node["type"] in kinds if kinds else node["type"] != NOTE)]


def widgets_of(node):
    """{name: value} of a saved node."""
    values, found = list(node["widgets_values"]), {}
    for name in [entry["name"] for entry in node["inputs"] if "widget" in entry]:
        found[name] = values.pop(0)
        if name.split(".")[-1] == "seed" and values and values[0] in COMPANIONS:
            values.pop(0)
    return found


def files_of(template):
    """Names of all model files and folders that its nodes choose."""
    return {
        value
        for node in nodes_of(template)
        if node["type"] != DOWNLOAD
        for name, value in widgets_of(node).items()
        if (name in FILES or re.fullmatch(r"loras\.lora_\d", name)) and ("." in value or "/" in value)
    }


def note_of(template):
    (note,) = [node for node in template["nodes"] if node["type"] == NOTE]
    return note["widgets_values"][0]


def releases_of(template):
    """The releases that its Model Download nodes fetch, with what these need."""
    waiting = [widgets_of(node)["release"] for node in nodes_of(template, DOWNLOAD)]
    for name in waiting:
        waiting += [need for need in BY_NAME[name].needs if need not in waiting]
    return [BY_NAME[name] for name in waiting]


def value_of(release):
    """The name that a loader has for it: of a part of a folder the folder's, with the key in front in folders of ours."""
    place = release.place.split("/")[0] if release.is_folder else release.place
    own = ("CogVideo", "Diffusion_Transformer", "Motion_Module", "Personalized_Model")
    own += ("animatediff_models", "animatediff_motion_lora")
    return f"{release.folder}/{place}" if release.folder in own else place


def box_of(node):
    """(left, top, right, bottom), its title included."""
    (x, y), (width, height) = node["pos"], node["size"]
    return x, y - TITLE, x + width, y + height


def meet(first, second):
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]


def holds(group, node):
    x, y, right, bottom = box_of(node)
    left, top, width, height = group["bounding"]
    return left <= x and top <= y and right <= left + width and bottom <= top + height


def title_says_system_and_task(name, template):
    system, _, task = name.partition("_")
    if system not in SYSTEMS or not task:
        yield f"{name}: the page shows this as its title"


def every_node_says_whose_it_is(name, template):
    for node in nodes_of(template):
        pack = "kinetograph" if node["type"].startswith("Kinetograph") else "comfy-core"
        properties = node["properties"]
        if properties.get("cnr_id") != pack or not re.fullmatch(r"\d+\.\d+\.\d+", properties.get("ver", "")):
            yield f"{node['type']}: {properties}"


def groups_hold_every_node(name, template):
    groups = sorted(template["groups"], key=lambda group: group["bounding"][0])
    if [group["title"] for group in groups] != GROUPS:
        yield f"groups {[group['title'] for group in groups]}"
    for node in nodes_of(template):
        if sum(holds(group, node) for group in groups) != 1:
            yield f"{node['type']} {node['id']} is in no group"
    for group in groups:
        if not any(holds(group, node) for node in nodes_of(template)):
            yield f"{group['title']} is empty"


def nothing_lies_over_another(name, template):
    for first, second in combinations(template["nodes"], 2):
        if meet(box_of(first), box_of(second)):
            yield f"{first['type']} {first['id']} and {second['type']} {second['id']}"
    corners = [
        (x, y, x + width, y + height) for x, y, width, height in (g["bounding"] for g in template["groups"])
    ]
    for first, second in combinations(corners, 2):
        if meet(first, second):
            yield f"groups {first} and {second}"


def links_run_forward(name, template):
    nodes = {node["id"]: node for node in template["nodes"]}
    for _, source, _, target, *_ in template["links"]:
        if box_of(nodes[source])[2] >= box_of(nodes[target])[0]:
            yield f"{nodes[source]['type']} {source} to {nodes[target]['type']} {target}"


def downloads_are_bypassed_in_the_load_group(name, template):
    found = nodes_of(template, DOWNLOAD)
    if bool(found) != (name in REAL):
        yield f"{len(found)} Model Download nodes"
    (load,) = (group for group in template["groups"] if group["title"] == "Load")
    for node in nodes_of(template):
        if (node["mode"] == BYPASSED) != (node["type"] == DOWNLOAD) or node["mode"] not in (0, BYPASSED):
            yield f"{node['type']} has the mode {node['mode']}"
    for node in found:
        widgets = widgets_of(node)
        known = BY_NAME.get(widgets["release"])
        if not known or not known.folder or widgets["with_needs"] is not True or not holds(load, node):
            yield f"{widgets} at {node['pos']}"


def downloads_are_what_is_chosen(name, template):
    """Every file of a loader is fetched, and nothing else is."""
    fetched = {value_of(release) for release in releases_of(template)}
    if name in REAL and fetched != files_of(template):
        yield f"{sorted(fetched)} for {sorted(files_of(template))}"


def the_page_offers_what_it_can(name, template):
    """Single files at the hub under the name that the page would save and the loader shows; with the rows' hashes."""
    for node in nodes_of(template):
        chosen = set(map(str, widgets_of(node).values())) if node["type"] != DOWNLOAD else set()
        wanted = [
            {"name": release.place, "url": release.address, "directory": release.folder}
            | ({"hash": release.sha256, "hash_type": "SHA256"} if release.sha256 else {})
            for release in RELEASES
            if release.folder and release.place in chosen and release.address.endswith(f"/{release.place}")
            if release.address.startswith("https://huggingface.co/") and release.place.endswith(OFFERED)
        ]
        offered = node["properties"].get("models", [])
        if sorted(offered, key=str) != sorted(wanted, key=str):
            yield f"{node['type']} offers {offered}, {wanted} could be"


def tries_need_no_download(name, template):
    for file in files_of(template) if name in TRIES else ():
        if not (ROOT / "pocket" / "models" / file).exists():
            yield f"{file} is no pocket model"


def what_they_start_from_is_there(name, template):
    for node in nodes_of(template, *STARTS):
        file = WORKFLOWS / "input" / widgets_of(node)[STARTS[node["type"]]]
        if not file.exists() or file.stat().st_size > 100_000:
            yield f"{file.name} is not there, or large"
        elif name in REAL and min(size_of(file)[1:]) < 480:
            yield f"{file.name} is {size_of(file)}: small for a published model"


def app_has_the_controls(name, template):
    """Prompt, picture, size, length, seed, and a video at its end; models as well where a web page had them."""
    linear = {"inputs": [], "outputs": []} | template["extra"].get("linearData", {})
    shown = {(node, widget) for node, widget in linear["inputs"]}
    wanted, models = set(), name in REAL and name.startswith(("cogvideox_fun", "easyanimate"))
    for node in nodes_of(template):
        widgets = {*widgets_of(node)} if node["type"] != DOWNLOAD else set()
        negative = node.get("title") == "Negative prompt" and not models
        names = {"text"} if node["type"] == "CLIPTextEncode" and not negative else set()
        names |= {STARTS[node["type"]]} if node["type"] in STARTS else set()
        names |= {"width", "height", "num_frames"} if node["type"] in SIZED else set()
        names |= {"seed", "sampling.seed"} & widgets if "Video" in node["type"] else set()
        if models:
            names |= widgets & {"motion_module", "personalized", "loras.lora_1"}
            names |= {"model"} & widgets if node["type"].endswith("Loader") else set()
        if models and name.startswith("easyanimate"):
            names |= {"guidance.cfg"} & widgets
        wanted |= {(str(node["id"]), one) for one in names}
    there = {(str(node["id"]), one) for node in nodes_of(template) for one in widgets_of(node)}
    if not wanted <= shown <= there:
        yield f"lacks {sorted(wanted - shown)}, invents {sorted(shown - there)}"
    if linear["outputs"] != [str(node["id"]) for node in nodes_of(template, *SAVERS)]:
        yield f"outputs {linear['outputs']}"
    if template["extra"].get("linearMode") is not False:
        yield "the graph opens first"


def notes_say_what_it_takes(name, template):
    said, rows = note_of(template), releases_of(template)
    total = sum(row.bytes / 1e9 if row.bytes else row.gigabytes or 0 for row in rows)
    wanted = [] if name in TRIES else [f"{total:.1f} GB on the disk", "### Graphics memory", "### Settings"]
    wanted += [row.address for row in rows] + [row.licence for row in rows]
    wanted += [
        f'python dev.py fetch "{widgets_of(node)["release"]}"' for node in nodes_of(template, DOWNLOAD)
    ]
    wanted += [f"curl -L --create-dirs -o {row.folder}/" for row in rows if not row.is_at_hub]
    for words in wanted:
        if words not in said:
            yield f"the note does not say {words}"
    memory = said.partition("### Graphics memory\n")[2].partition("###")[0]
    figures = [VRAM[name] for name in (row.name.removesuffix(", one file") for row in rows) if name in VRAM]
    if figures and f"{figures[0]['gib']:.1f} GiB" not in memory:
        yield f"the memory is {figures[0]}, not {memory}"
    if name in REAL and not re.search("measured|predicted", memory):
        yield "nobody knows whether the memory was measured"
    for other in re.findall(r"template \**(\w+_\w+)", said):
        if other not in TEMPLATES:
            yield f"there is no template {other}"
    if name in TRIES and not re.search(r"template \**\w+_\w+", said):
        yield "no template of a published model is named"


def size_of(file):
    """(frames, width, height)"""
    if file.suffix == ".mp4":
        with av.open(str(file)) as video:
            (stream,) = video.streams.video
            return stream.frames, stream.width, stream.height
    with Image.open(file) as image:
        return 1, *image.size


RULES = (
    title_says_system_and_task,
    every_node_says_whose_it_is,
    groups_hold_every_node,
    nothing_lies_over_another,
    links_run_forward,
    downloads_are_bypassed_in_the_load_group,
    downloads_are_what_is_chosen,
    the_page_offers_what_it_can,
    tries_need_no_download,
    what_they_start_from_is_there,
    app_has_the_controls,
    notes_say_what_it_takes,
)
