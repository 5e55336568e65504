"""One loader per kind of checkpoint: files in, MODEL, CLIP and VAE of the host out."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch

from ..modules.catalogue import CATALOGUE
from ..modules.encoders.clip_vision import to_hugging_face
from ..modules.families import COGVIDEOX, FAMILIES, SVD
from ..modules.families.family import Family, NoiseSchedule
from ..modules.families.svd.exvideo import check_clip
from ..modules.sampling.schedules import alphas_cumprod
from ..modules.weights.detect import Finding, choose, detect
from ..modules.weights.errors import CheckpointError
from ..modules.weights.files import FileIdentity, read_header
from ..modules.weights.load import Source, assign, find_source, part_identity
from ..modules.weights.part import Kind
from .host import backend, clip_vision, diffusion, files, patching, vae
from .host import text_encoder as clip
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


def find_part(model: str, chosen: str, kind: Kind) -> Path:
    """Where one part of a pipeline lies.

    `chosen` is a name from the model folders, or FROM_MODEL for the part that came with the model.
    """
    own = chosen in (FROM_MODEL, FROM_CHECKPOINT)
    found = files.find_model(model, ("diffusion_model",)) if own else files.find_model(chosen, (kind,))
    path = files.part_path(found, kind)
    if chosen == FROM_MODEL and kind != "diffusion_model" and not path.is_dir():
        raise ValueError(
            f"'{model}' is a single file: it brings no {kind.replace('_', ' ')}. Choose one by name, or a "
            "diffusers folder as the model."
        )
    return path


def examine(family: Family, model: str, chosen: str, kind: Kind) -> tuple[Path, Finding]:
    """(path, what it is) of one part of a pipeline; CheckpointError unless it is a complete one."""
    path = find_part(model, chosen, kind)
    return path, choose(read_header(path), FAMILIES, family, kind)


def source_of(family: Family, model: str, chosen: str, kind: Kind) -> Source:
    """One part of a pipeline to load from; CheckpointError unless it is a complete one."""
    return find_source(find_part(model, chosen, kind), FAMILIES, family, kind, backend.maps_weights())


def fingerprint(model: str | None, **chosen: str | None) -> list[FileIdentity]:
    """What the files of a model and of its chosen parts (kind -> choice) are now: others are loaded again.

    Names that are linked arrive as None and cannot be looked up.
    """
    asked = {"diffusion_model": model, **chosen}
    parts = [(choice, kind) for kind, choice in asked.items() if choice is not None and model is not None]
    return [seen for choice, kind in parts for seen in part_identity(find_part(model, choice, kind))]


def load_model(family: Family, model: str, weight_dtype: str) -> object:
    """The MODEL of a family's diffusion network."""
    source = source_of(family, model, model, "diffusion_model")
    finding = source.finding
    schedule = family.schedule(finding.config)
    recipe = diffusion.ModelRecipe(
        family=family,
        part=finding.part,
        config=finding.config,
        alphas_cumprod=alphas_cumprod(schedule) if isinstance(schedule, NoiseSchedule) else None,
        fill=source.fill,
        check=source.check,
        notes=source.notes,
        weight_dtype=getattr(torch, finding.dtype),
        parameters=finding.parameters,
        dtype=WEIGHT_DTYPES[weight_dtype],
    )
    return diffusion.load_model(recipe)


def load_text_encoder(model: str, text_encoder: str, max_tokens: int) -> object:
    """The CLIP of a T5 encoder that pads and cuts prompts to what the transformer was trained on."""
    source = source_of(COGVIDEOX, model, text_encoder, "text_encoder")
    recipe = clip.TextRecipe(
        sizes=source.finding.config,
        open_weights=source.open,
        weight_dtype=getattr(torch, source.finding.dtype),
        parameters=source.finding.parameters,
        max_tokens=max_tokens,
        check=source.check,
    )
    return clip.load_clip(recipe)


def load_video_vae(model: str, chosen: str) -> object:
    """The VAE of a causal video VAE."""
    source = source_of(COGVIDEOX, model, chosen, "vae")
    config = source.finding.config
    grid = dataclasses.replace(COGVIDEOX.grid, channels=config.latent_channels, patch_hw=1)
    return vae.VideoVAE(
        vae.VAERecipe(source.finding.part, config, grid, source.fill, source.check, source.notes)
    )


