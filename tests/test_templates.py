"""Templates keep the conventions of ComfyUI's own and of this pack: a table of rules, each seen to fail."""

import copy

import pytest

from kinetograph.tests.template_rules import (
    DOWNLOAD,
    NOTE,
    REAL,
    RULES,
    TEMPLATES,
    TRIES,
    WORKFLOWS,
    app_has_the_controls,
    downloads_are_bypassed_in_the_load_group,
    downloads_are_what_is_chosen,
    every_node_says_whose_it_is,
    files_of,
    groups_hold_every_node,
    links_run_forward,
    nodes_of,
    notes_say_what_it_takes,
    nothing_lies_over_another,
    size_of,
    the_page_offers_what_it_can,
    title_says_system_and_task,
    tries_need_no_download,
    what_they_start_from_is_there,
    widgets_of,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_template_keeps_the_rule(rule):
    assert len(REAL) > 30 and len(TRIES) > 5
    found = {name: list(rule(name, template)) for name, template in TEMPLATES.items()}
    assert {name: complaints for name, complaints in found.items() if complaints} == {}


def first(template, kind):
    return nodes_of(template, kind)[0]


def say(template, old, new):
    (note,) = [node for node in template["nodes"] if node["type"] == NOTE]
    assert old in note["widgets_values"][0]
    note["widgets_values"][0] = note["widgets_values"][0].replace(old, new)


def choose(template, kind, old, new):
    values = first(template, kind)["widgets_values"]
    values[values.index(old)] = new


XT, TRY = "svd_xt_image_to_video", "try_svd"
# (rule, template, what is done to it)
SPOILED = [
    (title_says_system_and_task, "video_to_video", lambda t: None),
    (every_node_says_whose_it_is, XT, lambda t: first(t, "LoadImage")["properties"].pop("ver")),
    (every_node_says_whose_it_is, TRY, lambda t: first(t, "LoadImage")["properties"].update(cnr_id="kinetograph")),
    (groups_hold_every_node, TRY, lambda t: t["groups"].pop()),
    (groups_hold_every_node, TRY, lambda t: first(t, "LoadImage").update(pos=[0, 2000])),
    (nothing_lies_over_another, TRY, lambda t: first(t, "LoadImage").update(pos=[10, 10])),
    (nothing_lies_over_another, TRY, lambda t: t["groups"][0]["bounding"].__setitem__(2, 900)),
    (links_run_forward, TRY, lambda t: first(t, "LoadImage").update(pos=[5000, 0])),
    (downloads_are_bypassed_in_the_load_group, XT, lambda t: first(t, DOWNLOAD).update(mode=0)),
    (downloads_are_bypassed_in_the_load_group, XT, lambda t: first(t, "LoadImage").update(mode=4)),
    (downloads_are_bypassed_in_the_load_group, XT, lambda t: choose(t, DOWNLOAD, "SVD-XT", "none")),
    (downloads_are_bypassed_in_the_load_group, TRY, lambda t: t["nodes"].append(copy.deepcopy(
        first(TEMPLATES[XT], DOWNLOAD)))),
    (downloads_are_what_is_chosen, XT, lambda t: choose(t, DOWNLOAD, "SVD-XT", "SVD")),
    (downloads_are_what_is_chosen, "animatediff_motion_loras", lambda t: t["nodes"].remove(first(t, DOWNLOAD))),
    (the_page_offers_what_it_can, XT, lambda t: first(t, "KinetographSVDLoader")["properties"].pop("models")),
    (the_page_offers_what_it_can, XT, lambda t: first(t, "KinetographSVDLoader")["properties"]["models"][0].pop("hash")),
    (the_page_offers_what_it_can, XT, lambda t: choose(t, "KinetographSVDLoader", "svd_xt.safetensors", "svd.safetensors")),
    (tries_need_no_download, TRY, lambda t: choose(t, "KinetographSVDLoader", "SVD/pocket-svd.safetensors", "svd.safetensors")),
    (what_they_start_from_is_there, TRY, lambda t: choose(t, "LoadImage", "kinetograph_svd_image.png", "mine.png")),
    (what_they_start_from_is_there, "svd_image_to_video", lambda t: choose(t, "LoadImage", "kinetograph_rocket.jpg", "kinetograph_svd_image.png")),
    (app_has_the_controls, TRY, lambda t: t["extra"]["linearData"]["inputs"].pop()),
    (app_has_the_controls, TRY, lambda t: t["extra"]["linearData"]["inputs"].append(["1", "nothing"])),
    (app_has_the_controls, TRY, lambda t: t["extra"]["linearData"]["outputs"].clear()),
    (app_has_the_controls, "cogvideox_fun_text_to_video", lambda t: t["extra"]["linearData"]["inputs"].remove(["1", "model"])),
    (app_has_the_controls, TRY, lambda t: t["extra"].pop("linearMode")),
    (notes_say_what_it_takes, XT, lambda t: say(t, "9.6 GB on", "8 GB on")),
    (notes_say_what_it_takes, XT, lambda t: say(t, "measured", "known")),
    (notes_say_what_it_takes, XT, lambda t: say(t, "7.2 GiB", "7.0 GiB")),
    (notes_say_what_it_takes, XT, lambda t: say(t, "Stability AI", "Some")),
    (notes_say_what_it_takes, XT, lambda t: say(t, "dev.py fetch", "dev.py get")),
    (notes_say_what_it_takes, TRY, lambda t: say(t, "svd_xt_image_to_video", "svd_xt_gone")),
]  # fmt: skip


@pytest.mark.parametrize("rule, name, spoil", SPOILED)
def test_a_template_that_breaks_a_rule_is_noticed(rule, name, spoil):
    template = copy.deepcopy(TEMPLATES.get(name, TEMPLATES["try_svd"]))
    if name in TEMPLATES:
        assert list(rule(name, template)) == []
    spoil(template)
    assert list(rule(name, template)) != []


def test_every_rule_is_seen_to_fail():
    assert {rule for rule, _, _ in SPOILED} == {*RULES}


SIZES = {("KinetographVideoLatent", name) for name in ("width", "height", "num_frames")}
PAGES = {
    # rows 31 and 57 of the list of promises: what stood on these systems' own web pages
    "cogvideox_fun_text_to_video": {
        ("KinetographCogVideoXLoader", "model"),
        ("CLIPTextEncode", "text"),
        *SIZES,
    },
    "easyanimate_portrait_lora": {
        ("KinetographPixArtLoader", "model"),
        ("KinetographMotionModuleApply", "motion_module"),
        ("KinetographPixArtLoader", "personalized"),
        ("KinetographLoRAStack", "loras.lora_1"),
        ("CLIPTextEncode", "text"),
        ("KinetographVideoSampler", "guidance.cfg"),
        ("KinetographVideoSampler", "seed"),
        *SIZES,
    },
}


@pytest.mark.parametrize("name", PAGES)
def test_the_apps_of_web_pages_have_their_controls(name):
    """Prompt and negative prompt are two text nodes."""
    kinds = {str(node["id"]): node["type"] for node in nodes_of(TEMPLATES[name])}
    shown = [(kinds[node], widget) for node, widget in TEMPLATES[name]["extra"]["linearData"]["inputs"]]
    assert set(shown) >= PAGES[name]
    assert shown.count(("CLIPTextEncode", "text")) == 2


# loader's checkpoint: what its own authors sample it with
SETTINGS = {
    "CogVideo/CogVideoX-5b": ("dynamic cosine", 6, "cogvideox_dpm", "trailing"),
    "CogVideoX_1_0_5b_I2V_bf16.safetensors": ("dynamic cosine", 6, "cogvideox_dpm", "trailing"),
    "CogVideo/CogVideoX-Fun-V1.1-5b-InP": ("constant", 6, "ddim", "trailing"),
    "CogVideoX_Fun_1_1_5b_Control_bf16.safetensors": ("constant", 6, "ddim", "trailing"),
    "animatediff_models/mm_sd_v15_v2.ckpt": ("constant", 7.5, "ddim", "ddim_uniform"),
    "animatediff_models/v3_sd15_mm.ckpt": ("constant", 7.5, "ddim", "ddim_uniform"),
    "Motion_Module/easyanimate_v1_mm.safetensors": ("constant", 6, None, None),
}
# with a LoRA or a way of its own: the tests of rows 8, 51 to 53 and of few steps look at these
OWN_WAY = {
    "exvideo_text_to_129_frames",
    "cogvideox_fun_reward_lora",
    # AnimateDiff's own example of SparseCtrl
    "animatediff_key_frames",
}


@pytest.mark.parametrize("name", sorted(REAL - OWN_WAY))
def test_a_checkpoint_is_sampled_as_its_authors_do(name):
    found = [SETTINGS[file] for file in files_of(TEMPLATES[name]) if file in SETTINGS]
    for node in nodes_of(TEMPLATES[name], "KinetographVideoSampler", "KinetographVideoContinue"):
        widgets = widgets_of(node)
        place = "sampling" if "sampling" in widgets else "guidance"
        inside = "sampling." if place == "sampling" else ""
        for way, scale, sampler, scheduler in found:
            assert (widgets[place], widgets[f"{place}.cfg"]) == (way, scale)
            assert sampler is None or widgets[f"{inside}sampler_name"] == sampler
            assert scheduler is None or widgets[f"{inside}scheduler"] == scheduler


def test_settings_are_looked_at():
    seen = {file for name in REAL - OWN_WAY for file in files_of(TEMPLATES[name])}
    assert set(SETTINGS) <= seen


def test_clips_to_start_from_fit_what_takes_them():
    """Frames and sides that the VAE folds, and twice the size that ExVideo takes."""
    frames, *sides = size_of(start_of("cogvideox_video_to_video"))
    assert frames % 4 == 1 and all(side % 16 == 0 for side in sides)
    frames, *sides = size_of(start_of("exvideo_second_pass"))
    assert frames <= 128 and all(2 * side % 64 == 0 for side in sides)
    film, mask = (
        size_of(start_of("cogvideox_fun_inpaint_video")),
        size_of(start_of("cogvideox_fun_inpaint_video", 1)),
    )
    # CogVideoX-Fun V1.1's own size
    assert film == mask == size_of(start_of("cogvideox_fun_control_video")) == (49, 720, 480)
    pictures = [WORKFLOWS / "input" / f"kinetograph_rocket{which}.jpg" for which in ("", "_high")]
    assert [size_of(picture) for picture in pictures] == [(1, 1024, 576)] * 2


def start_of(name, number=0):
    return WORKFLOWS / "input" / widgets_of(nodes_of(TEMPLATES[name], "LoadVideo")[number])["file"]
