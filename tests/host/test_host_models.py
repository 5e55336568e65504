"""The host's own MODELs in our nodes: SVD, and SD1.5 and SDXL, whose clips are batches of pictures."""

import pytest
import torch

from kinetograph.tests import tiny, tiny_svd
from kinetograph.tests.host import svd_parts
from kinetograph.tests.host.test_svd_adoption import file, hosts, image_model  # noqa: F401
from kinetograph.tests.host.workbench import SVDWorkbench, per_frame, relative, run


@pytest.fixture(scope="module")
def bench(comfy_here):
    return SVDWorkbench()


def sdxl():
    """A tiny SDXL of the host."""
    import comfy.model_patcher
    import comfy.supported_models

    config = comfy.supported_models.SDXL(
        {
            **{"image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 64, "legacy": False},
            **{
                "num_res_blocks": [1, 1],
                "channel_mult": [1, 2],
                "transformer_depth": [1, 1],
                "num_heads": 2,
            },
            **{"transformer_depth_output": [1] * 4, "transformer_depth_middle": 1, "context_dim": 16},
            **{"use_spatial_transformer": True, "use_linear_in_transformer": True, "adm_in_channels": 2816},
            **{
                "num_classes": "sequential",
                "num_head_channels": 16,
                "use_temporal_attention": False,
                "use_temporal_resblock": False,
            },
        }
    )
    config.unet_config["dtype"] = torch.float32
    model = config.get_model({}, device="cpu")
    tiny.randomise(model.diffusion_model, 6)
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu)


MODELS = {"SD1.5": image_model, "SDXL": sdxl}


@pytest.fixture(scope="module", params=MODELS)
def model(request, comfy_here):
    return MODELS[request.param]()


def prompts():
    generator = torch.Generator().manual_seed(1)
    words = [torch.randn(1, 5, 16, generator=generator) for _ in range(2)]
    pooled = [torch.randn(1, 1280, generator=generator) for _ in range(2)]
    entries = ([[word, {"pooled_output": pool}]] for word, pool in zip(words, pooled, strict=True))
    return dict(zip(("positive", "negative"), entries, strict=True))


class TestImageModels:
    def test_a_clip_is_a_batch_of_pictures(self, bench, model):
        latent = self.empty(bench, model, num_frames=3)
        assert latent["samples"].shape == (3, 4, 8, 8) and latent["num_frames"] == 3
        told = {**prompts(), "scheduler": "simple", "cfg": 2.5}
        theirs = bench.ksampler(model, latent, **told)
        assert torch.equal(bench.sampler(model, latent, **told), theirs) and theirs.std() > 0.01
        ramp = bench.sampler(model, latent, guidance=per_frame(1.0, 4.0), **told)
        assert relative(ramp, theirs) > 1e-3
        seen = bench.sampler(model, latent, preview=True, **told)
        assert torch.equal(seen, theirs)

    def test_nothing_is_left_on_it(self, bench, model):
        before = dict(model.object_patches), dict(model.wrappers), dict(model.model_options)
        bench.sampler(model, self.empty(bench, model), **prompts(), scheduler="simple")
        assert (dict(model.object_patches), dict(model.wrappers), dict(model.model_options)) == before

    def test_its_own_size_is_taken_where_none_is_said(self, bench, model):
        latent = self.empty(bench, model, width=0, height=0, num_frames=0)
        cells = 128 if type(model.model).__name__ == "SDXL" else 64
        assert latent["samples"].shape == (1, 4, cells, cells)

    def test_trailing_and_our_samplers_run_on_it(self, bench, model):
        latent, told = self.empty(bench, model, num_frames=2), {**prompts(), "cfg": 2.5}
        exact = bench.sampler(model, latent, scheduler="trailing", steps=4, sampler_name="ddim", **told)
        # 4 divides 1000: the host's simple is the same there, and with DDIM it is the model's own noise that goes on
        assert torch.equal(
            exact, bench.ksampler(model, latent, scheduler="simple", steps=4, sampler_name="ddim", **told)
        )
        ours = bench.sampler(
            model, latent, scheduler="trailing", steps=4, sampler_name="cogvideox_ddim", **told
        )
        assert relative(ours, exact) <= 1e-4

    def test_scheduler_edm_is_refused(self, bench, model):
        with pytest.raises(ValueError, match="edm is for models with continuous noise levels"):
            bench.sampler(model, self.empty(bench, model), scheduler="edm", **prompts())

    def empty(self, bench, model, width=64, height=64, num_frames=2):
        size = {"width": width, "height": height, "num_frames": num_frames, "batch_size": 1}
        return run(bench.ours["VideoLatent"], family="from the model", model=model, **size)[0]


