"""What PixArt Loader and EasyAnimate's module refuse, before anything long begins, and in which words."""

import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from kinetograph.modules.families.easyanimate.model import GridModules
from kinetograph.tests import motion_files, tiny, tiny_pixart, tiny_svd
from kinetograph.tests.host import pictures
from kinetograph.tests.host.pixart_bench import FOLDER, LORA, MODULE, PORTRAIT, SIZED, PixArtBench
from kinetograph.tests.host.workbench import SVD, SVDWorkbench, run

COG = "CogVideo/tiny-5B"
AS_TRAINED = {"mode": "mask resized", "image_noise": "as trained", "seed": 0}


@pytest.fixture(scope="module")
def bench(comfy_here, base):
    return PixArtBench()


@pytest.fixture(scope="module")
def models(base):
    return base / "models"


@pytest.fixture(scope="module")
def still(bench):
    return bench.parts()[0]


@pytest.fixture(scope="module")
def moving(bench, still):
    return bench.move(still)


class TestSizes:
    # width, height -> what is said of the module's cells, and of PixArt alone; None where it can be made
    WRONG = {
        (80, 64): ("width.*80, use 64 or 96", None),
        (64, 48): ("height.*48, use 32 or 64", None),
        (72, 64): ("width.*72, use 64 or 96", "width.*72, use 64 or 80"),
        (64, 24): ("height.*24, use 32", "height.*24, use 16 or 32"),
    }

    @pytest.mark.parametrize("size", WRONG, ids=str)
    def test_the_nearest_are_named(self, bench, still, moving, size):
        asked = {"width": size[0], "height": size[1], "num_frames": 4, "batch_size": 1}
        latent = bench.empty(4, *size)
        for model, words in zip((moving, still), self.WRONG[size], strict=True):
            ways = [
                lambda model=model: run(
                    bench.ours["VideoLatent"], family="from the model", model=model, **asked
                ),
                lambda model=model: bench.ksampler(model, latent, steps=1),
                lambda model=model: bench.sampler(model, latent, steps=1),
            ]
            for way in ways:
                if words is None:
                    way()
                else:
                    with pytest.raises(ValueError, match=words):
                        way()

    def test_at_the_post(self, bench):
        said = bench.ours["VideoLatent"].validate_inputs("pixart", 72, 64, 4)
        assert "width must be a multiple of 16 pixels: got width=72, use 64 or 80" in said

    def test_more_frames_than_positions(self, bench, moving):
        many = bench.empty(4097, 32, 32)
        for sampler in (bench.ksampler, bench.sampler):
            with pytest.raises(ValueError, match="at most 4096 frames: got 4097"):
                sampler(moving, many, steps=1)
        asked = {"width": 32, "height": 32, "num_frames": 4097, "batch_size": 1}
        with pytest.raises(ValueError, match="at most 4096 frames: got 4097"):
            run(bench.ours["VideoLatent"], family="from the model", model=moving, **asked)
        # of several clips it is one that counts
        assert bench.move(bench.parts()[0], num_frames=2048) is not None
        with pytest.raises(ValueError, match="no clips of 2048"):
            bench.ksampler(bench.move(bench.parts()[0], num_frames=2048), many, steps=1)

    def test_parts_of_clips(self, bench, still):
        with pytest.raises(
            ValueError, match="6 frames, which are no clips of 4.*num_frames of Motion Module Apply"
        ):
            bench.ksampler(bench.move(still, num_frames=4), bench.empty(), steps=1)

    @pytest.mark.newest
    def test_the_hosts_windows_with_a_frame_more(self, bench, moving):
        from comfy_extras.nodes_context_windows import ContextWindowsManualNode

        chosen = {"context_length": 4, "context_overlap": 2, "context_schedule": "standard_static", "dim": 0}
        chosen |= {"context_stride": 1, "closed_loop": False, "fuse_method": "flat", "freenoise": False}
        chosen |= {"cond_retain_index_list": "", "split_conds_to_windows": False}
        chosen |= {"latent_retain_index_list": "", "causal_window_fix": True}
        windowed = run(ContextWindowsManualNode, model=moving, **chosen)[0]
        with pytest.raises(
            ValueError, match="no clips of 4.*causal_window_fix.*switch it off, or use Context Windows"
        ):
            bench.ksampler(windowed, bench.empty(10), steps=1)


