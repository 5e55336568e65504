"""The pocket InP that is shipped: known for what it is, and of the layout that its recipe trains."""

import json

from kinetograph.modules.families import COGVIDEOX
from kinetograph.modules.weights.detect import detect
from kinetograph.modules.weights.files import read_header
from kinetograph.pocket.parts import INPAINT_MODEL, INPAINT_SETTINGS, MODEL_FOLDER
from kinetograph.pocket.scenes import KINDS, draw_scene
from kinetograph.pocket.shapes import FRAMES, SIZE

MOST_BYTES = 4_300_000


def test_shipped_file_is_a_fun_inp_that_reads_the_shipped_text_encoder():
    header = read_header(INPAINT_MODEL)
    finding = detect(header, (COGVIDEOX,), "diffusion_model").check()
    assert not finding.missing and not finding.unexpected
    assert finding.dtype == "float16" and INPAINT_MODEL.stat().st_size <= MOST_BYTES
    assert (finding.config.variant, finding.config.image_noise) == ("Fun-5B-InP", 0.0)
    assert finding.config.native_size == (SIZE, SIZE, FRAMES)
    assert json.loads(header.metadata["config"]) == INPAINT_SETTINGS
    text = read_header(MODEL_FOLDER / "text_encoder").shapes["shared.weight"][1]
    assert header.shapes["patch_embed.text_proj.weight"][1] == text


def test_scenes_stay_in_the_picture_and_show_every_kind_of_knowledge():
    drawn = [draw_scene(seed) for seed in range(200)]
    for scene, _ in drawn:
        inside = scene.centres()
        assert inside.min() >= scene.radius and inside.max() <= SIZE - scene.radius, scene
    shares = [known.mask().mean().item() for _, known in drawn]
    assert 1.0 in shares and min(shares) < 0.9
    assert {known.start > 0 for _, known in drawn} == {known.end for _, known in drawn} == {0, 1}
    assert sum(KINDS.values()) == 1 and draw_scene(7) == draw_scene(7)