def load_image_encoder(model: str, chosen: str) -> object:
    """The CLIP_VISION of an SVD checkpoint."""
    source = source_of(SVD, model, chosen, "image_encoder")
    config = source.finding.config

    def open_weights() -> dict[str, torch.Tensor]:
        return to_hugging_face(source.open(), config)

    return clip_vision.load_clip_vision(
        clip_vision.VisionRecipe(config, open_weights, source.finding.name, source.check, source.notes)
    )


def load_frames_vae(model: str, chosen: str) -> object:
    """The VAE of an SVD checkpoint.

    A single file holds two encoders: the one that the picture was encoded with in training is used, as diffusers
    does. Raises CheckpointError when it is there but not complete.
    """
    source = source_of(SVD, model, chosen, "vae")
    name, config, fill = source.finding.name, source.finding.config, source.fill
    picture = detect(read_header(source.path), (SVD,), "image_vae")
    if picture.kind == "image_vae":
        config = dataclasses.replace(config, quant_conv=picture.check().config.quant_conv)
        if config != picture.config:
            raise CheckpointError(
                f"{name} holds two image encoders of different sizes: {config}, {picture.config}."
            )
        fill = merged_filler(source, dataclasses.replace(source, finding=picture))
    grid = dataclasses.replace(SVD.grid, patch_hw=1)
    return vae.FramesVAE(vae.VAERecipe(source.finding.part, config, grid, fill, source.check))


def merged_filler(video: Source, picture: Source) -> Callable:
    """A function that fills a VAE with the decoder of one part of a file and the encoder of another."""

    def fill(module: torch.nn.Module, dtype: torch.dtype) -> None:
        decoder = {key: value for key, value in video.open().items() if key.startswith("decoder.")}
        assign(module, {**decoder, **picture.open()}, dtype)

    return fill


def list_models(family: Family, kind: Kind, kinds: tuple[Kind, ...] = ()) -> list[str]:
    """Files and folders where `kinds` of parts lie, but for those that surely hold no `kind` of this family."""

    def is_others(path: Path) -> bool:
        return CATALOGUE.is_others(files.part_path(path, kind), family.id, kind)

    return files.list_models(kinds or (kind,), unless=is_others)


def part_input(family: Family, kind: Kind, own: str, kinds: tuple[Kind, ...], tooltip: str) -> io.Combo.Input:
    """Where a part comes from: `own`, which is with the model, or a file from where `kinds` of parts lie."""
    options = [own, *list_models(family, kind, kinds)]
    return io.Combo.Input(kind, options=options, default=own, tooltip=tooltip)


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
                    options=list_models(COGVIDEOX, "diffusion_model"),
                    tooltip="Transformer file, or a diffusers folder that holds all three parts. Looked for in "
                    "diffusion_models, checkpoints and CogVideo.",
                ),
                part_input(
                    COGVIDEOX,
                    "text_encoder",
                    FROM_MODEL,
                    ("vae", "text_encoder"),
                    "T5 v1.1 encoder, such as t5xxl_fp16.safetensors in text_encoders.",
                ),
                part_input(
                    COGVIDEOX,
                    "vae",
                    FROM_MODEL,
                    ("vae", "text_encoder"),
                    "CogVideoX 3D VAE, in vae or CogVideo.",
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
    def fingerprint_inputs(cls, model=None, text_encoder=None, vae=None, **_) -> list[FileIdentity]:
        """Load again when a file was replaced under its name."""
        return fingerprint(model, text_encoder=text_encoder, vae=vae)

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
                    options=list_models(SVD, "diffusion_model"),
                    tooltip="Checkpoint file or diffusers folder. Looked for in checkpoints, diffusion_models and "
                    "SVD.",
                ),
                part_input(
                    SVD,
                    "image_encoder",
                    FROM_CHECKPOINT,
                    ("image_encoder",),
                    "CLIP ViT-H/14 of the checkpoint, or another file that holds it.",
                ),
                part_input(
                    SVD,
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
    def fingerprint_inputs(cls, model=None, image_encoder=None, vae=None, **_) -> list[FileIdentity]:
        """Load again when a file was replaced under its name."""
        return fingerprint(model, image_encoder=image_encoder, vae=vae)

    @classmethod
    @checked
    def execute(cls, model: str, image_encoder: str, vae: str, weight_dtype: str) -> io.NodeOutput:
        patcher = load_model(SVD, model, weight_dtype)
        if patcher.model.recipe.config.exvideo:
            patching.guard_clips(patcher, check_clip)
        return io.NodeOutput(
            patcher,
            load_image_encoder(model, image_encoder),
            load_frames_vae(model, vae),
        )


NODES = [CogVideoXLoader, SVDLoader]
