"""The rows of published files: sizes that such a file must have, names and sizes that README and the files tell."""

import json
import re
from pathlib import Path

import pytest

from kinetograph.modules.download.plan import with_all_needs
from kinetograph.modules.families import FAMILIES, RELEASES
from kinetograph.modules.weights.detect import detect
from kinetograph.tests.checkpoints import BY_NAME, KEY_LISTS, header, header_bytes

ROOT = Path(__file__).parents[2]
VRAM = json.loads((ROOT / "benchmarks" / "results" / "vram.json").read_text(encoding="utf-8"))
ROWS = [(family, release) for family in FAMILIES for release in family.releases]
NETWORKS = [(family, release) for family, release in ROWS if release.size]
# file -> key list, dtype, metadata
LAYOUTS = {
    "svd_xt.safetensors": ("svd-xt", "F32", None),
    "unet/diffusion_pytorch_model.safetensors": ("svd-diffusers-unet", "F32", {"format": "pt"}),
    "unet/diffusion_pytorch_model.fp16.safetensors": ("svd-diffusers-unet", "F16", {"format": "pt"}),
    "AnimateLCM-SVD-xt.safetensors": ("svd-diffusers-unet", "F32", {"format": "pt"}),
    "AnimateLCM-SVD-xt-1.1.safetensors": ("svd-diffusers-unet", "F32", {"format": "pt"}),
    "image_encoder/model.safetensors": ("svd-diffusers-image-encoder", "F32", {"format": "pt"}),
    "image_encoder/model.fp16.safetensors": ("svd-diffusers-image-encoder", "F16", {"format": "pt"}),
    "vae/diffusion_pytorch_model.safetensors": ("svd-diffusers-vae", "F32", {"format": "pt"}),
    "vae/diffusion_pytorch_model.fp16.safetensors": ("svd-diffusers-vae", "F16", {"format": "pt"}),
    "t5xxl_fp16.safetensors": ("t5-v1_1-xxl-encoder", "F16", None),
    "animatediff_lightning_4step_comfyui.safetensors": ("animatediff-v2", "F16", None),
    "animatediff_lightning_8step_comfyui.safetensors": ("animatediff-v2", "F16", None),
    "motion_module/mm_sd15_v3.safetensors": ("animatediff-v3", "F16", None),
    "mm_sd_v15_v2.ckpt": ("animatediff-v2", "F32", None),
    "v3_sd15_mm.ckpt": ("animatediff-v3", "F32", None),
    "mm_sdxl_v10_beta.ckpt": ("animatediff-sdxl-beta", "F32", None),
    "AnimateLCM_sd15_t2v.ckpt": ("animatelcm", "F32", None),
    "v3_sd15_sparsectrl_rgb.ckpt": ("animatediff-sparsectrl-rgb", "F32", None),
    "v3_sd15_sparsectrl_scribble.ckpt": ("animatediff-sparsectrl-scribble", "F32", None),
    "control/mm_sd15_v3_sparsectrl_rgb.safetensors": ("animatediff-sparsectrl-rgb-comfy", "F16", None),
}
PICTURE_VAE, VAE = "conditioner.embedders.3.encoder.", "first_stage_model."


def layout_of(file):
    """(shapes, dtype, metadata) of a published file."""
    if file != "svd_xt_image_decoder.safetensors":
        name, dtype, metadata = LAYOUTS[file]
        return BY_NAME[name].shapes, dtype, metadata
    # svd_xt whose VAE has the decoder of the picture's, and its pointwise convolutions
    whole = BY_NAME["svd-xt"].shapes
    still = {
        VAE + key.removeprefix(PICTURE_VAE): shape
        for key, shape in whole.items()
        if key.startswith((PICTURE_VAE + "decoder.", PICTURE_VAE + "quant", PICTURE_VAE + "post_quant"))
    }
    kept = {key: shape for key, shape in whole.items() if not key.startswith(VAE + "decoder.")}
    return {**kept, **still}, "F32", None


