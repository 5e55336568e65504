"""The vision half of OpenCLIP, SVD's image encoder. The host builds it; here it is only recognised.

Radford et al., arXiv 2103.00020; the checkpoint is LAION's, with the exact GELU. Names are those of Hugging
Face's transformers; OpenCLIP's own files keep q, k and v in one matrix and the projection transposed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..weights.keymap import KeyMap, dropped, same, under
from ..weights.part import NodeName, Part, Shapes, lengths
from ..weights.settings import REMEDY, brief, whole

MODEL = "vision_model."
EMBEDDINGS = MODEL + "embeddings."
LAYER = MODEL + "encoder.layers.{i}."
PROJECTION = "visual_projection.weight"
FUSED = "self_attn.in_proj_"
HEAD_DIM, HEAD_DIM_H = 64, 80  # of CLIP's encoders, and of ViT-H with its 16 heads
# (in Hugging Face's transformers, in OpenCLIP) of one layer, then of the rest.
LAYER_NAMES = (
    ("layer_norm1.{p}", "ln_1.{p}"),
    ("layer_norm2.{p}", "ln_2.{p}"),
    ("self_attn.out_proj.{p}", "attn.out_proj.{p}"),
    ("mlp.fc1.{p}", "mlp.c_fc.{p}"),
    ("mlp.fc2.{p}", "mlp.c_proj.{p}"),
)
OTHER_NAMES = (
    ("vision_model.embeddings.class_embedding", "class_embedding"),
    ("vision_model.embeddings.patch_embedding.weight", "conv1.weight"),
    ("vision_model.embeddings.position_embedding.weight", "positional_embedding"),
    ("vision_model.pre_layrnorm.{p}", "ln_pre.{p}"),  # spelt so in transformers
    ("vision_model.post_layernorm.{p}", "ln_post.{p}"),
    ("visual_projection.weight", "proj"),  # transposed
)
SPLIT = same(*(f"{LAYER}self_attn.{name}_proj.{{p}}" for name in "qkv"))
HUGGING_FACE_NAMES = (
    *same(*(name for name, _ in OTHER_NAMES), *(LAYER + name for name, _ in LAYER_NAMES)),
    *SPLIT,
    ("vision_model.embeddings.position_ids", None),  # counts 0, 1, 2: nothing learned
)
HUGGING_FACE = KeyMap(*HUGGING_FACE_NAMES)
COMFY = KeyMap(*under("visual.", "", HUGGING_FACE_NAMES))  # as ComfyUI saves it into a checkpoint
OPEN_CLIP = KeyMap(
    *(("visual." + theirs, ours) for ours, theirs in OTHER_NAMES),
    *((f"visual.transformer.resblocks.{{i}}.{theirs}", LAYER + ours) for ours, theirs in LAYER_NAMES),
    ("visual.transformer.resblocks.{i}.attn.in_proj_{p}", LAYER + "self_attn.in_proj_{p}"),
    # left of the text encoder, which SVD does not have
    *dropped(
        same(
            "logit_scale", "text_projection", "positional_embedding", "token_embedding.weight", "ln_final.{p}"
        )
    ),
)


@dataclass(frozen=True)
class CLIPVisionConfig:
    """Sizes of a CLIP vision encoder. Defaults are those of every published SVD checkpoint."""

    hidden_size: int = 1280
    num_layers: int = 32
    num_heads: int = 16
    fused: bool = False  # q, k and v in one matrix, projection transposed: the layout of OpenCLIP
    intermediate: int = 5120
    patch: int = 14
    image_size: int = 224
    projection: int = 1024


def read_config(shapes: Shapes, settings: Mapping[str, Any] | None = None) -> CLIPVisionConfig:
    """Sizes from the shapes. `settings`, a config.json or a single file's metadata, tell the heads alone.

    Raises ValueError for the quick GELU of OpenAI's CLIP and for heads that do not divide the width.
    """
    settings = settings or {}
    hidden_size, _, patch, _ = lengths(shapes, EMBEDDINGS + "patch_embedding.weight", 4)
    side = round((lengths(shapes, EMBEDDINGS + "position_embedding.weight", 2)[0] - 1) ** 0.5)
    if not side:
        raise ValueError("CLIP vision encoder without a place for any part of a picture. Use another file.")
    fused = LAYER.format(i=0) + FUSED + "weight" in shapes
    layers = {int(key.split(".")[3]) for key in shapes if key.startswith(MODEL + "encoder.layers.")}
    activation = settings.get("hidden_act", "gelu")
    if activation != "gelu":
        raise ValueError(
            f"CLIP vision encoder with the activation {brief(activation)}: SVD's has gelu. Use the image encoder that the "
            "checkpoint was published with."
        )
    return CLIPVisionConfig(
        hidden_size=hidden_size,
        num_layers=1 + max(layers),
        num_heads=_read_heads(hidden_size, settings),
        intermediate=lengths(shapes, LAYER.format(i=0) + "mlp.fc1.weight", 2)[0],
        patch=patch,
        image_size=patch * side,
        projection=lengths(shapes, PROJECTION, 2)[1 if fused else 0],
        fused=fused,
    )


def _read_heads(width: int, settings: Mapping[str, Any]) -> int:
    """Attention heads: as told, else heads of 64 channels, or of 80 where that is ViT-H.

    `num_attention_heads` is the encoder's in a config.json of its own, which has a `hidden_size`; elsewhere it
    is the UNet's and the encoder's heads are `image_encoder_heads`.
    """
    usual = width // (HEAD_DIM_H if width == CLIPVisionConfig.hidden_size else HEAD_DIM) or 1
    if "hidden_size" in settings:
        usual = whole(settings, "num_attention_heads", usual, width)
    heads = whole(settings, "image_encoder_heads", usual, width)
    if width % heads:
        raise ValueError(
            f"CLIP vision encoder with {heads} heads for {width} channels: a number that divides them fits. {REMEDY}"
        )
    return heads


def key_shapes(config: CLIPVisionConfig) -> Shapes:
    """Key -> shape of every weight of an encoder of these sizes."""
    d = config.hidden_size
    projection = (d, config.projection) if config.fused else (config.projection, d)
    shapes: dict[str, tuple[int, ...]] = {
        EMBEDDINGS + "class_embedding": (d,),
        EMBEDDINGS + "patch_embedding.weight": (d, 3, config.patch, config.patch),
        EMBEDDINGS + "position_embedding.weight": ((config.image_size // config.patch) ** 2 + 1, d),
        PROJECTION: projection,
    }
    norms = [MODEL + "pre_layrnorm", MODEL + "post_layernorm"]
    for i in range(config.num_layers):
        layer = LAYER.format(i=i)
        norms += [layer + "layer_norm1", layer + "layer_norm2"]
        shapes |= _linear(layer + "self_attn.out_proj.", d, d)
        shapes |= _linear(layer + "mlp.fc1.", config.intermediate, d)
        shapes |= _linear(layer + "mlp.fc2.", d, config.intermediate)
        if config.fused:
            shapes |= _linear(layer + FUSED, 3 * d, d)
        else:
            for name in "qkv":
                shapes |= _linear(f"{layer}self_attn.{name}_proj.", d, d)
    return shapes | {f"{norm}.{name}": (d,) for norm in norms for name in ("weight", "bias")}


def _linear(name: str, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
    return {name + "weight": (outputs, inputs), name + "bias": (outputs,)}


def to_hugging_face(tensors: Mapping[str, Tensor], config: CLIPVisionConfig) -> dict[str, Tensor]:
    """The weights in the layout of transformers, which the host reads: q, k and v apart, projection upright.

    Views of the given tensors: nothing is copied.
    """
    if not config.fused:
        return dict(tensors)
    apart: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        if FUSED in key:
            layer, word = key.split(FUSED)
            thirds = zip("qkv", tensor.chunk(3), strict=True)
            apart |= {f"{layer}self_attn.{name}_proj.{word}": third for name, third in thirds}
        else:
            apart[key] = tensor.t() if key == PROJECTION else tensor
    return apart


def variant(config: CLIPVisionConfig) -> str:
    """The published name where the sizes are ViT-H/14's, else the sizes."""
    if config in (CLIPVisionConfig(), CLIPVisionConfig(fused=True)):
        return "CLIP ViT-H/14"
    return f"CLIP vision {config.hidden_size} wide, {config.num_layers} layers"


def clip_vision_encoder(node: NodeName, own_folder: str) -> Part:
    """The image-encoder Part of a family whose loader is `node` and whose files lie in `own_folder`, too."""
    return Part(
        "image_encoder",
        (
            EMBEDDINGS + "class_embedding",
            EMBEDDINGS + "patch_embedding.weight",
            LAYER.format(i=0) + "layer_norm1.weight",
            PROJECTION,
        ),
        {"original": OPEN_CLIP, "huggingface": HUGGING_FACE, "comfy": COMFY},
        read_config,
        variant,
        build=None,
        untold=lambda config: {"image_encoder_heads": config.num_heads},
        folders=("clip_vision", "checkpoints", own_folder),
        folder="clip_vision",
        components=("image_encoder",),
        node=node,
        host_shapes=key_shapes,
    )
