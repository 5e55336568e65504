"""Files that change under the host's cache: results that were deleted, weights that were replaced or rewritten."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch

from kinetograph.tests import tiny, tiny_svd
from kinetograph.tests.host.graphs import loader, node
from kinetograph.tests.host.workbench import SVD_OWN, SVDWorkbench, Workbench, run

OWN = "from the model's folder"
WRITING = {
    "frame_rate": 8.0,
    "loop_count": 0,
    "filename_prefix": "gone/clip",
    "format": "video/h264-mp4",
    "format.crf": 19,
    "format.pix_fmt": "yuv420p",
    "save_output": True,
    "save_metadata": False,
    "trim_to_audio": False,
}


def combined(color):
    frames = node("EmptyImage", width=64, height=64, batch_size=2, color=color)
    return {
        "frames": frames,
        "save": node("KinetographVideoCombine", images=["frames", 0], pingpong=False, **WRITING),
    }


def decoded(size):
    asked = {"family": "cogvideox", "width": size, "height": size, "num_frames": 1, "batch_size": 1}
    return {
        "loader": loader(),
        "latent": node("KinetographVideoLatent", **asked),
        "save": node("KinetographVAEDecodeToVideo", vae=["loader", 2], latent=["latent", 0], **WRITING),
    }


@pytest.mark.parametrize("graph, other", [(combined(1), combined(2)), (decoded(64), decoded(80))])
def test_a_deleted_result_is_made_again(client, base, graph, other):
    def result(graph, cached):
        done = client.run(graph)
        assert done.status == "success", done.message
        assert ("save" in done.cached) is cached
        return base / "output" / "gone" / done.outputs["save"]["gifs"][0]["filename"]

    shutil.rmtree(base / "output" / "gone", ignore_errors=True)
    path = result(graph, cached=False)
    content = path.read_bytes()
    assert result(graph, cached=True) == path
    path.unlink()
    assert result(graph, cached=False) == path and path.read_bytes() == content
    assert result(graph, cached=True) == path
    # another prompt may have written its file under the name that became free
    path.unlink()
    assert result(other, cached=False) == path
    again = result(graph, cached=False)
    assert again != path and again.is_file()
    assert result(graph, cached=True) == again, "what was deleted before is forgotten"


def native_latent(*model):
    """An empty latent of the native size of a MODEL: its loader runs, and little else."""
    asked = {"width": 0, "height": 0, "num_frames": 0, "batch_size": 1, "model": list(model)}
    return {
        "latent": node("KinetographVideoLatent", family="svd" if "svd" in model[0] else "cogvideox", **asked),
        "save": node("SaveLatent", samples=["latent", 0], filename_prefix="replaced"),
    }


def cogvideox(model):
    return {"cog": loader(model=model), **native_latent("cog", 0)}


def exvideo(model, patch):
    parts = {"model": model, "image_encoder": SVD_OWN, "vae": SVD_OWN, "weight_dtype": "auto"}
    return {
        "svd": node("KinetographSVDLoader", **parts),
        "svd patch": node("KinetographExVideoPatch", model=["svd", 0], exvideo=patch),
        **native_latent("svd patch", 0),
    }


def test_a_weight_file_replaced_under_its_name_is_loaded_again(client, base):
    """Every file of every part: those that were not replaced stay loaded."""
    models = base / "models"
    shutil.copytree(models / "CogVideo" / "tiny-5B", models / "CogVideo" / "replaced")
    tiny_svd.write_file(models / "SVD" / "replaced.safetensors")
    tiny_svd.write_exvideo(models / "SVD" / "replaced-exvideo.safetensors")
    cog, svd = (
        cogvideox("CogVideo/replaced"),
        exvideo("SVD/replaced.safetensors", "SVD/replaced-exvideo.safetensors"),
    )
    folder = models / "CogVideo" / "replaced"
    cases = [
        (cog, {"cog"}, tiny.weights_of(folder / "transformer")),
        (cog, {"cog"}, folder / "transformer" / "config.json"),
        (cog, {"cog"}, tiny.weights_of(folder / "text_encoder")),
        (cog, {"cog"}, tiny.weights_of(folder / "vae")),
        (svd, {"svd", "svd patch"}, models / "SVD" / "replaced.safetensors"),
        (svd, {"svd patch"}, models / "SVD" / "replaced-exvideo.safetensors"),
    ]
    for graph in (cog, svd):
        result = client.run(graph)
        assert result.status == "success", result.message
        assert {"cog", "svd", "svd patch"} & {*graph} <= {*client.run(graph).cached}
    for graph, loaded, path in cases:
        put_copy(path)
        result = client.run(graph)
        assert result.status == "success", result.message
        assert {"cog", "svd", "svd patch"} & {*graph} - {*result.cached} == loaded, path.name


def put_copy(path):
    """Another file under the name, of the same size and time."""
    before, copy = path.stat(), path.with_suffix(".new")
    shutil.copyfile(path, copy)
    os.utime(copy, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.replace(copy, path)


def test_a_changed_file_makes_another_result(client, base):
    folder = base / "models" / "CogVideo" / "changed"
    shutil.copytree(base / "models" / "CogVideo" / "tiny-5B", folder)
    graph = cogvideox("CogVideo/changed")
    shapes = []
    for frames in (17, 9):
        settings = json.loads((folder / "transformer" / "config.json").read_text())
        (folder / "transformer" / "config.json").write_text(json.dumps({**settings, "sample_frames": frames}))
        (file,) = client.run(graph).files()
        shapes.append(len(client.view(file)))
    assert shapes[0] > shapes[1]


def rewrite(path):
    """The last number of a file becomes another, in place."""
    with path.open("r+b") as stream:
        stream.seek(-4, os.SEEK_END)
        stream.write(b"\1\2\3\4")


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def replace(path):
    """Another file under the name: the one that is mapped stays whole."""
    shutil.copyfile(path, path.with_suffix(".new"))
    rewrite(path.with_suffix(".new"))
    os.replace(path.with_suffix(".new"), path)


def is_mapped(path):
    return str(path.resolve()) in Path("/proc/self/maps").read_text()


class Uses:
    """Two checkpoints in folders of their own, with everything that can be done with each part."""

    def __init__(self, base):
        models = base / "models"
        self.cog_bench, self.svd_bench = Workbench(), SVDWorkbench()
        self.folder, self.file = models / "CogVideo" / "mapped", models / "SVD" / "mapped.safetensors"
        self.extension = models / "SVD" / "mapped-exvideo.safetensors"
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(models / "CogVideo" / "tiny-5B", self.folder)
        own = {"text_encoder": OWN, "vae": OWN, "weight_dtype": "fp32"}
        self.model, self.clip, self.vae = run(self.kind("CogVideoXLoader"), model="CogVideo/mapped", **own)

    def load_svd(self):
        self.file.unlink(missing_ok=True)
        shutil.copyfile(self.file.with_name("tiny-svd.safetensors"), self.file)
        tiny_svd.write_exvideo(self.extension)
        own = {"image_encoder": SVD_OWN, "vae": SVD_OWN, "weight_dtype": "fp32"}
        parts = run(self.kind("SVDLoader"), model="SVD/mapped.safetensors", **own)
        self.svd, self.vision, self.frames_vae = parts
        name = "SVD/mapped-exvideo.safetensors"
        (self.longer,) = run(self.kind("ExVideoPatch"), model=self.svd_bench.svd()[0], exvideo=name)
        return self

    def kind(self, name):
        return self.cog_bench.ours[name]

    @property
    def host(self):
        return self.cog_bench.host

    def weights(self, part):
        return tiny.weights_of(self.folder / part)

    def clip_latents(self):
        return {"samples": torch.zeros(1, 16, 2, 8, 8)}

    def sample(self, kind, bench, model, size=64):
        return getattr(bench, kind)(model, bench.empty(size=size), steps=1)

    def cases(self):
        """Name -> (the file that the use needs, the use)."""
        pixels = self.svd_bench.picture(width=64)
        still = {"samples": torch.zeros(1, 4, 8, 8)}
        tiled = {"tile_size": 64, "overlap": 0, "temporal_size": 64, "temporal_overlap": 8}
        host, vision, file = self.host, self.vision, self.file
        vae_file = self.weights("vae")
        return {
            "sampler": (
                self.weights("transformer"),
                lambda: self.sample("sampler", self.cog_bench, self.model),
            ),
            "host sampler": (
                self.weights("transformer"),
                lambda: self.sample("ksampler", self.cog_bench, self.model),
            ),
            "text": (
                self.weights("text_encoder"),
                lambda: run(host.CLIPTextEncode, clip=self.clip, text="a"),
            ),
            "text, a clone": (
                self.weights("text_encoder"),
                lambda: run(host.CLIPTextEncode, clip=self.clip.clone(), text="a"),
            ),
            "decode": (vae_file, lambda: run(host.VAEDecode, vae=self.vae, samples=self.clip_latents())),
            "decode tiled": (
                vae_file,
                lambda: run(host.VAEDecodeTiled, vae=self.vae, samples=self.clip_latents(), **tiled),
            ),
            "decode chunked": (
                vae_file,
                lambda: run(
                    self.kind("VAEDecodeChunked"),
                    vae=self.vae,
                    latent=self.clip_latents(),
                    chunk=0,
                    overlap=0,
                ),
            ),
            "encode": (vae_file, lambda: run(host.VAEEncode, vae=self.vae, pixels=pixels)),
            "svd sampler": (file, lambda: self.sample("sampler", self.svd_bench, self.svd)),
            "exvideo": (self.extension, lambda: self.sample("sampler", self.svd_bench, self.longer, 128)),
            "frames": (file, lambda: run(host.VAEDecode, vae=self.frames_vae, samples=still)),
            "frames tiled": (
                file,
                lambda: run(host.VAEDecodeTiled, vae=self.frames_vae, samples=still, **tiled),
            ),
            "frames encoded": (file, lambda: run(host.VAEEncode, vae=self.frames_vae, pixels=pixels)),
            "picture": (
                file,
                lambda: run(host.CLIPVisionEncode, clip_vision=vision, image=pixels, crop="center"),
            ),
            "svd conditioning": (
                file,
                lambda: self.svd_bench.condition(
                    self.svd_bench.empty(), clip_vision=vision, vae=self.svd_bench.svd()[2]
                ),
            ),
        }


def test_mapped_weights_that_change_are_noticed_before_they_are_used(comfy_here, base):
    uses = Uses(base).load_svd()
    cases = uses.cases()
    files = {path for path, _ in cases.values()}
    assert all(is_mapped(path) for path in files if path != uses.weights("text_encoder"))
    for _, use in cases.values():
        use()
    for harm in (rewrite, cut):
        for path in files:
            harm(path)
        for name, (path, use) in cases.items():
            wanted = rf"{re.escape(path.name)}.* was rewritten .*Queue the prompt"
            with pytest.raises(ValueError, match=wanted) as caught:
                use()
            assert str(base) not in str(caught.value), name


def test_a_file_rewritten_while_sampling_gives_no_result(comfy_here, base):
    uses = Uses(base)
    model = uses.model.clone()

    def during(args):
        rewrite(uses.weights("transformer"))
        return args["denoised"]

    model.set_model_sampler_post_cfg_function(during)
    with pytest.raises(ValueError, match="was rewritten"):
        uses.sample("sampler", uses.cog_bench, model)


def test_a_file_replaced_by_another_stays_as_it_was_loaded(comfy_here, base):
    uses = Uses(base)
    expected = uses.sample("sampler", uses.cog_bench, uses.model)
    replace(uses.weights("transformer"))
    assert torch.equal(uses.sample("sampler", uses.cog_bench, uses.model), expected)


@pytest.mark.newest
def test_weights_are_read_and_not_mapped_where_the_host_is_told_so(comfy_here, base, monkeypatch):
    from comfy.cli_args import args

    monkeypatch.setattr(args, "disable_mmap", True)
    uses = Uses(base).load_svd()
    cases = uses.cases()
    expected = uses.sample("sampler", uses.cog_bench, uses.model)
    for path in {path for path, _ in cases.values()}:
        assert not is_mapped(path), path.name
        cut(path)
    for _, use in cases.values():
        use()
    assert torch.equal(uses.sample("sampler", uses.cog_bench, uses.model), expected)
