"""What the trained pocket InP paints on the real host: it starts, ends and keeps what it was given, and the shape moves.

Scenes are the first of their kind that a seed draws. Figures are of the 8-bit pictures that the host saves.
"""

import itertools
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from kinetograph.pocket.detector import centroids, foreground
from kinetograph.pocket.scenes import Known, draw_scene, draw_scenes
from kinetograph.pocket.shapes import FRAMES, MOTIONS, SIZE
from kinetograph.tests.host.graphs import node, with_chunked_frames
from kinetograph.tools.demo import MODELS

pytestmark = pytest.mark.newest

FIRST_SEED = 77_000_000
FOLDER, FILE = "CogVideo/zz-pocket", "CogVideo/zz-pocket-inp.safetensors"


def moving_scene(kind, number):
    """(scene, what is known of it): the first of a kind with a motion from a seed on; continuations have four frames."""
    found = (draw_scene(seed) for seed in itertools.count(FIRST_SEED))
    kinds = {
        "first": lambda known: known == Known(1, 0),
        "ends": lambda known: known == Known(1, 1),
        "some": lambda known: known == Known(4, 0),
        "around": lambda known: known.box != Known().box,
    }
    fitting = (
        (scene, known) for scene, known in found if kinds[kind](known) and MOTIONS[scene.motion] != (0, 0)
    )
    return next(itertools.islice(fitting, number, None))


@pytest.fixture(scope="module")
def pocket(base):
    """The pocket models under names that no list begins with, and the server's folder for pictures."""
    folder, file = (base / "models" / name for name in (FOLDER, FILE))
    shutil.copytree(MODELS / "CogVideo" / "pocket-cogvideox", folder)
    shutil.copy(MODELS / "CogVideo" / "pocket-cogvideox-fun-inp.safetensors", file)
    (base / "input").mkdir(exist_ok=True)
    yield base
    shutil.rmtree(folder)
    file.unlink()


def save(base, name, picture_hwc):
    Image.fromarray((picture_hwc * 255).round().byte().numpy()).save(base / "input" / name)
    return name


def clip_graph(base, name, frames_fhwc):
    """Nodes that load these frames one by one and join them; the last one's name."""
    graph, last = {}, None
    for i, frame in enumerate(frames_fhwc):
        key = f"{name}{i}"
        graph[key] = node("LoadImage", image=save(base, f"{key}.png", frame))
        if last is not None:
            graph[f"{key}+"] = node("ImageBatch", image1=[last, 0], image2=[key, 0])
            key = f"{key}+"
        last = key
    return graph, last


def prompt_of(base, scene, known):
    """The whole prompt of a scene of which something is known."""
    true = draw_scenes([scene])[0]
    graph = {
        "loader": node(
            "KinetographCogVideoXLoader", model=FILE, text_encoder=FOLDER, vae=FOLDER, weight_dtype="auto"
        ),
        "positive": node("CLIPTextEncode", clip=["loader", 1], text=scene.caption),
        "negative": node("CLIPTextEncode", clip=["loader", 1], text=""),
        "latent": node(
            "KinetographVideoLatent", family="cogvideox", width=SIZE, height=SIZE, num_frames=FRAMES, batch_size=1
        ),
    }  # fmt: skip
    told = {}
    if known.box == Known().box:
        more, last = clip_graph(base, "start", true[: known.start])
        graph, told["start_images"] = graph | more, [last, 0]
        if known.end:
            more, last = clip_graph(base, "end", true[-1:])
            graph, told["end_image"] = graph | more, [last, 0]
    else:
        hidden = known.mask()[..., None]
        noise = torch.rand(*true.shape, generator=torch.Generator().manual_seed(0))
        more, last = clip_graph(base, "video", true * (1 - hidden) + hidden * noise)
        graph, told["video"] = graph | more, [last, 0]
        picture = known.mask()[:1].movedim(0, -1).expand(-1, -1, 3)
        graph["mask"] = node("LoadImageMask", image=save(base, "mask.png", picture), channel="red")
        told["mask"] = ["mask", 0]
    both = {"positive": ["positive", 0], "negative": ["negative", 0]}
    graph["known"] = node(
        "KinetographInpaintConditioning",
        model=["loader", 0], vae=["loader", 2], latent=["latent", 0], fit="exact", mode="mask resized", **both, **told,
        **{"mode.image_noise": "as trained", "mode.seed": 0},
    )  # fmt: skip
    graph["sampler"] = node(
        "KinetographVideoSampler",
        model=["loader", 0], positive=["known", 0], negative=["known", 1], latent=["known", 2], seed=1, steps=20,
        guidance="constant", sampler_name="ddim", scheduler="trailing", denoise=1.0, preview=False,
        **{"guidance.cfg": 2.0},
    )  # fmt: skip
    return with_chunked_frames(graph), true


