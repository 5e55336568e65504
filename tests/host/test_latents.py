"""LATENTs that nodes of the host have changed, in every node of ours that takes one."""

import pytest
import torch

from kinetograph.tests.host.graphs import node, text_to_video
from kinetograph.tests.host.workbench import SVDWorkbench, relative, run

H264 = {"format": "video/h264-mp4", "crf": 19, "pix_fmt": "yuv420p"}


@pytest.fixture(scope="module")
def bench(comfy_here):
    return SVDWorkbench()


def cog(frames=9, seed=0, size=32):
    """A CogVideoX clip as VAE Encode (Chunked) gives it."""
    generator = torch.Generator().manual_seed(seed)
    samples = torch.randn(1, 16, (frames - 1) // 4 + 1, size // 8, size // 8, generator=generator)
    return {"samples": samples, "num_frames": frames}


def svd(frames=3, clips=1, seed=0):
    samples = torch.randn(frames * clips, 4, 8, 8, generator=torch.Generator().manual_seed(seed))
    return {"samples": samples, "num_frames": frames}


def host(name, **inputs):
    """The first output of a node of the host."""
    import comfy_extras.nodes_post_processing  # noqa: F401  before nodes_latent: they import each other
    import nodes
    from comfy_extras import nodes_latent, nodes_rebatch

    kinds = {**vars(nodes), **vars(nodes_latent), "RebatchLatents": nodes_rebatch.LatentRebatch}
    return run(kinds[name], **inputs)[0]


def two(name, make, **inputs):
    return host(name, samples1=make(), samples2=make(seed=1), **inputs)


def reloaded(latent, folder, monkeypatch):
    """After SaveLatent and LoadLatent, which keep nothing but the samples."""
    import folder_paths
    import nodes

    monkeypatch.setattr(folder_paths, "get_annotated_filepath", lambda name: str(folder / name))
    saver = nodes.SaveLatent()
    saver.output_dir = str(folder)
    saver.save(latent, "clip")
    return host("LoadLatent", latent="clip_00001_.latent")


def decode(bench, vae, latent):
    """(frames, report) of VAE Decode (Chunked)."""
    return run(bench.ours["VAEDecodeChunked"], vae=vae, latent=latent, chunk=0, overlap=0)


def to_video(bench, vae, latent):
    """(video, filename, report) of VAE Decode To Video."""
    file = {
        "filename_prefix": "t/latent",
        "save_output": False,
        "save_metadata": False,
        "trim_to_audio": False,
    }
    inputs = {"frame_rate": 8.0, "loop_count": 0, "format": H264, **file}
    return run(bench.ours["VAEDecodeToVideo"], vae=vae, latent=latent, **inputs)


JOIN = "num_frames=9, but its 6 latent frames stand for 21 to 24 frames"
CUT = "num_frames=17, but its {} latent frames stand for {}"
COG = {
    "LatentConcat t": (lambda: two("LatentConcat", cog, dim="t"), 21, JOIN),
    "LatentConcat -t": (lambda: two("LatentConcat", cog, dim="-t"), 21, JOIN),
    "LatentConcat x": (lambda: two("LatentConcat", cog, dim="x"), 9, ""),
    "LatentCut to an odd number": (
        lambda: host("LatentCut", samples=cog(17), dim="t", index=1, amount=3),
        9,
        CUT.format(3, "9 frames"),
    ),
    "LatentCut to an even number": (
        lambda: host("LatentCut", samples=cog(17), dim="t", index=0, amount=4),
        13,
        CUT.format(4, "13 to 16 frames"),
    ),
    "LatentCutToBatch": (
        lambda: host("LatentCutToBatch", samples=cog(21), dim="t", slice_size=2),
        3 * 5,
        "num_frames=21, but its 2 latent frames stand for 5 to 8 frames",
    ),
    "RepeatLatentBatch": (lambda: host("RepeatLatentBatch", samples=cog(13), amount=2), 2 * 13, ""),
    "LatentBatch": (lambda: two("LatentBatch", cog), 2 * 9, ""),
    "LatentFromBatch": (
        lambda: host("LatentFromBatch", samples=two("LatentBatch", cog), batch_index=1, length=1),
        9,
        "",
    ),
    "RebatchLatents": (
        lambda: host("RebatchLatents", latents=[cog(13), cog(13)], batch_size=[2])[0],
        2 * 13,
        "4 latent frames were taken for 13 frames, but could stand for up to 16",
    ),
    "LatentUpscale": (
        lambda: host(
            "LatentUpscale", samples=cog(), upscale_method="bilinear", width=48, height=64, crop="disabled"
        ),
        9,
        "",
    ),
    "LatentInterpolate": (lambda: two("LatentInterpolate", cog, ratio=0.5), 9, ""),
    "LatentBlend": (lambda: two("LatentBlend", cog, blend_factor=0.5), 9, ""),
}


@pytest.mark.parametrize("name", COG)
def test_a_changed_cogvideox_clip_loses_no_frame(bench, name):
    make, frames, words = COG[name]
    vae, latent = bench.shared()[2], make()
    ours, report = decode(bench, vae, latent)
    assert len(ours) == frames and words in report and report.startswith("The latent") == bool(words)
    whole = run(bench.host.VAEDecode, vae=vae, samples=latent)[0]
    clips = whole.unflatten(0, (latent["samples"].shape[0], -1))
    kept = clips[:, -(frames // len(clips)) :].flatten(0, 1)  # what goes is the first latent's
    assert relative(ours, kept) <= 1e-6


def test_a_reloaded_cogvideox_clip_is_as_long_as_it_was(bench, tmp_path, monkeypatch):
    vae, clip = bench.shared()[2], cog(13)
    before, silence = decode(bench, vae, clip)
    after, report = decode(bench, vae, reloaded(clip, tmp_path, monkeypatch))
    assert torch.equal(before, after) and len(after) == 13
    assert "13 frames, but could stand for up to 16" in report and not silence.startswith("The latent")


ONE = "The latent does not say how many frames a clip has: taken for one clip of {} frames."
TWO = "The latent was taken for 2 clips of 3 frames."
SVD = {
    "LatentBatch": (lambda: two("LatentBatch", svd), [3, 3], TWO),
    "RepeatLatentBatch": (lambda: host("RepeatLatentBatch", samples=svd(), amount=2), [3, 3], TWO),
    "LatentFromBatch": (
        lambda: host("LatentFromBatch", samples=svd(clips=3), batch_index=3, length=3),
        [3],
        "",
    ),
    "RebatchLatents": (
        lambda: host("RebatchLatents", latents=[svd(clips=2)], batch_size=[3])[1],
        [3],
        ONE.format(3),
    ),
    "LatentUpscale": (
        lambda: host(
            "LatentUpscale", samples=svd(), upscale_method="bilinear", width=128, height=64, crop="disabled"
        ),
        [3],
        "",
    ),
    "LatentBlend": (lambda: two("LatentBlend", svd, blend_factor=0.5), [3], ""),
}


@pytest.mark.parametrize("name", SVD)
def test_a_changed_svd_latent_is_decoded_clip_by_clip(bench, name):
    make, clips, words = SVD[name]
    vae, latent = bench.svd()[2], make()
    ours, report = decode(bench, vae, latent)
    each = [vae.decode(clip) for clip in latent["samples"].split(clips)]
    assert relative(ours, torch.cat(each)) <= 1e-5
    assert report.startswith(words) and report.startswith("The latent") == bool(words)


def test_a_reloaded_svd_latent_is_taken_for_one_clip(bench, tmp_path, monkeypatch):
    vae, latent = bench.svd()[2], svd(clips=2)
    ours, report = decode(bench, vae, reloaded(latent, tmp_path, monkeypatch))
    assert relative(ours, vae.decode(latent["samples"])) <= 1e-5 and report.startswith(ONE.format(6))
    assert relative(decode(bench, vae, latent)[0], ours) > 1e-3  # it does matter


BROKEN = {
    "LatentFromBatch, a part": (
        lambda: host("LatentFromBatch", samples=svd(), batch_index=0, length=2),
        "holds 2 frames but says that a clip has 3",
    ),
    "LatentFromBatch, of two clips": (
        lambda: host("LatentFromBatch", samples=svd(clips=2), batch_index=1, length=3),
        "holds frames 1 to 3 of a batch of clips of 3 frames, parts of two clips",
    ),
    "LatentBatch, of two lengths": (
        lambda: host("LatentBatch", samples1=svd(3), samples2=svd(2)),
        "holds 5 frames but says that a clip has 3",
    ),
    "LatentConcat t": (lambda: two("LatentConcat", svd, dim="t"), r"\(frames, 4, .*got \(3, 8, 8, 8\)"),
    "LatentCut t": (
        lambda: host("LatentCut", samples=svd(), dim="t", index=0, amount=2),
        r"\(frames, 4, .*got \(3, 2, 8, 8\)",
    ),
    "nothing in it": (lambda: {"samples": torch.zeros(0, 4, 8, 8)}, r"empty: its shape is \(0, 4, 8, 8\)"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_left_of_a_clip_is_refused_everywhere(bench, name):
    make, words = BROKEN[name]
    model, _, vae = bench.svd()
    latent, picture = make(), bench.picture()
    told = dict(zip(("positive", "negative"), bench.condition(bench.empty()), strict=True))
    pins = {"images": picture, "frames": "0", "fit": "crop"}
    attempts = [
        lambda: decode(bench, vae, latent),
        lambda: to_video(bench, vae, latent),
        lambda: bench.sampler(model, latent, steps=1, **told),
        lambda: bench.condition(latent),
        lambda: run(bench.ours["PinFrames"], latent=latent, vae=vae, **pins),
    ]
    for attempt in attempts:
        with pytest.raises(ValueError, match=words):
            attempt()


def test_two_joined_svd_clips_are_sampled_conditioned_and_pinned_as_two(bench):
    model, _, vae = bench.svd()
    joined = host("LatentBatch", samples1=bench.empty(), samples2=bench.empty())
    told = bench.condition(joined)
    assert told[0][0][1]["num_frames"] == 3
    both = bench.empty(clips=2)
    inputs = {"positive": told[0], "negative": told[1], "steps": 1}
    samples = bench.sampler(model, {**joined, "batch_index": list(range(6))}, **inputs)
    assert torch.equal(samples, bench.sampler(model, both, **inputs))
    pins = {"images": bench.picture(), "frames": "-1", "fit": "crop"}
    mask = run(bench.ours["PinFrames"], latent=joined, vae=vae, **pins)[0]["noise_mask"]
    assert mask[:, 0, 0, 0].tolist() == [1, 1, 0, 1, 1, 0]


def test_the_video_node_writes_every_frame_and_says_what_was_assumed(client):
    """LatentConcat over the real server: both decoders, the file, the outputs and the words on the node."""
    graph = text_to_video(steps=1)
    second = {**graph["sampler"], "inputs": {**graph["sampler"]["inputs"], "seed": 1}}
    joined = {"samples1": ["sampler", 0], "samples2": ["second", 0], "dim": "t"}
    what = {"vae": ["loader", 2], "latent": ["joined", 0]}
    choice = {"format": "video/h264-mp4", "format.crf": 19, "format.pix_fmt": "yuv420p"}
    file = {
        "filename_prefix": "t/joined",
        "save_output": True,
        "save_metadata": False,
        "trim_to_audio": False,
    }
    graph |= {
        "second": second,
        "joined": node("LatentConcat", **joined),
        "decode": node("KinetographVAEDecodeChunked", chunk=0, overlap=0, **what),
        "save": node("SaveImage", images=["decode", 0], filename_prefix="joined"),
        "video": node("KinetographVAEDecodeToVideo", frame_rate=8.0, loop_count=0, **choice, **file, **what),
        "parts": node("GetVideoComponents", video=["video", 0]),
        "played": node("SaveImage", images=["parts", 0], filename_prefix="played"),
        "report": node("PreviewAny", source=["decode", 1]),
        "video report": node("PreviewAny", source=["video", 2]),
    }
    result = client.run(graph)
    assert result.status == "success", result.message
    assert len(result.outputs["save"]["images"]) == len(result.outputs["played"]["images"]) == 21
    for key in ("report", "video report"):
        assert JOIN in result.outputs[key]["text"][0]
    (words,) = result.outputs["video"]["text"]  # which stand on the node
    assert JOIN in words


def test_an_encoded_clip_says_its_frames(bench):
    images = bench.picture(9, 48, 32)
    chosen = {"vae": bench.shared()[2], "images": images, "posterior": {"posterior": "mean"}}
    latent = run(bench.ours["VAEEncodeChunked"], **chosen)[0]
    assert latent["num_frames"] == 9 and latent["samples"].shape == (1, 16, 3, 4, 6)


def test_places_of_another_batch_say_nothing_of_these_frames():
    """A node kept `batch_index` and changed the samples: only as many places as frames tell where they are from."""
    from kinetograph.nodes.host.latents import clip_frames

    whole = {**svd(3, clips=2), "batch_index": [0, 5]}
    assert clip_frames(whole)[0] == 3
    with pytest.raises(ValueError, match="parts of two clips"):
        clip_frames({**whole, "batch_index": [0, 1, 5, 3, 4, 5]})