@pytest.mark.parametrize("file", [release.file for _, release in ROWS if release.bytes])
def test_a_published_size_is_that_of_its_tensors(file):
    """To the byte but for the header's fill: a wrong digit anywhere shows."""
    (size,) = {release.bytes for _, release in ROWS if release.file == file}
    head, data = header_bytes(*layout_of(file), size=1)
    if file.endswith(".ckpt"):
        # a zip tells more of each tensor than a header does
        assert 0 < size - data < 0.001 * data
    else:
        assert 0 <= size - data - len(head) < 8


def test_rows_are_in_the_words_of_the_parts():
    known = {
        (listed.family, kind, variant)
        for listed in KEY_LISTS
        for kind, variant in zip(listed.kinds, listed.variant.split(" + "), strict=True)
    }
    assert [
        release.file for family, release in ROWS if (family.id, release.kind, release.variant) not in known
    ] == []


def test_rows_are_each_of_one_file():
    places = [(release.repository, release.file) for _, release in ROWS]
    names = [release.name for _, release in ROWS]
    hashes = [release.sha256 for _, release in ROWS if release.sha256]
    for each in (places, names, hashes):
        assert len(set(each)) == len(each) > 10
    assert [each for each in hashes if not re.fullmatch("[0-9a-f]{64}", each)] == []


BY_RELEASE = {release.name: release for release in RELEASES}
TO_FETCH = {name: release for name, release in BY_RELEASE.items() if release.folder}
# of the host's model folders; those of the pack are the last folders of its parts, and of LoRA files
HOST_FOLDERS = {"checkpoints", "diffusion_models", "vae", "text_encoders", "loras", "controlnet"}
OWN_FOLDERS = {part.folders[-1] for family in FAMILIES for part in family.parts.values()}
OWN_FOLDERS |= {part.lora_folder for family in FAMILIES for part in family.parts.values()}
STORE = "https://pai-aigc-photog.oss-cn-hangzhou.aliyuncs.com/easyanimate"


def test_names_are_each_of_one_release():
    assert len(BY_RELEASE) == len(RELEASES) > 90


@pytest.mark.parametrize("release", TO_FETCH.values(), ids=TO_FETCH)
def test_what_is_to_be_fetched_can_be(release):
    """By the hub or by a line to type, into a folder that is there, under a name that a loader takes; its needs too."""
    assert release.folder in HOST_FOLDERS | OWN_FOLDERS
    assert [need for need in release.needs if need not in TO_FETCH] == []
    names = [each.name for each in with_all_needs([release.name], True, TO_FETCH)]
    assert names[0] == release.name and len(names) == len({*names})
    if release.is_folder:
        assert release.is_at_hub and release.place == f"{release.repository.split('/')[1]}/{release.file}"
    else:
        suffixes = (".safetensors", ".ckpt", ".pth") if release.is_at_hub else (".safetensors", ".tar")
        assert release.place.endswith(suffixes) and "/" not in release.place and "*" not in release.place
    if release.is_at_hub:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+", release.repository)
    else:
        assert release.address.startswith(f"{STORE}/")


def test_places_are_each_of_one_release():
    places = [(release.folder, release.place.lower()) for release in TO_FETCH.values()]
    assert len({*places}) == len(places)


def test_networks_are_all_to_be_fetched():
    """But for those that are known by their numbers alone."""
    assert [release.name for _, release in NETWORKS if not release.folder] == []


def files_of(name):
    """{(folder, place): address} of a release and what it needs."""
    found = with_all_needs([name], True, TO_FETCH)
    return {(each.folder, each.place): each.address for each in found}


