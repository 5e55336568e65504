"""One loader per kind of checkpoint: files in, MODEL, CLIP and VAE of the host out."""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from ..modules.families import COGVIDEOX, SVD
from ..modules.families.clip_vision import to_hugging_face
from ..modules.families.family import Family, NoiseSchedule
from ..modules.sampling.schedules import alphas_cumprod
from ..modules.weights.detect import Finding, detect
from ..modules.weights.files import read_header
from ..modules.weights.load import assign, open_part
from ..modules.weights.part import Kind
from ..modules.weights.trouble import CheckpointError
from .host import clip, clip_vision, diffusion, files, vae
from .host.api import io
from .host.checks import checked, guarded

FROM_MODEL = "from the model's folder"
FROM_CHECKPOINT = "from the checkpoint"  # the same, where a single file may hold all parts
WEIGHT_DTYPES = {
    "auto": None,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp32": torch.float32,
    "fp8_e4m3fn": torch.float8_e4m3fn,
}


def examine(family: Family, model: str, chosen: str, kind: Kind) -> tuple[Path, Finding]:
    """(path, what it is) of one part of a pipeline; CheckpointError unless it is a complete one.

    `chosen` is a name from the model folders, or FROM_MODEL for the part that came with the model.
    """
    own = chosen in (FROM_MODEL, FROM_CHECKPOINT)
    path = files.part_path(files.find_model(model if own else chosen, files.FOLDERS), kind)
    if chosen == FROM_MODEL and kind != "diffusion_model" and not path.is_dir():
        raise ValueError(
            f"'{model}' is a single file: it brings no {kind.replace('_', ' ')}. Choose one by name, or a "
            "diffusers folder as the model."
        )
    return path, detect(read_header(path), (family,), kind).check()


def weight_filler(path: Path, finding: Finding) -> Callable[[torch.nn.Module, torch.dtype], None]:
    """A function that gives a meta module the weights of a checkpoint, mapped from disk."""
    return lambda module, dtype: assign(module, open_part(path, finding), dtype)


def load_model(family: Family, model: str, weight_dtype: str) -> object:
    """The MODEL of a family's diffusion network."""
    path, finding = examine(family, model, model, "diffusion_model")
    schedule = family.schedule(finding.config)
    recipe = diffusion.ModelRecipe(
        family=family,
        part=finding.part,
        config=finding.config,
        alphas_cumprod=alphas_cumprod(schedule) if isinstance(schedule, NoiseSchedule) else None,
        fill=weight_filler(path, finding),
        weight_dtype=getattr(torch, finding.dtype),
        parameters=finding.parameters,
        dtype=WEIGHT_DTYPES[weight_dtype],
    )
    return diffusion.load_model(recipe)


def load_text_encoder(model: str, text_encoder: str, max_tokens: int) -> object:
    """The CLIP of a T5 encoder that pads and cuts prompts to what the transformer was trained on."""
    path, finding = examine(COGVIDEOX, model, text_encoder, "text_encoder")
    recipe = clip.TextRecipe(
        sizes=finding.config,
        open_weights=partial(open_part, path, finding),
        weight_dtype=getattr(torch, finding.dtype),
        parameters=finding.parameters,
        max_tokens=max_tokens,
    )
    return clip.load_clip(recipe)


def load_video_vae(model: str, chosen: str) -> object:
    """The VAE of a causal video VAE."""
    path, finding = examine(COGVIDEOX, model, chosen, "vae")
    grid = dataclasses.replace(COGVIDEOX.grid, channels=finding.config.latent_channels, patch_hw=1)
    return vae.VideoVAE(vae.VAERecipe(finding.part, finding.config, grid, weight_filler(path, finding)))


def load_image_encoder(model: str, chosen: str) -> object:
    """The CLIP_VISION of an SVD checkpoint."""
    path, finding = examine(SVD, model, chosen, "image_encoder")

    def open_weights() -> dict[str, torch.Tensor]:
        return to_hugging_face(open_part(path, finding), finding.config)

    return clip_vision.load_clip_vision(clip_vision.VisionRecipe(finding.config, open_weights, path.name))


def load_frames_vae(model: str, chosen: str) -> object:
    """The VAE of an SVD checkpoint.

    A single file holds two encoders: the one that the picture was encoded with in training is used, as diffusers
    does. Raises CheckpointError when it is there but not complete.
    """
    path, finding = examine(SVD, model, chosen, "vae")
    config, fill = finding.config, weight_filler(path, finding)
    picture = detect(read_header(path), (SVD,), "image_vae")
    if picture.kind == "image_vae":
        config = dataclasses.replace(config, quant_conv=picture.check().config.quant_conv)
        if config != picture.config:
            raise CheckpointError(
                f"{path.name} holds two image encoders of different sizes: {config}, {picture.config}."
            )
        fill = merged_filler(path, finding, picture)
    grid = dataclasses.replace(SVD.grid, patch_hw=1)
    return vae.FramesVAE(vae.VAERecipe(finding.part, config, grid, fill))


def merged_filler(path: Path, clip: Finding, picture: Finding) -> Callable:
    """A function that fills a VAE with the decoder of one part of a file and the encoder of another."""

    def fill(module: torch.nn.Module, dtype: torch.dtype) -> None:
        decoder = {key: value for key, value in open_part(path, clip).items() if key.startswith("decoder.")}
        assign(module, {**decoder, **open_part(path, picture)}, dtype)

    return fill


