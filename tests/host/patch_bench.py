"""A network of the host's and ours with the same weights, and every host node that takes a MODEL and gives one."""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from kinetograph.modules.families.cogvideox.keys import COMFY
from kinetograph.modules.families.svd import keys
from kinetograph.tests import tiny, tiny_svd
from kinetograph.tests.host.workbench import SVD, SVDWorkbench, run

MODEL = "MODEL"
# FreeU acts at twice and at four times the first width
WIDTHS, HEAD = (32, 64, 128, 128), 16
UNET = {
    "block_out_channels": WIDTHS,
    "num_attention_heads": tuple(width // HEAD for width in WIDTHS),
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 768,
}
COG = "1.5-5B"  # the one text-to-video variant of which the host's own network is exact
MERGED = ("_blocks.0.0.weight", "_block.1.proj_in.weight", "out.2.weight", "embed.0.weight", "ff.net.2.weight", "proj_out.weight")
CFG, SIGMAS = 2.5, (20.0, 4.0, 0.8, 0.0)


def model_nodes(host):
    """The host's nodes, without those of any pack, that take a MODEL and give one: id -> class."""
    import nodes

    with pytest.MonkeyPatch.context() as patch:
        # `nodes` puts the host's comfy/ in front, whose utils.py would hide the package utils/
        patch.syspath_prepend(str(host))
        import utils.install_util  # noqa: F401

        asyncio.run(nodes.init_extra_nodes(init_custom_nodes=False, init_api_nodes=False))
    own = {name: kind for name, kind in nodes.NODE_CLASS_MAPPINGS.items() if not name.startswith("Kinetograph")}
    return {
        name: kind
        for name, kind in sorted(own.items())
        if MODEL in outputs_of(kind) and any(word == MODEL for word, _ in inputs_of(kind).values())
    }


def inputs_of(kind):
    """Name -> (type or choices, options) of a node's inputs, as its page in object_info has them."""
    groups = kind.INPUT_TYPES()
    rows = {**groups.get("required", {}), **groups.get("optional", {})}
    return {name: (row[0], row[1] if len(row) > 1 else {}) for name, row in rows.items()}


def outputs_of(kind):
    return [str(word) for word in kind.RETURN_TYPES]


class Partial:
    """A MODEL to merge from that offers some of its weights: the host takes a second for a thousand of them."""

    def __init__(self, model, keys):
        self.model, self.keys = model, {f"diffusion_model.{key}" for key in keys}

    def get_key_patches(self, prefix=None):
        return {key: value for key, value in self.model.get_key_patches(prefix).items() if key in self.keys}


@dataclass(frozen=True)
class Pair:
    """Two networks of one kind with the same weights, and once more with other weights, as MODELs."""

    family: str
    theirs: tuple[Any, Any] | None  # (MODEL, another), None where the host has none
    ours: tuple[Any, Any]
    bench: Any
    told: tuple[Any, Any]  # positive and negative
    latent: dict[str, Any]

    def names(self, model):
        """What our names of weights are called in a MODEL of this pair."""
        here = dict(model.model.diffusion_model.named_parameters())
        ours = [key for key, _ in self.ours[0].model.diffusion_model.named_parameters()]
        return {key: key for key in ours} if set(ours) <= set(here) else COMFY.reverse().rename(dict.fromkeys(ours))

    def merged_from(self, other):
        """The other MODEL of one side, for merging."""
        names = self.names(other)
        return Partial(other, [names[key] for key in names if key.endswith(MERGED)])

    def sample(self, model, steps=1, mask=None):
        """Latents after one step, or three, from noise of levels at which both sides round alike."""
        import comfy.sample
        import comfy.samplers

        levels = torch.tensor(SIGMAS[-steps - 1 :])
        start = self.latent["samples"]
        noise = torch.randn(start.shape, generator=torch.Generator().manual_seed(7))
        torch.manual_seed(0)  # of what nodes draw
        sampler = comfy.samplers.sampler_object("euler")
        positive, negative = self.told
        with torch.inference_mode():
            return comfy.sample.sample_custom(
                model, noise, CFG, sampler, levels, positive, negative, start, noise_mask=mask, disable_pbar=True, seed=7
            )


@torch.no_grad()
def randomise(model, seed):
    """Weights of unit gain, norms near 1 and small biases: the host's own rounding then stays near 1e-6."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        spread = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
        if "norm" in name and name.endswith("weight"):
            parameter += 1
    return model.eval()


def svd_file(folder, seed):
    """A UNet in the original layout, of heads and numbers that the host knows."""
    from diffusers import UNetSpatioTemporalConditionModel

    model = randomise(UNetSpatioTemporalConditionModel(**{**tiny_svd.UNET, **UNET}), seed)
    tensors = tiny_svd.renamed(model, keys.DIFFUSERS)
    path = folder / f"tiny-patched-svd-{seed}.safetensors"
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


def svd_pair(base):
    bench = SVDWorkbench()
    folder = base / "models" / "checkpoints"
    folder.mkdir(exist_ok=True)
    paths = [svd_file(folder, seed) for seed in (0, 1)]
    parts = {"image_encoder": SVD, "vae": SVD, "weight_dtype": "fp32"}
    ours = tuple(run(bench.ours["SVDLoader"], model=path.name, **parts)[0] for path in paths)
    theirs = tuple(map(hosts_svd, paths))
    latent = bench.empty(frames=3, size=64)
    positive, negative = bench.condition(latent)
    return Pair("svd", theirs, ours, bench, (positive, negative), latent)


def hosts_cogvideox(weights, sampling):
    """ComfyUI's own 1.5 transformer, whose model sampling KSampler cannot use, with ours."""
    import comfy.model_patcher
    import comfy.supported_models

    sizes = tiny.TRANSFORMER
    config = comfy.supported_models.CogVideoX_T2V(
        {
            "image_model": "cogvideox",
            "num_attention_heads": 48,  # of which the class takes the scale of latents
        }
    )
    config.unet_config.update(
        num_attention_heads=sizes["num_attention_heads"],
        attention_head_dim=sizes["attention_head_dim"],
        num_layers=sizes["num_layers"],
        time_embed_dim=sizes["time_embed_dim"],
        text_embed_dim=sizes["text_embed_dim"],
        in_channels=16,
        patch_size=2,
        patch_size_t=2,
        use_rotary_positional_embeddings=True,
        use_learned_positional_embeddings=False,
    )
    config.unet_config["dtype"] = torch.float32
    model = config.get_model({}, device="cpu")
    theirs = COMFY.reverse().rename(weights)
    model.diffusion_model.load_state_dict({theirs[key]: value.clone() for key, value in weights.items()})
    model.model_sampling = sampling
    model.diffusion_model.eval().requires_grad_(False)
    cpu = torch.device("cpu")
    return comfy.model_patcher.CoreModelPatcher(model, load_device=cpu, offload_device=cpu)


def cogvideox_pair(base):
    bench = SVDWorkbench()
    first = base / "models" / "CogVideo" / f"tiny-{COG}"
    second = tiny.write_pipeline(base / "models" / "CogVideo" / "tiny-patched-cog", COG, seed=7)
    ours = tuple(bench.load(model=f"CogVideo/{folder.name}")[0] for folder in (first, second))
    theirs = None
    try:
        import comfy.ldm.cogvideo  # noqa: F401
    except ImportError:
        pass
    else:
        weights = [load_file(tiny.weights_of(folder / "transformer")) for folder in (first, second)]
        theirs = tuple(
            hosts_cogvideox(tensors, model.model.model_sampling)
            for tensors, model in zip(weights, ours, strict=True)
        )
    samples = {"samples": torch.zeros(1, 16, 4, 8, 8)}
    return Pair("cogvideox", theirs, ours, bench, (bench.text(), bench.text("")), samples)


def apply(name, kind, given):
    """The MODEL that a node makes; nodes of any version of the host's interface, that return a plain tuple too."""
    with torch.inference_mode():
        if hasattr(kind, "execute"):
            outputs = kind.execute(**given)
        else:
            outputs = getattr(kind(), kind.FUNCTION)(**given)
    return getattr(outputs, "args", outputs)[outputs_of(kind).index(MODEL)]
