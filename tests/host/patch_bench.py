"""A network of the host's and ours with the same weights, and every host node that takes a MODEL and gives one."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from kinetograph.modules.families.cogvideox.keys import COMFY
from kinetograph.modules.families.svd import keys
from kinetograph.tests import tiny, tiny_svd
from kinetograph.tests.host.workbench import SVD, SVDWorkbench, run

MODEL = "MODEL"
CFG, LEVELS = 2.5, (30.0, 12.0, 4.0, 0.0)
# FreeU acts at twice and at four times the first width
WIDTHS, HEAD = (32, 64, 128, 128), 16
UNET = {
    "block_out_channels": WIDTHS,
    "num_attention_heads": tuple(width // HEAD for width in WIDTHS),
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 768,
}
COG = "1.5-5B"  # the one text-to-video variant of which the host's own network is exact
TOKENS = 8


def model_nodes(host):
    """The host's nodes, without those of any pack, that take a MODEL and give one: id -> class."""
    import nodes

    with pytest.MonkeyPatch.context() as patch:
        # `nodes` puts the host's comfy/ in front, whose utils.py would hide the package utils/
        patch.syspath_prepend(str(host))
        import utils.install_util  # noqa: F401

        asyncio.run(nodes.init_extra_nodes(init_custom_nodes=False, init_api_nodes=False))
    return {
        name: kind
        for name, kind in sorted(nodes.NODE_CLASS_MAPPINGS.items())
        if MODEL in outputs_of(kind) and any(word == MODEL for word, _ in inputs_of(kind).values())
    }


def inputs_of(kind):
    """Name -> (type or choices, options) of a node's inputs, as object_info has them."""
    groups = kind.INPUT_TYPES()
    rows = {**groups.get("required", {}), **groups.get("optional", {})}
    return {name: (row[0], row[1] if len(row) > 1 else {}) for name, row in rows.items()}


def outputs_of(kind):
    return [str(word) for word in kind.RETURN_TYPES]


def apply(kind, given):
    """The MODEL that a node makes; some nodes of the newer interface return a plain tuple."""
    with torch.inference_mode():
        if hasattr(kind, "execute"):
            outputs = kind.execute(**given)
        else:
            outputs = getattr(kind(), kind.FUNCTION)(**given)
    return getattr(outputs, "args", outputs)[outputs_of(kind).index(MODEL)]


class Partial:
    """A MODEL that shows a node few of its weights: the host takes seconds to merge a thousand."""

    def __init__(self, model, names):
        self.whole, self.model, self.names = model, model.model, set(names)

    def clone(self):
        return self.whole.clone()

    def model_state_dict(self):
        return self._shown(self.whole.model_state_dict())

    def get_key_patches(self, prefix=None):
        return self._shown(self.whole.get_key_patches(prefix))

    def _shown(self, weights):
        return {name: value for name, value in weights.items() if name in self.names}


@dataclass(frozen=True)
class Clip:
    """A latent to sample, and a positive, a negative and an empty conditioning for it."""

    latent: dict[str, Any]
    prompts: tuple[Any, Any, Any]


@dataclass(frozen=True)
class Pair:
    """Two networks of one kind with the same weights, as MODELs, and clips for both."""

    family: str
    theirs: Any  # None where the host has no such network
    ours: Any
    bench: Any
    clips: dict[str, Clip]

    def names(self, model):
        """What our names of weights are called in one of the two MODELs."""
        ours = [name for name, _ in self.ours.model.diffusion_model.named_parameters()]
        here = dict(model.model.diffusion_model.named_parameters())
        return (
            {name: name for name in ours}
            if set(ours) == set(here)
            else COMFY.reverse().rename(dict.fromkeys(ours))
        )

    def named(self, model, layers):
        """What the weights of some of our layers are called in one of the two MODELs."""
        names = self.names(model)
        return [f"diffusion_model.{names[f'{layer}.weight']}" for layer in layers]

    def merged(self, model, layers):
        """Those weights as a run would use them, one behind the other."""
        import comfy.lora

        weights = model.model_state_dict()
        return torch.cat(
            [
                comfy.lora.calculate_weight(
                    model.patches.get(name, []), weights[name].clone(), name
                ).flatten()
                for name in self.named(model, layers)
            ]
        )

    def sample(self, model, steps=1, clip="plain", masked=False):
        """Latents after some steps of the host's own sampling with guidance, from high to low noise."""
        import comfy.sample
        import comfy.samplers

        start = self.clips[clip].latent["samples"]
        noise = torch.randn(start.shape, generator=torch.Generator().manual_seed(7))
        mask = torch.linspace(0.3, 1.0, start.shape[-1]).expand(1, 1, *start.shape[-2:]) if masked else None
        positive, negative, _ = self.clips[clip].prompts
        euler, levels = comfy.samplers.sampler_object("euler"), torch.tensor(LEVELS[-steps - 1 :])
        torch.manual_seed(0)  # of what nodes draw
        with torch.inference_mode():
            return comfy.sample.sample_custom(
                *(model, noise, CFG, euler, levels, positive, negative, start),
                noise_mask=mask,
                disable_pbar=True,
                seed=7,
            )