def test_animatediff_sdxl_comes_with_its_base():
    assert files_of("AnimateDiff SDXL beta") == {
        ("animatediff_models", "mm_sdxl_v10_beta.ckpt"): (
            "https://huggingface.co/guoyww/animatediff/resolve/main/mm_sdxl_v10_beta.ckpt"
        ),
        ("checkpoints", "sd_xl_base_1.0.safetensors"): (
            "https://huggingface.co/stabilityai/stable-diffusion-xl-base-1.0/resolve/main/sd_xl_base_1.0.safetensors"
        ),
    }


@pytest.mark.parametrize(
    "name, repository", [("ExVideo-SVD", "ExVideo-SVD-128f-v1"), ("ExVideo-CogVideoX LoRA", "CogVideoX-5b")]
)
def test_exvideo_comes_with_what_it_extends(name, repository):
    """What `download_models` was told to bring: both models of the seed, each with its base."""
    addresses = files_of(name).values()
    assert any(repository in address for address in addresses)
    base = "svd_xt.safetensors" if "SVD" in name else "zai-org/CogVideoX-5b/tree/main/transformer"
    assert any(address.endswith(base) for address in addresses)


def test_easyanimate_has_the_addresses_of_its_own_page():
    found = {**files_of("EasyAnimate portrait LoRA"), **files_of("EasyAnimate portrait")}
    found |= files_of("PixArt-alpha 512, folders in one archive")
    ours = {key: address for key, address in found.items() if address.startswith(STORE)}
    assert ours == {
        (
            "Motion_Module",
            "easyanimate_v1_mm.safetensors",
        ): f"{STORE}/Motion_Module/easyanimate_v1_mm.safetensors",
        ("Personalized_Model", "easyanimate_portrait.safetensors"): (
            f"{STORE}/Personalized_Model/easyanimate_portrait.safetensors"
        ),
        ("Personalized_Model", "easyanimate_portrait_lora.safetensors"): (
            f"{STORE}/Personalized_Model/easyanimate_portrait_lora.safetensors"
        ),
        ("Diffusion_Transformer", "PixArt-XL-2-512x512.tar"): (
            f"{STORE}/Diffusion_Transformer/PixArt-XL-2-512x512.tar"
        ),
    }


def config_of(family, listed):
    return detect(header(listed.shapes), (family,)).check().config


@pytest.mark.parametrize("listed", KEY_LISTS, ids=lambda listed: listed.name)
def test_sizes_are_those_of_the_networks(listed):
    """As the loader reads them off shapes; what trained svd to 14 frames changed none."""
    for family, release in NETWORKS:
        whole = listed.family == family.id and (listed.kind, listed.variant.split(" + ")[0]) == (
            release.kind,
            release.variant,
        )
        if whole and release.name != "SVD" and "2-blocks" not in listed.name:
            assert release.size == config_of(family, listed).native_size, release.name


def readme():
    return (ROOT / "README.md").read_text(encoding="utf-8")


TASKS = {
    "-I2V": "image to video",
    "-InP": "text, first and last images, a masked video or a video to video",
    "-Control": "a control video to video",
}


def makes(family, release):
    width, height, frames = release.size
    if family.id == "animatediff":
        base = "SDXL" if width == 1024 else "SD1.5"
        return f"text to video on {base}; {width}x{height}, {frames} frames"
    if family.id == "pixart":
        return f"text to picture; {width}x{height}"
    if family.id == "easyanimate":
        return f"text to video on PixArt-alpha 512; {width}x{height}, {frames} frames"
    task = "image to video" if family.id == "svd" else "text to video, video to video"
    task = next((task for end, task in TASKS.items() if release.variant.endswith(end)), task)
    return f"{task}; {width}x{height}, {frames} frames"


def with_needs(release):
    """A release and all that it needs, once each."""
    found = {release.name: release}
    for name in release.needs:
        found |= {row.name: row for row in with_needs(next(row for row in RELEASES if row.name == name))}
    return list(found.values())


