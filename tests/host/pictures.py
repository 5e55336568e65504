"""Tiny image MODELs of the host, random and in its own key layout, and the prompts that go with them.

`tests/packs/tiny_pictures` hands the same to workflows, as a node pack of its own.
"""

import torch

from kinetograph.tests import tiny, tiny_pixart

CONTEXT, POOLED = 32, 1280
SD15 = {
    **{"image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32, "legacy": False},
    **{"num_res_blocks": [2, 2, 2, 2], "channel_mult": [1, 2, 4, 4], "transformer_depth": [1] * 6 + [0] * 2},
    **{"transformer_depth_output": [1] * 9 + [0] * 3, "transformer_depth_middle": 1, "context_dim": CONTEXT},
    **{"num_heads": 8, "num_head_channels": -1, "use_spatial_transformer": True},
    **{"use_temporal_attention": False, "use_temporal_resblock": False, "use_linear_in_transformer": False},
}
SDXL = {
    **SD15,
    **{"num_res_blocks": [2, 2, 2], "channel_mult": [1, 2, 4], "transformer_depth": [0, 0, 1, 1, 2, 2]},
    **{"transformer_depth_output": [0, 0, 0, 1, 1, 1, 2, 2, 2], "transformer_depth_middle": 2},
    **{"use_linear_in_transformer": True, "adm_in_channels": 2816, "num_classes": "sequential"},
    # 64 channels a head, as the host has it
    **{"num_heads": -1, "num_head_channels": 64},
}
# two levels, as the pocket one has
SMALL = {
    **SD15,
    **{"num_res_blocks": [1, 1], "channel_mult": [1, 2], "transformer_depth": [1, 1]},
    **{"transformer_depth_output": [1] * 4},
}
SIZES = {"SD15": SD15, "SDXL": SDXL, "small": SMALL}
HOST_NAMES = {"small": "SD15"}


def build(kind="SD15", seed=5, disable_dynamic=False, **changes):
    """A MODEL of the host, "SD15", "SDXL" or a "small" SD15, 32 to 128 channels wide; made once more for deep clones."""
    import comfy.model_management
    import comfy.model_patcher
    import comfy.supported_models

    config = getattr(comfy.supported_models, HOST_NAMES.get(kind, kind))({**SIZES[kind], **changes})
    config.unet_config["dtype"] = torch.float32
    model = config.get_model({}, device="cpu")
    tiny.randomise(model.diffusion_model, seed)
    device = comfy.model_management.get_torch_device()
    patcher = comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=torch.device("cpu"))
    patcher.cached_patcher_init = (build, (kind, seed))
    return patcher


def prompts(seed=1, words=5, context=CONTEXT):
    """(positive, negative) CONDITIONINGs of random tokens."""
    generator = torch.Generator().manual_seed(seed)

    def entry():
        pooled = {"pooled_output": torch.randn(1, POOLED, generator=generator)}
        return [[torch.randn(1, words, context, generator=generator), pooled]]

    return entry(), entry()


class Squares(torch.nn.Module):
    """A decoder without weights: the first three channels of a latent cell are the colour of its 8x8 pixels."""

    def decode(self, x_nchw, **options):
        return torch.nn.functional.interpolate(x_nchw[:, :3], scale_factor=8)


def squares_vae():
    """TAESD as the host has it around that decoder, which takes no time."""
    import comfy.sd

    vae = comfy.sd.VAE(sd=tiny_pixart.vae_weights())
    vae.first_stage_model = Squares()
    # -1 .. 1 to 0 .. 1, as for a VAE of Stable Diffusion
    vae.process_output = lambda image: image.add_(1.0).div_(2.0).clamp_(0.0, 1.0)
    return vae
