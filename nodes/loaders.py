"""One loader per kind of checkpoint: files in, MODEL, CLIP and VAE of the host out."""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from ..modules.families import COGVIDEOX
from ..modules.sampling.schedules import alphas_cumprod
from ..modules.weights.detect import Finding, detect
from ..modules.weights.files import read_header
from ..modules.weights.load import assign, open_part
from ..modules.weights.part import Kind
from .host import clip, diffusion, files, vae
from .host.api import io

FROM_MODEL = "from the model's folder"
WEIGHT_DTYPES = {
    "auto": None,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp32": torch.float32,
    "fp8_e4m3fn": torch.float8_e4m3fn,
}


def examine(model: str, chosen: str, kind: Kind) -> tuple[Path, Finding]:
    """(path, what it is) of one part of a pipeline; CheckpointError unless it is a complete one.

    `chosen` is a name from the model folders, or FROM_MODEL for the part beside the transformer.
    """
    name = model if chosen == FROM_MODEL else chosen
    path = files.part_path(files.find_model(name, files.FOLDERS), kind)
    if chosen == FROM_MODEL and kind != "diffusion_model" and not path.is_dir():
        raise ValueError(
            f"'{model}' is a single file: it brings no {kind.replace('_', ' ')}. Choose one by name, or a "
            "diffusers folder as the model."
        )
    return path, detect(read_header(path), (COGVIDEOX,), kind).check()


def weight_filler(path: Path, finding: Finding) -> Callable[[torch.nn.Module, torch.dtype], None]:
    """A function that gives a meta module the weights of a checkpoint, mapped from disk."""
    return lambda module, dtype: assign(module, open_part(path, finding), dtype)


def load_model(model: str, weight_dtype: str) -> object:
    """The MODEL of a CogVideoX transformer."""
    path, finding = examine(model, model, "diffusion_model")
    recipe = diffusion.ModelRecipe(
        family=COGVIDEOX,
        part=finding.part,
        config=finding.config,
        alphas_cumprod=alphas_cumprod(COGVIDEOX.schedule(finding.config)),
        fill=weight_filler(path, finding),
        weight_dtype=getattr(torch, finding.dtype),
        parameters=finding.parameters,
        dtype=WEIGHT_DTYPES[weight_dtype],
    )
    return diffusion.load_model(recipe)


def load_text_encoder(model: str, text_encoder: str, max_tokens: int) -> object:
    """The CLIP of a T5 encoder that pads and cuts prompts to what the transformer was trained on."""
    path, finding = examine(model, text_encoder, "text_encoder")
    recipe = clip.TextRecipe(
        sizes=finding.config,
        open_weights=partial(open_part, path, finding),
        weight_dtype=getattr(torch, finding.dtype),
        parameters=finding.parameters,
        max_tokens=max_tokens,
    )
    return clip.load_clip(recipe)


def load_vae(model: str, chosen: str) -> object:
    """The VAE of a causal video VAE."""
    path, finding = examine(model, chosen, "vae")
    grid = dataclasses.replace(COGVIDEOX.grid, channels=finding.config.latent_channels, patch_hw=1)
    return vae.VideoVAE(vae.VAERecipe(finding.part, finding.config, grid, weight_filler(path, finding)))


class CogVideoXLoader(io.ComfyNode):
    """Loads CogVideoX 2B, 5B, 5B-I2V, 1.5-5B and 1.5-5B-I2V (arXiv 2408.06072) for the host's own nodes."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        parts = files.list_models(("vae", "text_encoder"))
        return io.Schema(
            node_id="KinetographCogVideoXLoader",
            display_name="CogVideoX Loader",
            category="kinetograph/loaders",
            description="Load a CogVideoX checkpoint: a diffusers folder, or single files.",
            search_aliases=["cogvideo", "cogvideox", "text to video", "image to video"],
            inputs=[
                io.Combo.Input(
                    "model",
                    options=files.list_models(("diffusion_model",)),
                    tooltip="Transformer file, or a diffusers folder that holds all three parts. Looked for in "
                    "diffusion_models, checkpoints and CogVideo.",
                ),
                io.Combo.Input(
                    "text_encoder",
                    options=[FROM_MODEL, *parts],
                    default=FROM_MODEL,
                    tooltip="T5 v1.1 encoder, such as t5xxl_fp16.safetensors in text_encoders.",
                ),
                io.Combo.Input(
                    "vae",
                    options=[FROM_MODEL, *parts],
                    default=FROM_MODEL,
                    tooltip="CogVideoX 3D VAE, in vae or CogVideo.",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(WEIGHT_DTYPES),
                    default="auto",
                    advanced=True,
                    tooltip="How the transformer's weights are kept. auto: as ComfyUI chooses for this device; "
                    "fp8 halves their memory and changes the picture a little.",
                ),
            ],
            outputs=[
                io.Model.Output("MODEL", tooltip="The transformer."),
                io.Clip.Output("CLIP", tooltip="The text encoder, for CLIPTextEncode."),
                io.Vae.Output("VAE", tooltip="The 3D causal VAE."),
            ],
        )

    @classmethod
    def validate_inputs(cls, model: str, text_encoder: str, vae: str) -> bool | str:
        """Read the headers when the prompt is posted: a wrong file is an error before anything runs."""
        try:
            examine(model, model, "diffusion_model")
            examine(model, text_encoder, "text_encoder")
            examine(model, vae, "vae")
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, model: str, text_encoder: str, vae: str, weight_dtype: str) -> io.NodeOutput:
        patcher = load_model(model, weight_dtype)
        max_tokens = patcher.model.recipe.config.max_text_tokens
        return io.NodeOutput(
            patcher, load_text_encoder(model, text_encoder, max_tokens), load_vae(model, vae)
        )


NODES = [CogVideoXLoader]
