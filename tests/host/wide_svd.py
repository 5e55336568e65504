"""An SVD narrow enough for tests and wide enough for the host, which gives each head 64 channels; loaded by both."""

from importlib import import_module

import pytest
import torch
from safetensors.torch import save_file

from kinetograph.modules.families.svd.config import SVDConfig
from kinetograph.modules.families.svd.model import SVDUNet
from kinetograph.tests.host.workbench import SVD, run

CONFIG = SVDConfig(channels=(64, 64, 128, 128), head_dim=64, context_dim=32, adm_dim=768)
NAME = "wide-svd.safetensors"
# nodes of the host that patch a UNet, by file and class
NODES = {
    "freelunch.FreeU": {"b1": 1.3, "b2": 1.4, "s1": 0.9, "s2": 0.2},
    "freelunch.FreeU_V2": {"b1": 1.3, "b2": 1.4, "s1": 0.9, "s2": 0.2},
    "pag.PerturbedAttentionGuidance": {"scale": 3.0},
    "hypertile.HyperTile": {"tile_size": 32, "swap_size": 2, "max_depth": 1, "scale_depth": False},
    "nag.NAGuidance": {"nag_scale": 5.0, "nag_alpha": 0.5, "nag_tau": 1.5},
    "model_downscale.PatchModelAddDownscale": {
        **{"block_number": 3, "downscale_factor": 2.0, "start_percent": 0.0, "end_percent": 0.9},
        **{"downscale_after_skip": True, "downscale_method": "bicubic", "upscale_method": "bicubic"},
    },
}
FRAMES, HEIGHT, WIDTH = 2, 8, 16  # cells


def weights():
    """Activations stay near one and everything counts: gates, norms, attention."""
    model, generator = SVDUNet(CONFIG), torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        fan = parameter[0].numel() if parameter.dim() > 1 else 1.0
        parameter.data.normal_(0, 1.5 / fan**0.5 if fan > 1 else 1.0, generator=generator)
    return model.state_dict()


def load_both(bench, folder):
    """(ours, the host's) MODELs of one file, which is gone afterwards: weights stay mapped."""
    import comfy.sd
    import comfy.supported_models

    path = folder / NAME
    save_file({f"model.diffusion_model.{key}": value for key, value in weights().items()}, path)
    choice = {"model": f"SVD/{NAME}", "image_encoder": SVD, "vae": SVD, "weight_dtype": "fp32"}
    ours = run(bench.ours["SVDLoader"], **choice)[0]
    with pytest.MonkeyPatch.context() as patch:
        known = comfy.supported_models.SVD_img2vid.unet_config
        for name, value in {"model_channels": CONFIG.channels[0], "context_dim": CONFIG.context_dim}.items():
            patch.setitem(known, name, value)
        options = {"dtype": torch.float32}
        loaded = comfy.sd.load_checkpoint_guess_config(
            str(path), output_vae=False, output_clip=False, model_options=options
        )
    assert type(loaded[0].model).__name__ == "SVD_img2vid"
    return ours, loaded[0]


def patched(model, name, **settings):
    """A MODEL behind a node of the host."""
    file, kind = name.split(".")
    node = getattr(import_module(f"comfy_extras.nodes_{file}"), kind)
    given = node.execute(model=model, **{**NODES.get(name, {}), **settings})
    return getattr(given, "args", given)[0]


def inputs(clips=1, frames=FRAMES, images=()):
    """What both networks are called with."""
    generator = torch.Generator().manual_seed(1)
    n = clips * frames
    indicator = torch.zeros(clips, frames)
    indicator[:, list(images)] = 1.0
    return {
        "x": torch.randn(n, 8, HEIGHT, WIDTH, generator=generator),
        "timestep": torch.tensor([1.3, -0.4])[:clips].repeat_interleave(frames),
        "num_video_frames": frames,
        "image_only_indicator": indicator,
        "context": torch.randn(n, 1, CONFIG.context_dim, generator=generator),
        "y": torch.randn(n, CONFIG.adm_dim, generator=generator),
    }


def forward(model, given, options=None, control=None):
    """v of the network of a MODEL, ours or the host's."""
    x, timestep = given["x"].clone(), given["timestep"]
    rest = {name: value for name, value in given.items() if name not in ("x", "timestep")}
    with torch.inference_mode():
        return model.model.diffusion_model(
            x, timestep, control=control, transformer_options={} if options is None else options, **rest
        )


def conditioning(seed):
    """As SVD_img2vid_Conditioning gives it."""
    generator = torch.Generator().manual_seed(seed)
    context = torch.randn(1, 1, CONFIG.context_dim, generator=generator)
    image = torch.randn(1, 4, HEIGHT, WIDTH, generator=generator)
    return [
        [
            context,
            {"motion_bucket_id": 127, "fps": 6, "augmentation_level": 0.0, "concat_latent_image": image},
        ]
    ]


def sampled(model, cfg=2.5, **changes):
    """Three steps with guidance, as KSampler makes them."""
    import comfy.sample

    empty = torch.zeros(FRAMES, 4, HEIGHT, WIDTH)
    conds = {"positive": conditioning(2), "negative": conditioning(3), **changes}
    with torch.inference_mode():
        noise = comfy.sample.prepare_noise(empty, 7)
        return comfy.sample.sample(
            model,
            noise,
            steps=3,
            cfg=cfg,
            sampler_name="euler",
            scheduler="karras",
            latent_image=empty,
            seed=7,
            disable_pbar=True,
            **conds,
        )