class TestBases:
    def test_the_module_on_others(self, bench):
        svd = SVDWorkbench()
        others = {
            "BaseModel": pictures.build("small"),
            "CogVideoX 5B": bench.load()[0],
            "SVD": svd.svd(SVD)[0],
        }
        for label, model in others.items():
            with pytest.raises(
                ValueError, match=f"EasyAnimate v1's motion module, for PixArt: .* got {label}.*PixArt Loader"
            ):
                bench.move(model)

    def test_animatediff_on_pixart(self, bench, models, still):
        folder = models / "animatediff_models"
        folder.mkdir(exist_ok=True)
        motion_files.write(folder / "pixart-v2.safetensors", motion_files.CONFIGS["v2"])
        words = "SD1.5 and SDXL: got PixArt 512, which takes EasyAnimate v1's motion module"
        with pytest.raises(ValueError, match=words):
            bench.move(still, "animatediff_models/pixart-v2.safetensors")

    def test_one_a_model(self, bench, moving):
        with pytest.raises(
            ValueError, match="has motion modules already: use one Motion Module Apply a model"
        ):
            bench.move(moving)

    @pytest.mark.parametrize("change", [{"num_layers": 3}, {"width": 64}], ids=["deeper", "narrower"])
    def test_a_module_of_another_size(self, bench, models, still, change):
        config = dataclasses.replace(tiny_pixart.GRID, **change)
        made = tiny_svd.randomise(GridModules(config), 3)
        save_file(dict(made.state_dict()), models / "Motion_Module" / "other-mm.safetensors")
        words = f"for {config.num_layers} blocks of {config.width} channels: this PixArt has 2 of 96"
        with pytest.raises(ValueError, match=words):
            bench.move(still, "Motion_Module/other-mm.safetensors")
        (models / "Motion_Module" / "other-mm.safetensors").unlink()

    @pytest.mark.parametrize("version", ["v1", "v3", "AnimateLCM"])
    def test_a_version_of_animatediff(self, bench, still, version):
        said = bench.ours["MotionModuleApply"].validate_inputs(MODULE, version)
        assert (
            f"EasyAnimate v1 motion module, no AnimateDiff {version}: set version to 'from the file'" in said
        )
        with pytest.raises(ValueError, match="set version to 'from the file'"):
            bench.move(still, version=version)

    def test_files_that_are_no_module(self, bench):
        said = {
            name: bench.ours["MotionModuleApply"].validate_inputs(name, "from the file")
            for name in (PORTRAIT, LORA, FOLDER)
        }
        assert "is PixArt 512" in said[PORTRAIT] and "use PixArt Loader" in said[PORTRAIT]
        assert "is a LoRA, no motion module" in said[LORA] and "LoRA Stack" in said[LORA]
        assert said[FOLDER] is not True