def part_input(name: str, own: str, kinds: tuple[Kind, ...], tooltip: str) -> io.Combo.Input:
    """Where a part comes from: `own`, which is with the model, or a file that may hold one of `kinds`."""
    return io.Combo.Input(name, options=[own, *files.list_models(kinds)], default=own, tooltip=tooltip)


def weight_dtype_input() -> io.Combo.Input:
    """How the diffusion network's weights are kept."""
    return io.Combo.Input(
        "weight_dtype",
        options=list(WEIGHT_DTYPES),
        default="auto",
        advanced=True,
        tooltip="How the diffusion model's weights are kept. auto: as ComfyUI chooses for this device; fp8 halves "
        "their memory and changes the picture a little.",
    )


def parts_problem(family: Family, model: str, **chosen: str) -> str | None:
    """Why a model and its chosen parts (kind -> choice) are of no use, from their headers alone; None when they are."""
    try:
        examine(family, model, model, "diffusion_model")
        for kind, choice in chosen.items():
            examine(family, model, choice, kind)
    except ValueError as error:
        return str(error)
    return None


class CogVideoXLoader(io.ComfyNode):
    """Loads CogVideoX 2B, 5B, 5B-I2V, 1.5-5B and 1.5-5B-I2V (arXiv 2408.06072) for the host's own nodes."""

    @classmethod
    @guarded
    def define_schema(cls) -> io.Schema:
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
                part_input(
                    "text_encoder",
                    FROM_MODEL,
                    ("vae", "text_encoder"),
                    "T5 v1.1 encoder, such as t5xxl_fp16.safetensors in text_encoders.",
                ),
                part_input(
                    "vae", FROM_MODEL, ("vae", "text_encoder"), "CogVideoX 3D VAE, in vae or CogVideo."
                ),
                weight_dtype_input(),
            ],
            outputs=[
                io.Model.Output("MODEL", tooltip="The transformer."),
                io.Clip.Output("CLIP", tooltip="The text encoder, for CLIP Text Encode."),
                io.Vae.Output("VAE", tooltip="The 3D causal VAE."),
            ],
        )

    @classmethod
    def validate_inputs(cls, model=None, text_encoder=None, vae=None) -> bool | str:
        """Read the headers when the prompt is posted: a wrong file is an error before anything runs."""
        return parts_problem(COGVIDEOX, model, text_encoder=text_encoder, vae=vae) or True

    @classmethod
    @checked
    def execute(cls, model: str, text_encoder: str, vae: str, weight_dtype: str) -> io.NodeOutput:
        patcher = load_model(COGVIDEOX, model, weight_dtype)
        max_tokens = patcher.model.recipe.config.max_text_tokens
        return io.NodeOutput(
            patcher, load_text_encoder(model, text_encoder, max_tokens), load_video_vae(model, vae)
        )


class SVDLoader(io.ComfyNode):
    """Loads Stable Video Diffusion (arXiv 2311.15127): svd, svd_xt and XT 1.1, single files and diffusers folders."""

    @classmethod
    @guarded
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KinetographSVDLoader",
            display_name="SVD Loader",
            category="kinetograph/loaders",
            description="Load a Stable Video Diffusion checkpoint: svd, svd_xt or XT 1.1, one file or a diffusers "
            "folder.",
            search_aliases=[
                "stable video diffusion",
                "svd_xt",
                "img2vid",
                "image only checkpoint loader",
            ],
            inputs=[
                io.Combo.Input(
                    "model",
                    options=files.list_models(("diffusion_model",)),
                    tooltip="Checkpoint file or diffusers folder. Looked for in checkpoints, diffusion_models and "
                    "SVD.",
                ),
                part_input(
                    "image_encoder",
                    FROM_CHECKPOINT,
                    ("image_encoder",),
                    "CLIP ViT-H/14 of the checkpoint, or another file that holds it.",
                ),
                part_input(
                    "vae",
                    FROM_CHECKPOINT,
                    ("vae",),
                    "The VAE with the temporal decoder, or another file that holds it.",
                ),
                weight_dtype_input(),
            ],
            outputs=[
                io.Model.Output("MODEL", tooltip="The UNet."),
                io.ClipVision.Output("CLIP_VISION", tooltip="The image encoder, for SVD Conditioning."),
                io.Vae.Output("VAE", tooltip="Image encoder and temporal decoder."),
            ],
        )

    @classmethod
    def validate_inputs(cls, model=None, image_encoder=None, vae=None) -> bool | str:
        """Read the headers when the prompt is posted: a wrong file is an error before anything runs."""
        return parts_problem(SVD, model, image_encoder=image_encoder, vae=vae) or True

    @classmethod
    @checked
    def execute(cls, model: str, image_encoder: str, vae: str, weight_dtype: str) -> io.NodeOutput:
        return io.NodeOutput(
            load_model(SVD, model, weight_dtype),
            load_image_encoder(model, image_encoder),
            load_frames_vae(model, vae),
        )


NODES = [CogVideoXLoader, SVDLoader]