def paint(client, base, scene, known):
    """(painted frames, true frames) of a scene, (f, h, w, 3) in 0..1."""
    graph, true = prompt_of(base, scene, known)
    result = client.run(graph)
    assert result.status == "success", result.message
    files = [base / "output" / file["subfolder"] / file["filename"] for file in result.files()]
    pictures = [torch.from_numpy(np.array(Image.open(path).convert("RGB"))) for path in files]
    assert len(pictures) == FRAMES
    return torch.stack(pictures) / 255, true


def psnr(ours, theirs):
    return -10 * (ours - theirs).square().mean().log10().item()


def centres(frames_fhwc):
    cover = foreground(frames_fhwc)
    return centroids(cover * (cover > 0.2))


def share_of_way(frames, true):
    """How much of the true way the shape goes, in its direction."""
    way, ours = (points[-1] - points[0] for points in (centres(true), centres(frames)))
    return (ours @ way / way.square().sum()).item()


def figures(frames, true, known):
    """What is measured of every painted clip; `known_db` is of what the network was given."""
    seen = known.mask() < 0.5
    return {
        "first_db": psnr(frames[0], true[0]),
        "known_db": psnr(frames[seen], true[seen]),
        "off_end": (centres(frames)[-1] - centres(true)[-1]).norm().item(),
        "way": share_of_way(frames, true),
    }


def check_painted(found):
    """It moves as asked, and what it was given went through the network: a pasted picture has no error at all."""
    assert found["way"] >= 0.7, found
    assert found["known_db"] <= 50, found


@pytest.mark.parametrize("number", range(2))
def test_a_clip_starts_with_the_picture(client, pocket, number):
    scene, known = moving_scene("first", number)
    frames, true = paint(client, pocket, scene, known)
    found = figures(frames, true, known)
    assert found["first_db"] >= 25, found
    check_painted(found)


@pytest.mark.parametrize("number", range(2))
def test_a_clip_ends_in_the_picture(client, pocket, number):
    scene, known = moving_scene("ends", number)
    frames, true = paint(client, pocket, scene, known)
    found = figures(frames, true, known)
    assert found["first_db"] >= 25 and found["off_end"] <= 3, found
    check_painted(found)


def test_a_clip_goes_on_from_four_frames(client, pocket):
    scene, known = moving_scene("some", 0)
    frames, true = paint(client, pocket, scene, known)
    found = figures(frames, true, known)
    assert found["first_db"] >= 25, found
    assert found["way"] >= 0.7, found


@pytest.mark.parametrize("number", range(2))
def test_what_is_around_a_hole_stays(client, pocket, number):
    """Behind the mask the network is given noise, so that nothing there can be copied."""
    scene, known = moving_scene("around", number)
    frames, true = paint(client, pocket, scene, known)
    found = figures(frames, true, known)
    assert found["known_db"] >= 28, found
    check_painted(found)


def test_a_still_clip_or_a_pasted_one_would_fail(pocket):
    """The measures themselves, on frames that no network made."""
    scene, known = moving_scene("ends", 0)
    true = draw_scenes([scene])[0]
    still = true[:1].expand_as(true)
    assert abs(share_of_way(still, true)) < 0.05 and figures(still, true, known)["off_end"] > 3
    pasted = figures((true * 255).round() / 255, true, known)
    assert pasted["known_db"] > 50 and pasted["way"] > 0.99