@pytest.mark.newest
class TestFiles:
    """All of it at the post, from headers."""

    def test_a_single_file_brings_no_other_parts(self, bench):
        assert "is a single file: it brings no text encoder. Choose one by name" in bench.problem(PORTRAIT)
        assert "is a single file: it brings no vae. Choose one by name" in bench.problem(PORTRAIT, FOLDER)
        assert bench.problem(PORTRAIT, FOLDER, FOLDER) is True

    def test_a_folder_without_a_part(self, bench, models):
        folder = tiny_pixart.write_pipeline(models / "Diffusion_Transformer" / "no-text")
        for path in (folder / "text_encoder").iterdir():
            path.unlink()
        (folder / "text_encoder").rmdir()
        said = bench.problem("Diffusion_Transformer/no-text")
        assert "no-text' has no folder text_encoder: it brings no text encoder. Choose one by name" in said

    def test_other_loaders_files(self, bench):
        assert "is CogVideoX 5B, no PixArt diffusion model: use CogVideoX Loader" in bench.problem(COG)
        assert "use SVD Loader" in bench.problem(SVD, FOLDER, FOLDER)
        assert "use Motion Module Apply" in bench.problem(MODULE, FOLDER, FOLDER)
        assert "is a LoRA, no checkpoint: put it on a model with LoRA Stack" in bench.problem(
            LORA, FOLDER, FOLDER
        )
        cog = bench.ours["CogVideoXLoader"].validate_inputs(FOLDER, FOLDER, FOLDER)
        assert "is PixArt 512, no CogVideoX diffusion model: use PixArt Loader" in cog
        assert "use PixArt Loader" in bench.ours["SVDLoader"].validate_inputs(FOLDER, FOLDER, FOLDER)
        assert "is PixArt 512, no CogVideoX" in bench.ours["CogVideoXLoader"].validate_inputs(
            PORTRAIT, COG, COG
        )

    def test_what_is_no_personalised_checkpoint(self, bench, models):
        assert "sizes differ" in bench.problem(personalized=SIZED) and "1024-MS" in bench.problem(
            personalized=SIZED
        )
        assert "motion module, no PixArt diffusion model: use Motion Module Apply" in bench.problem(
            personalized=MODULE
        )
        assert "is a LoRA, no checkpoint: put it on a model with LoRA Stack" in bench.problem(
            personalized=LORA
        )
        assert "use CogVideoX Loader" in bench.problem(personalized=COG)
        path = models / "Personalized_Model" / "deeper.safetensors"
        save_file(tiny_pixart.transformer(num_layers=3).state_dict(), path)
        said = bench.problem(personalized="Personalized_Model/deeper.safetensors")
        assert "of 3 blocks of 96 channels" in said and "of 2 blocks of 96 channels" in said
        weights = load_file(models / PORTRAIT)
        save_file({**weights, "a.key.of.nobody": torch.ones(1)}, path)
        said = bench.problem(personalized="Personalized_Model/deeper.safetensors")
        assert "1 unexpected (a.key.of.nobody)" in said
        with pytest.raises(ValueError, match="1 unexpected"):
            bench.pixart(personalized="Personalized_Model/deeper.safetensors")
        path.unlink()

    def test_a_t5_of_another_width(self, bench, models):
        from transformers import T5Config, T5EncoderModel

        sizes = {**tiny.TEXT_ENCODER, "d_model": 32}
        folder = models / "text_encoders" / "wide-t5"
        tiny.randomise(T5EncoderModel(T5Config(**sizes)), 2).save_pretrained(folder)
        said = bench.problem(text_encoder="wide-t5")
        assert "is a T5 encoder of 32 numbers a token" in said and "takes 16" in said
        with pytest.raises(ValueError, match="T5 encoder of 32 numbers a token"):
            bench.pixart(text_encoder="wide-t5")

    def test_vaes_of_others(self, bench, models):
        assert "use CogVideoX Loader" in bench.problem(vae=COG)
        tiny_vae = tiny_pixart.vae_weights()
        folder = models / "vae"
        folder.mkdir(exist_ok=True)
        # TAESD of SDXL has the same keys and shapes
        save_file({**tiny_vae, "vae_scale": torch.tensor(0.13025)}, folder / "taesdxl.safetensors")
        with pytest.raises(ValueError, match="a TAESD for latents scaled by 0.13025.*use TAESD of SD1.5"):
            bench.pixart(vae="taesdxl.safetensors")
        wide = {
            key: torch.zeros(16 if key == "taesd_encoder.14.weight" else value.shape[0], *value.shape[1:])
            for key, value in tiny_vae.items()
            if value.ndim
        }
        wide["taesd_decoder.1.weight"] = torch.zeros(64, 16, 3, 3)
        save_file({**tiny_vae, **wide}, folder / "taef1.safetensors")
        assert "its latents have 16 channels, those of PixArt 4" in bench.problem(vae="taef1.safetensors")
        for name, change in (("sdxl", {"scaling_factor": 0.13025}), ("flux", {"latent_channels": 16})):
            write_vae(folder / f"{name}-vae", **change)
        assert "scaled by 0.13025, those of PixArt by 0.18215" in bench.problem(vae="sdxl-vae")
        assert "its latents have 16 channels, those of PixArt 4" in bench.problem(vae="flux-vae")


