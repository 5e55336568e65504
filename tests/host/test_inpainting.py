"""What is known of a clip, told to each family in its own way, and all that is refused before anything is sampled."""

import re

import pytest
import torch

from kinetograph.tests import tiny
from kinetograph.tests.host.svd_parts import make_host_svd
from kinetograph.tests.host.test_svd_adoption import image_model
from kinetograph.tests.host.workbench import Seen, SVDWorkbench, Workbench, relative, run

RESIZED = {"mode": "mask resized", "image_noise": "as trained", "seed": 3}
AS_LATENTS = {"mode": "mask as VAE latents"}
FAMILIES = "CogVideoX-Fun InP .*CogVideoX text to video .*CogVideoX image to video .*SVD"


@pytest.fixture(scope="module")
def bench(comfy_here, base):
    bench = Workbench()
    for variant in tiny.FUN:
        tiny.write_pipeline(base / "models" / "CogVideo" / f"tiny-{variant}", variant)
    return bench


def draw(frames, size=64, seed=0):
    return torch.rand(frames, size, size, 3, generator=torch.Generator().manual_seed(seed))


def half(frames=1, size=64):
    """A mask whose right half is made anew."""
    mask = torch.zeros(frames, size, size)
    mask[:, :, size // 2 :] = 1
    return mask


def inpaint(bench, parts, latent, mode=RESIZED, **told):
    """(positive, negative, latent) of the node; `parts` are a loader's."""
    model, _, vae = parts
    prompts = {"positive": bench.text(), "negative": bench.text("")}
    chosen = {"model": model, "vae": vae, "latent": latent, "fit": "crop", "mode": mode, **prompts, **told}
    return run(bench.ours["InpaintConditioning"], **chosen)


class TestInP:
    def test_both_samplers_see_the_same(self, bench):
        parts = bench.shared("5B-InP")
        latent = bench.empty()
        positive, negative, same = inpaint(bench, parts, latent, video=draw(9), mask=half())
        assert same is latent
        told = {"positive": positive, "negative": negative, "sampler_name": "ddim", "cfg": 2.0}
        seen = Seen(parts[0])
        ours = bench.sampler(seen.model, latent, **told)
        assert torch.equal(ours, bench.ksampler(parts[0], latent, **told)) and ours.std() > 0.01
        beside = seen.calls[0]["x"][:, 16:]
        # a whole known half: its cells are 1 in units of latents, and the others 0
        assert beside.shape[1] == 17 and set(beside[:, 0].flatten().tolist()) == {
            0.0,
            beside[0, 0].max().item(),
        }
        assert beside[0, 0, 0, :, 0].tolist() == pytest.approx([0.7] * 8)
        free = bench.sampler(parts[0], latent, sampler_name="ddim", cfg=2.0)
        assert relative(free, ours) > 1e-2

    @pytest.mark.parametrize("told", [{}, {"video": draw(9), "mask": torch.ones(1, 64, 64)}])
    def test_all_made_anew_is_text_to_video(self, bench, told):
        """Nothing given is as good as a mask that is white everywhere; there is no way to give no mask at all."""
        parts, latent = bench.shared("5B-InP"), bench.empty()
        positive, negative, _ = inpaint(bench, parts, latent, **told)
        seen = Seen(parts[0])
        bench.sampler(seen.model, latent, positive=positive, negative=negative, steps=1)
        assert not seen.calls[0]["x"][:, 16:].any()

    def test_an_end_image_is_shown_where_it_is(self, bench):
        """Elsewhere it was put beside the first latent frame, or the mask told of it: neither is how InP was trained."""
        parts, latent = bench.shared("5B-InP"), bench.empty(17)
        start, end = draw(2).split(1)
        one = inpaint(bench, parts, latent, start_images=start)[0][0][1]
        both = inpaint(bench, parts, latent, start_images=start, end_image=end)[0][0][1]
        assert torch.equal(one["concat_mask"], both["concat_mask"])
        apart = (one["concat_latent_image"] - both["concat_latent_image"]).abs().amax((0, 1, 3, 4))
        assert not apart[:3].any() and apart[4] > 1e-2

    @pytest.mark.parametrize(
        "size",
        [(side, side) for side in (256, 512, 768, 1024, 1280)]
        + [(512, 288), (768, 432), (1024, 576), (1280, 720)]
        + [(288, 512), (432, 768), (576, 1024), (720, 1280)],
    )
    def test_any_size_reaches_the_network(self, bench, size):
        """Portrait, landscape and square; 2B's positions are resized for each."""
        from kinetograph.modules.families.family import Request

        width, height = size[0], size[1] - size[1] % 16
        model = bench.shared("2B-InP")[0]
        recipe = model.model.recipe
        latent = run(
            bench.ours["VideoLatent"], family="cogvideox", width=width, height=height, num_frames=1, batch_size=1, model=model
        )[0]["samples"]  # fmt: skip
        beside = recipe.family.network.conditions(recipe.config, Request(tuple(latent.shape)))["concat"]
        with torch.inference_mode():
            v = model.model.diffusion_model(
                torch.cat([torch.randn_like(latent), beside], dim=1), torch.tensor([999.0]), torch.randn(1, 4, 16)
            )  # fmt: skip
        assert v.shape == (1, 16, 1, height // 8, width // 8) and v.isfinite().all() and v.std() > 1e-3


class TestTextToVideo:
    @pytest.mark.parametrize("variant, frames", [("5B", 9), ("1.5-5B", 9)])
    @pytest.mark.parametrize("sampler", ["sampler", "ksampler"])
    def test_what_is_known_stays(self, bench, variant, frames, sampler):
        """Samplers of the host and ours put it back, also where a latent is added to fill a patch."""
        parts = bench.shared(variant)
        video = draw(frames)
        positive, negative, latent = inpaint(bench, parts, bench.empty(frames), video=video, mask=half())
        assert latent["noise_mask"].shape == (1, 1, 3, 8, 8) and latent["num_frames"] == frames
        known = run(
            bench.ours["VAEEncodeChunked"], vae=parts[2], images=video, posterior={"posterior": "mean"}
        )[0]
        samples = getattr(bench, sampler)(parts[0], latent, positive=positive, negative=negative, cfg=2.0)
        assert relative(samples[..., :4], known["samples"][..., :4]) <= 1e-5
        assert samples.isfinite().all() and relative(samples[..., 4:], known["samples"][..., 4:]) > 1e-2

    def test_images_are_refused(self, bench):
        """A base file is never taken for InP: it would hear of the images without a word."""
        with pytest.raises(ValueError, match=f"5B takes a video with a mask and no images.*{FAMILIES}"):
            inpaint(bench, bench.shared(), bench.empty(), start_images=draw(1))

    def test_a_mask_that_is_there_is_not_lost(self, bench):
        latent = {**bench.empty(), "noise_mask": torch.ones(1, 64, 64)}
        with pytest.raises(ValueError, match="has a mask of its own"):
            inpaint(bench, bench.shared(), latent, video=draw(9), mask=half())


class TestImageToVideo:
    def test_the_first_frame_is_that_of_its_own_node(self, bench):
        parts, latent = bench.shared("5B-I2V"), bench.empty(17)
        ours = inpaint(bench, parts, latent, start_images=draw(1))
        first = run(
            bench.ours["ImageToVideoConditioning"], positive=bench.text(), negative=bench.text(""), vae=parts[2],
            image=draw(1), latent=latent, fit="crop", posterior={"posterior": "sample", "seed": 3}, latent_gain=1.0,
        )  # fmt: skip
        for mine, own in zip(ours, first, strict=False):
            assert torch.equal(mine[0][1]["concat_latent_image"], own[0][1]["concat_latent_image"])

    @pytest.mark.parametrize(
        "told",
        [{}, {"start_images": draw(2)}, {"start_images": draw(1), "end_image": draw(1)}, {"video": draw(17), "mask": half()}],
        ids=["nothing", "two", "end", "video"],
    )  # fmt: skip
    def test_anything_else_is_refused(self, bench, told):
        with pytest.raises(ValueError, match=f"I2V takes one start image and nothing else.*{FAMILIES}"):
            inpaint(bench, bench.shared("5B-I2V"), bench.empty(17), **told)


class TestSVD:
    @pytest.fixture(scope="class")
    def bench(self, comfy_here):
        return SVDWorkbench()

    def inpaint(self, bench, latent, model=None, **told):
        own, vision, vae = bench.svd()
        chosen = {"positive": None, "negative": None, "clip_vision": vision, **told}
        return inpaint(bench, (model or own, None, vae), latent, **chosen)

    def test_a_start_image_is_svd_conditioning(self, bench):
        latent, picture = bench.empty(5), bench.picture(width=96)
        positive, negative, same = self.inpaint(bench, latent, start_images=picture)
        assert same is latent
        self.check_same((positive, negative), bench.condition(latent, picture))

    def check_same(self, ours, theirs):
        for mine, own in zip(ours, theirs, strict=True):
            assert torch.equal(mine[0][0], own[0][0])
            assert mine[0][1].keys() == own[0][1].keys()
            for name, value in own[0][1].items():
                same = (
                    torch.equal(mine[0][1][name], value)
                    if isinstance(value, torch.Tensor)
                    else mine[0][1][name] == value
                )
                assert same, name

    @pytest.mark.parametrize("clips", [1, 2])
    def test_more_pictures_are_pinned(self, bench, clips):
        latent, pictures = bench.empty(5, clips=clips), bench.picture(3)
        positive, negative, kept = self.inpaint(
            bench, latent, start_images=pictures[:2], end_image=pictures[2:]
        )
        pins = {"vae": bench.svd()[2], "images": pictures, "frames": "0, 1, -1", "fit": "crop"}
        pinned = run(bench.ours["PinFrames"], latent=latent, **pins)[0]
        self.check_same((positive, negative), bench.condition(latent, pictures[:1]))
        assert torch.equal(kept["samples"], pinned["samples"]) and kept["num_frames"] == 5
        whole = pinned["noise_mask"].expand_as(kept["noise_mask"])
        assert torch.equal(kept["noise_mask"], whole)

    def test_a_mask_hides_parts_of_frames(self, bench):
        latent, video = bench.empty(5), bench.picture(5)
        positive, negative, kept = self.inpaint(bench, latent, video=video, mask=half())
        assert kept["noise_mask"][:, 0, 0].tolist() == [[0] * 4 + [1] * 4] * 5
        known = bench.svd()[2].encode(video)
        assert torch.equal(kept["samples"], known)
        for sampler in (bench.sampler, bench.ksampler):
            samples = sampler(
                bench.svd()[0], kept, positive=positive, negative=negative, scheduler="karras", cfg=2.0
            )
            assert relative(samples[..., :4], known[..., :4]) <= 1e-5
            assert samples.isfinite().all() and relative(samples[..., 4:], known[..., 4:]) > 1e-2

    def test_the_hosts_own_svd_is_served_too(self, bench):
        positive, *_ = self.inpaint(
            bench, bench.empty(5), model=make_host_svd(), start_images=bench.picture()
        )
        assert positive[0][1]["augmentation_level"] == 0.02

    @pytest.mark.parametrize(
        "told, words",
        [({}, "SVD starts from a picture"),
         ({"start_images": draw(1), "clip_vision": None}, "needs SVD's image encoder: connect clip_vision")],
    )  # fmt: skip
    def test_what_lacks_is_named(self, bench, told, words):
        with pytest.raises(ValueError, match=words):
            self.inpaint(bench, bench.empty(5), **told)


VOID_SIZES = {
    "image_model": "cogvideox", "in_channels": 48, "out_channels": 16, "num_attention_heads": 2,
    "attention_head_dim": 16, "num_layers": 1, "time_embed_dim": 8, "text_embed_dim": 16, "patch_size_t": 2,
    "use_rotary_positional_embeddings": True, "sample_width": 8, "sample_height": 8, "sample_frames": 13,
}  # fmt: skip


@pytest.mark.newest
class TestMaskAsLatents:
    """ComfyUI's VOID: 16 channels of noise, 16 of the mask, 16 of the clip."""

    @pytest.fixture(scope="class")
    def void(self, bench):
        import comfy.model_patcher
        import comfy.supported_models

        config = comfy.supported_models.CogVideoX_Inpaint(dict(VOID_SIZES))
        config.unet_config["dtype"] = torch.float32
        model = config.get_model({}, device="cpu")
        tiny.randomise(model.diffusion_model, 8)
        cpu = torch.device("cpu")
        return comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu)

    def told(self, frames=13):
        """A video and a mask with the greys that VOID's own masks have."""
        video = draw(frames)
        steps = torch.tensor([0, 63, 127, 255]) / 255
        mask = steps[torch.randint(0, 4, (frames, 8, 8), generator=torch.Generator().manual_seed(1))]
        return video, mask.repeat_interleave(8, 1).repeat_interleave(8, 2)

    def test_it_is_the_hosts_own_node(self, bench, void):
        from comfy_extras.nodes_void import VOIDInpaintConditioning

        vae, (video, mask) = bench.shared()[2], self.told()
        size = {"width": 64, "height": 64, "length": 13, "batch_size": 1}
        prompts = {"positive": bench.text(), "negative": bench.text("")}
        *theirs, latent = run(VOIDInpaintConditioning, vae=vae, video=video, quadmask=mask, **size, **prompts)
        *ours, same = inpaint(bench, (void, None, vae), latent, AS_LATENTS, video=video, mask=mask)
        assert same is latent
        for mine, own in zip(ours, theirs, strict=True):
            assert torch.equal(mine[0][1]["concat_latent_image"], own[0][1]["concat_latent_image"])
        resized = inpaint(bench, bench.shared("1.5-5B-InP"), latent, video=video, mask=mask)[0][0][1]
        assert relative(resized["concat_latent_image"], ours[0][0][1]["concat_latent_image"][:, 16:]) > 1e-2

    def test_the_hosts_network_sees_it(self, bench, void):
        video, mask = self.told()
        latent = bench.empty(13)
        positive, negative, _ = inpaint(
            bench, (void, None, bench.shared()[2]), latent, AS_LATENTS, video=video, mask=mask
        )
        known, seen = positive[0][1]["concat_latent_image"].clone(), []
        hook = void.model.diffusion_model.register_forward_pre_hook(
            lambda module, given: seen.append(given[0])
        )
        try:
            told = {"positive": positive, "negative": negative, "steps": 1}
            samples = bench.ksampler(void, latent, **told)
        finally:
            hook.remove()
        assert samples.isfinite().all()
        scaled = known * void.model.latent_format.scale_factor
        assert seen[0].shape[1] == 48 and relative(seen[0][:1, 16:], scaled) <= 1e-6

    def test_a_host_vae_will_do(self, bench, void):
        """VOID's users load its VAE with the host's own loader."""
        import comfy.sd
        from comfy.taesd.taehv import TAEHV

        vae = comfy.sd.VAE(sd=tiny.randomise(TAEHV(latent_channels=16), 6).state_dict())
        video, mask = self.told()
        positive, *_ = inpaint(bench, (void, None, vae), bench.empty(13), AS_LATENTS, video=video, mask=mask)
        assert positive[0][1]["concat_latent_image"].shape[:2] == (1, 32)

    @pytest.mark.parametrize(
        "variant, told, words",
        [("5B-InP", {"start_images": draw(1)}, "models of 48 input channels here.*this one has 33. Choose mode 'mask resized'"),
         (None, {}, "needs start_images, or a video with a mask")],
    )  # fmt: skip
    def test_what_does_not_fit_is_named(self, bench, void, variant, told, words):
        model = void if variant is None else bench.shared(variant)[0]
        with pytest.raises(ValueError, match=words):
            inpaint(bench, (model, None, bench.shared()[2]), bench.empty(13), AS_LATENTS, **told)


def flow_model():
    import comfy.model_base
    import comfy.supported_models_base

    model = image_model()
    model.model.model_sampling = comfy.model_base.model_sampling(
        comfy.supported_models_base.BASE({}), comfy.model_base.ModelType.FLOW
    )
    return model


class TestRefusals:
    @pytest.mark.parametrize("make, name", [(image_model, "BaseModel"), (flow_model, "BaseModel")])
    def test_other_models_hear_which_are_served(self, bench, make, name):
        words = f"has no way to tell {name} what is known of a clip. It serves {FAMILIES}.*such as VOID"
        latent = {"samples": torch.zeros(1, 4, 8, 8)}
        with pytest.raises(ValueError, match=words):
            inpaint(bench, (make(), None, bench.shared()[2]), latent, start_images=draw(1))

    def test_a_control_model_is_not_for_inpainting(self, bench):
        with pytest.raises(ValueError, match=f"Fun-5B-Control what is known of a clip.*{FAMILIES}"):
            inpaint(bench, bench.shared("5B-Control"), bench.empty(), start_images=draw(1))

    # what our node is told -> words; all of it before a VAE is asked
    WRONG = [
        ({"end_image": draw(1)}, "An end image needs a start image: connect start_images"),
        (
            {"start_images": draw(1), "end_image": draw(9)},
            "has 9 frames: got 1 start images and 9 for its end",
        ),
        ({"start_images": draw(10)}, "has 9 frames: got 10 start images and 0 for its end"),
        (
            {"start_images": draw(1), "video": draw(9)},
            "start and end images, or a video with a mask: not both",
        ),
        ({"video": draw(9)}, "A video needs a mask.*denoise below 1"),
        ({"mask": half()}, "A mask needs a video"),
        (
            {"video": draw(9), "mask": half(2)},
            "mask has 2 frames, the clip 9: give one mask for all frames, or 9",
        ),
        ({"video": draw(9), "mask": half(1, 32)}, "mask is 32x32, the clip 64x64"),
        ({"video": draw(8), "mask": half()}, "video has 8 frames, the latent is for 9"),
        ({"start_images": draw(1, 32), "fit": "exact"}, "image is 32x32, the clip 64x64"),
        ({"start_images": draw(1), "positive": None}, "needs both prompts"),
    ]

    @pytest.mark.parametrize(
        "told, words", WRONG, ids=[re.sub(r"\W+", "_", words)[:40] for _, words in WRONG]
    )
    def test_what_tells_no_clip(self, bench, told, words):
        model, clip, vae = bench.shared("5B-InP")
        with pytest.raises(ValueError, match=words):
            inpaint(bench, (model, clip, vae), bench.empty(), **told)

    def test_counts_that_v1_5_cannot_make(self, bench):
        parts = bench.shared("1.5-5B-InP")
        words = r"Fun-1.5-5B-InP makes clips of 1 or 2n latent frames: got 9 frames \(3 latent\), use 5 or 13"
        size = {"family": "cogvideox", "width": 64, "height": 64, "batch_size": 1, "model": parts[0]}
        with pytest.raises(ValueError, match=words):
            run(bench.ours["VideoLatent"], num_frames=9, **size)
        with pytest.raises(ValueError, match=words):
            inpaint(bench, parts, bench.empty(9), start_images=draw(1))
        for sampler in (bench.sampler, bench.ksampler):
            with pytest.raises(ValueError, match=words):
                sampler(parts[0], bench.empty(9))
        assert run(bench.ours["VideoLatent"], num_frames=1, **size)[0]["samples"].shape[2] == 1

    def test_more_frames_than_2b_has_positions_for(self, bench):
        """17 here, 49 in the published files."""
        parts, latent = bench.shared("2B-InP"), bench.empty(21)
        with pytest.raises(ValueError, match="Fun-2B-InP .*at most 17 frames"):
            inpaint(bench, parts, latent, start_images=draw(1))
        for sampler in (bench.sampler, bench.ksampler):
            with pytest.raises(ValueError, match="Fun-2B-InP .*at most 17 frames"):
                sampler(parts[0], latent)

    @pytest.mark.parametrize(
        "variant, words",
        [("5B", "5B is a text-to-video checkpoint and takes no control conditioning: load a Control checkpoint"),
         ("5B-InP", "is an InP checkpoint: connect Inpaint Conditioning, not Control Video Conditioning")],
    )  # fmt: skip
    def test_control_conditioning_on_another_model(self, bench, variant, words):
        latent, vae = bench.empty(), bench.shared()[2]
        told = {
            "positive": bench.text(),
            "negative": bench.text(""),
            "vae": vae,
            "latent": latent,
            "fit": "crop",
        }
        positive, negative = run(bench.ours["ControlVideoConditioning"], video=draw(9), **told)
        for sampler in (bench.sampler, bench.ksampler):
            with pytest.raises(ValueError, match=words):
                sampler(bench.shared(variant)[0], latent, positive=positive, negative=negative)
        with pytest.raises(ValueError, match="video has 8 frames, the latent is for 9"):
            run(bench.ours["ControlVideoConditioning"], video=draw(8), **told)
        with pytest.raises(
            ValueError, match="is a Control checkpoint: connect Control Video Conditioning between"
        ):
            bench.sampler(bench.shared("5B-Control")[0], latent)