def disk(release):
    """GB of a release with all that it needs; "?" where the size of one is not on record."""
    sizes = [row.bytes / 1e9 if row.bytes else row.gigabytes for row in with_needs(release)]
    return "?" if None in sizes else f"{sum(sizes):.1f} GB"


def vram(release):
    row = VRAM[release.name]
    return f"8 GiB card, measured ({row['gib']})" if row["measured"] else f"{row['gib']} GiB, predicted"


# (start of a release's name): steps and frames a second, as its authors have them; the first that fits
SETTINGS = {
    "CogVideoX 1.5": (50, 16),
    "CogVideoX": (50, 8),
    "SVD-XT": (30, 7),
    "SVD": (25, 7),
    "AnimateLCM-SVD": (4, 8),
    "ExVideo-SVD": (50, 30),
    "AnimateDiff-Lightning": (4, 8),
    "AnimateDiff SDXL": (100, 16),
    "AnimateDiff": (25, 8),
    "AnimateLCM": (6, 8),
    "PixArt-alpha": (20, None),
    "EasyAnimate v1": (30, 12),
}


# diffusers' example of micro-conditioning, where svd_xt's authors have 30
OTHER_STEPS = {"svd_micro_conditioning": 25}
STEPS = ("steps", "sampling.steps")


def settings(release):
    return next(found for start, found in SETTINGS.items() if release.name.startswith(start))


def test_readme_has_a_row_for_each_network():
    lines = []
    for family, release in NETWORKS:
        link = f"[{release.repository}](https://huggingface.co/{release.repository})"
        if not release.is_at_hub:
            link = f"`curl -LO {release.address}`"
        steps, rate = settings(release)
        sampled = f"{steps} steps" + (f", {rate} a second" if rate else "")
        name = release.name + " (gated)" * release.gated
        cells = [name, makes(family, release), disk(release), vram(release), sampled, link]
        lines.append(f"| {' | '.join(cells)} |")
    head = "| Release | Makes | Disk | VRAM | Sampled | Page |\n|---|---|---|---|---|---|"
    table = "\n".join([head, *lines, ""])
    assert len(lines) >= 9
    assert table + "\n" in readme(), f"README.md should hold this table:\n\n{table}\n"


def templates():
    """(name, {class: its inputs}) of each template that downloads a network's release."""
    for path in sorted(ROOT.glob("workflows/*.json")):
        graph = json.loads(path.read_text(encoding="utf-8"))
        (prompt,) = [json.loads((path.parent / "api" / path.name).read_text(encoding="utf-8"))]
        chosen = [
            node["widgets_values"][0] for node in graph["nodes"] if node["type"].endswith("ModelDownload")
        ]
        yield path.stem, chosen, prompt


# its steps are updates
TRAINER = "KinetographTrainVideoModel"


def test_templates_sample_as_readme_says():
    """Those that download a release that README has a row for: its steps and its rate."""
    known = {release.name: release for _, release in NETWORKS}
    seen = set()
    for name, chosen, prompt in templates():
        for release in (known[wish] for wish in chosen if wish in known):
            steps, rate = settings(release)
            steps = OTHER_STEPS.get(name, steps)
            inputs = [node["inputs"] for node in prompt.values() if node["class_type"] != TRAINER]
            found = {(each[key], each.get("denoise", 1.0)) for each in inputs for key in STEPS if key in each}
            rates = {value for each in inputs for key, value in each.items() if key.endswith("frame_rate")}
            # a clip that is redrawn in part takes that part of the steps
            assert found and all(taken == round(steps * part) for taken, part in found), name
            assert rates == ({rate} if rate else set()), name
            seen.add(release.name)
    assert len(seen) > 5


def test_readme_names_published_files_alone():
    section = readme().split("## Models")[1].split("\n## ")[0]
    named = re.findall(r"`([^` ]+\.safetensors)`", section)
    assert len(named) >= 5 and {*named} <= {release.file for _, release in ROWS}