class TestVideoLatent:
    def make(self, bench, family, model=None, **changes):
        size = {"width": 0, "height": 0, "num_frames": 0, "batch_size": 2, "model": model, **changes}
        return run(bench.ours["VideoLatent"], family=family, **size)[0]

    def test_from_the_model_is_the_family_that_is_connected(self, bench):
        cogvideox, svd = bench.shared()[0], bench.svd()[0]
        for family, model in (("cogvideox", cogvideox), ("svd", svd)):
            by_name, by_model = self.make(bench, family, model), self.make(bench, "from the model", model)
            assert by_name["samples"].shape == by_model["samples"].shape
            assert by_name["num_frames"] == by_model["num_frames"] > 1
        assert by_name["samples"].ndim == 4

    def test_without_a_model_it_says_so(self, bench):
        with pytest.raises(ValueError, match="told to take the family from the model: connect one"):
            self.make(bench, "from the model", width=64, height=64, num_frames=4)

    def test_no_network_is_built_to_read_three_numbers(self, bench, monkeypatch):
        from kinetograph.nodes.host import diffusion
        from kinetograph.nodes.pipeline import adoption

        model = svd_parts.make_host_svd()
        monkeypatch.setattr(diffusion, "load_model", None)
        monkeypatch.setattr(adoption, "recognise", None)
        assert self.make(bench, "svd", model)["num_frames"] == 25


class TestSVDOfTheHost:
    @pytest.fixture(scope="class")
    def both(self, hosts):  # noqa: F811
        """(the host's MODEL, the same tensors in our network)."""
        from kinetograph.modules.families import SVD
        from kinetograph.nodes.pipeline.adoption import own_model

        return hosts, own_model(hosts, "A node", SVD)

    def told(self, pictures, clips, seed=3):
        """Conditionings of clips of three frames, made by hand at the context of this tiny model."""
        generator = torch.Generator().manual_seed(seed)
        token = torch.randn(1, 1, tiny_svd.CONTEXT, generator=generator)
        image = torch.randn(pictures, 4, 8, 8, generator=generator)
        numbers = {"fps": 7, "motion_bucket_id": 60, "augmentation_level": 0.02, "num_frames": 3}
        return {
            "positive": [[token, {**numbers, "concat_latent_image": image}]],
            "negative": [[token * 0, {**numbers, "concat_latent_image": image * 0}]],
            "scheduler": "karras",
            "cfg": 2.5,
        }

    @pytest.mark.parametrize("pictures", [1, 3])
    @pytest.mark.parametrize("clips", [1, 2])
    def test_several_clips_stay_apart(self, bench, both, pictures, clips):
        theirs, ours = both
        latent, told = bench.empty(clips=clips), self.told(pictures, clips)
        sampled = bench.sampler(theirs, latent, **told)
        assert relative(sampled, bench.sampler(ours, latent, **told)) <= 3e-5 and sampled.std() > 0.01
        if clips > 1:
            # the host's KSampler takes them for one clip
            assert relative(sampled, bench.ksampler(theirs, latent, **told)) > 1e-2
        assert theirs.wrappers == {}

    def test_no_second_network_is_built(self, bench, both, monkeypatch):
        from kinetograph.nodes.host import diffusion

        monkeypatch.setattr(diffusion, "load_model", None)
        bench.sampler(both[0], bench.empty(), **self.told(1, 1))


def test_other_kinds_of_models_are_refused_with_the_way_out(bench):
    import comfy.model_base
    import comfy.supported_models_base

    flow = image_model()
    flow.model.model_sampling = comfy.model_base.model_sampling(
        comfy.supported_models_base.BASE({}), comfy.model_base.ModelType.FLOW
    )
    with pytest.raises(
        ValueError, match="Video Sampler takes video models, .* got BaseModel.*sample this one with KSampler"
    ):
        bench.sampler(flow, bench.empty(), **prompts())