@torch.no_grad()
def randomise(model, seed=0):
    """Weights of unit gain, norms near 1 and small biases: the host's own rounding then stays near 1e-6."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        spread = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
        if "norm" in name and name.endswith("weight"):
            parameter += 1
    return model.eval()


def svd_file(folder):
    """A UNet in the original layout, of numbers that the host knows."""
    from diffusers import UNetSpatioTemporalConditionModel

    folder.mkdir(exist_ok=True)
    model = randomise(UNetSpatioTemporalConditionModel(**{**tiny_svd.UNET, **UNET}))
    tensors = tiny_svd.renamed(model, keys.DIFFUSERS)
    path = folder / "tiny-patched-svd.safetensors"
    tensors = {f"model.diffusion_model.{key}": value.clone() for key, value in tensors.items()}
    save_file(tensors, path, metadata={"config": json.dumps(tiny_svd.SETTINGS)})
    return path


def hosts_svd(path):
    """The MODEL of the host's checkpoint loaders, told that SVD may be this narrow."""
    import comfy.sd
    import comfy.supported_models

    narrow = {"model_channels": WIDTHS[0], "context_dim": tiny_svd.CONTEXT}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(comfy.supported_models.SVD_img2vid.unet_extra_config, "num_head_channels", HEAD)
        for name, value in narrow.items():
            patch.setitem(comfy.supported_models.SVD_img2vid.unet_config, name, value)
        return comfy.sd.load_checkpoint_guess_config(
            str(path), output_vae=False, output_clip=False, model_options={"dtype": torch.float32}
        )[0]


def svd_clip(bench, **size):
    latent = bench.empty(**size)
    positive, negative = bench.condition(latent)
    return Clip(latent, (positive, negative, bench.condition(latent, bench.picture(seed=1))[0]))


def svd_pair(base):
    bench = SVDWorkbench()
    path = svd_file(base / "models" / "checkpoints")
    parts = {"image_encoder": SVD, "vae": SVD, "weight_dtype": "fp32"}
    ours = run(bench.ours["SVDLoader"], model=path.name, **parts)[0]
    # the second of sizes at which SelfAttentionGuidance works in the host's SVD at all
    clips = {
        "plain": svd_clip(bench, frames=2, size=64, height=128),
        "square": svd_clip(bench, frames=4, size=64),
    }
    return Pair("svd", hosts_svd(path), ours, bench, clips)


def hosts_cogvideox(weights, sampling):
    """ComfyUI's own 1.5 transformer with our model sampling: its own is one that KSampler cannot use."""
    import comfy.model_patcher
    import comfy.supported_models

    # the class takes the scale of latents of the number of heads
    config = comfy.supported_models.CogVideoX_T2V({"image_model": "cogvideox", "num_attention_heads": 48})
    sizes = ("num_attention_heads", "attention_head_dim", "num_layers", "time_embed_dim", "text_embed_dim")
    config.unet_config.update({name: tiny.TRANSFORMER[name] for name in sizes})
    config.unet_config.update(in_channels=16, patch_size=2, patch_size_t=2, dtype=torch.float32)
    config.unet_config.update(use_rotary_positional_embeddings=True, use_learned_positional_embeddings=False)
    model = config.get_model({}, device="cpu")
    names = COMFY.reverse().rename(weights)
    model.diffusion_model.load_state_dict({names[key]: value.clone() for key, value in weights.items()})
    model.diffusion_model.eval().requires_grad_(False)
    model.model_sampling = sampling
    cpu = torch.device("cpu")
    return comfy.model_patcher.CoreModelPatcher(model, load_device=cpu, offload_device=cpu)


def cogvideox_pair(base):
    bench = SVDWorkbench()
    folder = base / "models" / "CogVideo" / "tiny-patched-cog" / "transformer"
    randomise(tiny.transformer(COG)).save_pretrained(folder)
    ours = bench.load(model=f"CogVideo/{folder.parent.name}")[0]
    try:
        import comfy.ldm.cogvideo  # noqa: F401
    except ImportError:
        theirs = None
    else:
        theirs = hosts_cogvideox(load_file(tiny.weights_of(folder)), ours.model.model_sampling)
    generator = torch.Generator().manual_seed(1)
    shape = 1, TOKENS, tiny.TEXT_WIDTH
    prompts = tuple([[torch.randn(shape, generator=generator), {}]] for _ in range(3))
    clip = Clip({"samples": torch.zeros(1, 16, 4, 8, 8)}, prompts)
    return Pair("cogvideox", theirs, ours, bench, {"plain": clip, "square": clip})