def write_vae(folder, **changes):
    """An AutoencoderKL as diffusers saves it."""
    from diffusers import AutoencoderKL

    kinds = {side: (f"{side}EncoderBlock2D",) * 4 for side in ("Down",)}
    told = {
        "block_out_channels": (32, 32, 64, 64),
        "down_block_types": kinds["Down"],
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 2,
        "latent_channels": 4,
        **changes,
    }
    AutoencoderKL(**told).save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["_class_name"] == "AutoencoderKL"


class TestConditionings:
    def test_control_nets(self, bench, moving, still):
        import comfy.controlnet

        class Net(comfy.controlnet.ControlBase):
            def get_control(self, *_):
                raise AssertionError("asked")

        told = {
            side: [[text, {**notes, "control": Net()}]] for side, ((text, notes),) in bench.prompts().items()
        }
        for model in (moving, still):
            for sampler in (bench.ksampler, bench.sampler):
                with pytest.raises(ValueError, match="does not call the control .* Apply ControlNet out"):
                    sampler(model, bench.empty(), steps=1, **told)

    @pytest.mark.parametrize(
        "name, kind",
        [
            ("concat_latent_image", "image"),
            ("concat_mask", "inpaint"),
            ("kinetograph_control_latents", "control"),
        ],
    )
    def test_pictures_and_clips_in_a_conditioning(self, bench, moving, name, kind):
        """Of Image To Video Conditioning, of SVD's, of ComfyUI's own nodes for painting: they would change nothing."""
        value = torch.zeros(6, 1 if kind == "inpaint" else 4, 8, 8)
        told = {side: [[text, {**notes, name: value}]] for side, ((text, notes),) in bench.prompts().items()}
        words = f"takes no {kind} conditioning: connect the prompts directly.*denoise below 1"
        for sampler in (bench.ksampler, bench.sampler):
            with pytest.raises(ValueError, match=words):
                sampler(moving, bench.empty(), steps=1, **told)

    def test_nodes_for_other_families(self, bench, still):
        _, _, vae = bench.parts()
        both, picture = bench.prompts(), torch.rand(1, 64, 64, 3)
        told = {"vae": vae, "latent": bench.empty(), "fit": "crop", **both}
        with pytest.raises(ValueError, match="no way to tell PixArt 512.*models with a motion module"):
            run(bench.ours["InpaintConditioning"], model=still, start_images=picture, mode=AS_TRAINED, **told)
        more = {"image": picture, "posterior": {"posterior": "mean"}, "latent_gain": 1.0}
        with pytest.raises(ValueError, match="needs the VAE output of a loader of this pack"):
            run(bench.ours["ImageToVideoConditioning"], **more, **told)
        with pytest.raises(ValueError, match="needs the VAE output of a loader of this pack"):
            run(bench.ours["ControlVideoConditioning"], video=picture, **told)

    def test_prompts_of_another_text_encoder(self, bench, moving):
        other = [[torch.zeros(1, 4, 8), {}]]
        with pytest.raises(ValueError, match="use the CLIP output of the loader that loaded the model"):
            bench.ksampler(moving, bench.empty(), steps=1, positive=other, negative=other)

    def test_windows_of_pictures_alone(self, bench, still):
        schedule = {"schedule": "batched"}
        with pytest.raises(ValueError, match="makes every frame alone.*Motion Module Apply"):
            run(
                bench.ours["ContextWindows"],
                model=still,
                length=4,
                freenoise=False,
                schedule=schedule,
                prompts={},
            )

    def test_the_middle_of_the_posterior_alone(self, bench):
        sample = {"posterior": "sample", "seed": 1}
        with pytest.raises(ValueError, match="mean of the posterior alone: set posterior to mean"):
            run(
                bench.ours["VAEEncodeChunked"],
                vae=bench.parts()[2],
                images=torch.rand(2, 64, 64, 3),
                posterior=sample,
            )
        odd = torch.rand(2, 60, 64, 3)
        with pytest.raises(
            ValueError, match="height must be a multiple of 8 pixels: got height=60, use 56 or 64"
        ):
            run(
                bench.ours["VAEEncodeChunked"],
                vae=bench.parts()[2],
                images=odd,
                posterior={"posterior": "mean"},
            )
