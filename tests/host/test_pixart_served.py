"""PixArt with EasyAnimate's module in workflows on a served host: to a file, in segments, and a wrong file at the post."""

import pytest

from kinetograph.tests.host import continued
from kinetograph.tests.host.graphs import node
from kinetograph.tests.host.pixart_bench import FOLDER, LORA, MODULE, PORTRAIT
from kinetograph.tests.host.state import NONCES, in_turn_with_a_cancel
from kinetograph.tests.host.workbench import OWN

FRAMES, OVERLAP = 6, 2


def sampling(motion=True, steps=2, **changes):
    """Loader to latents."""
    parts = {"text_encoder": OWN, "vae": OWN, "weight_dtype": "fp32", "captions": "lower case"}
    chosen = {"beta_schedule": "as trained", "strength": 1.0, "version": "from the file", "num_frames": 0}
    rows = {"loras": "1", "loras.lora_1": LORA, "loras.strength_1": 0.55, "loras.text_strength_1": 0.55}
    asked = {"width": 64, "height": 64, "num_frames": FRAMES, "batch_size": 1}
    told = {"seed": 43, "steps": steps, "guidance": "constant", "guidance.cfg": 6.0, "denoise": 1.0}
    told |= {"sampler_name": "dpmpp_2m", "scheduler": "simple", "preview": True, "nonce": next(NONCES)}
    return {
        "loader": node(
            "KinetographPixArtLoader", model=FOLDER, **{"personalized": PORTRAIT, **parts, **changes}
        ),
        "motion": node("KinetographMotionModuleApply", model=["loader", 0], motion_module=MODULE, **chosen),
        "lora": node(
            "KinetographLoRAStack",
            model=["motion" if motion else "loader", 0],
            clip=["loader", 1],
            allow_partial=False,
            **rows,
        ),
        "positive": node("CLIPTextEncode", clip=["lora", 1], text="A red circle moving left"),
        "negative": node("CLIPTextEncode", clip=["lora", 1], text="still"),
        "latent": node("KinetographVideoLatent", family="from the model", model=["lora", 0], **asked),
        "sampler": node(
            "KinetographVideoSampler",
            model=["lora", 0],
            positive=["positive", 0],
            negative=["negative", 0],
            latent=["latent", 0],
            **told,
        ),
    }


def saved(graph):
    return {**graph, "save": node("SaveLatent", samples=["sampler", 0], filename_prefix="pixart")}


def frames_of(server, result):
    (made,) = result.files()
    return continued.read_frames(server.base / "output" / made["subfolder"] / made["filename"])


def test_a_clip_to_a_file(server, client):
    file = {"format": "video/ffv1-mkv", "format.pix_fmt": "bgr0", "frame_rate": 12.0, "loop_count": 0}
    file |= {
        "filename_prefix": "video/pixart",
        "save_output": True,
        "save_metadata": True,
        "trim_to_audio": False,
    }
    decode = node("KinetographVAEDecodeToVideo", vae=["loader", 2], latent=["sampler", 0], **file)
    result = client.run({**sampling(), "decode": decode})
    assert result.status == "success", result.message
    assert result.previews
    frames = frames_of(server, result)
    assert frames.shape == (FRAMES, 64, 64, 3) and frames.std() > 0.01


def test_a_cancel_in_the_middle_and_pictures_in_turn(client):
    in_turn_with_a_cancel(client, lambda **told: saved(sampling(**told)), (FRAMES, 4, 8, 8))


@pytest.mark.newest
def test_segments_go_on_from_one_another(server, client):
    """From the prompts alone; the second segment begins with the last frames of the first."""
    graph = sampling()
    del graph["sampler"]
    choices = continued.plan(segments=2, overlap=OVERLAP, hold_colours=0.0, keep_segments="remove")
    choices |= continued.sampling(sampler_name="euler_ancestral", scheduler="simple")
    graph["continue"] = node(
        "KinetographVideoContinue",
        model=["lora", 0],
        vae=["loader", 2],
        latent=["latent", 0],
        negative=["negative", 0],
        **{"prompts.prompt0": ["positive", 0], **choices, **continued.file("video/pixart-long")},
    )
    result = client.run(graph)
    assert result.status == "success", result.message
    frames = frames_of(server, result)
    assert frames.shape == (2 * FRAMES - OVERLAP, 64, 64, 3)
    assert result.outputs["continue"]["text"][0].count("made") == 2


@pytest.mark.newest
def test_a_wrong_file_is_refused_when_the_prompt_is_posted(client):
    result = client.run(saved(sampling(personalized=MODULE)))
    assert result.status == "refused" and [*result.node_errors] == ["loader"]
    assert "use Motion Module Apply" in result.message
