"""LoRA files in every dialect for the tiny references: names from the references' own modules and from diffsynth.

What a file changes is known here from how it was made; nothing of the pack reads a name.
"""

import json
import re

import torch
from safetensors.torch import save_file

from kinetograph.benchmarks import peers
from kinetograph.tests import tiny, tiny_svd

STRENGTH = 0.8
SVD = "SVD"
# The published ExVideo LoRA changes these in every block.
EXVIDEO = re.compile(
    r"transformer_blocks\.\d+\.(attn1\.to_(q|k|v|out\.0)|ff\.net\.(0\.proj|2)|norm[12]\.linear)$"
)
COMFY = (  # ComfyUI 0.30, comfy/ldm/cogvideo/model.py
    ("transformer_blocks.", "blocks."),
    ("attn1.to_out.0", "attn_out"),
    ("attn1.to_", ""),
    ("attn1.", ""),
    ("ff.net.0.proj", "ff_proj"),
    ("ff.net.2", "ff_out"),
    ("embedding.linear", "embedding_linear"),
)
LAYERS = (torch.nn.Linear, torch.nn.Conv2d, torch.nn.Conv3d)


def reference(family):
    return tiny_svd.unet() if family == SVD else tiny.transformer(family)


def text_reference():
    return tiny.text_encoder(2)


def changes(model, only=None, seed=3, alphas=False):
    """{the reference's module: (down, up, alpha or None)}: ranks 2 and 3 in turn, every layer with a weight."""
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, layer in model.named_modules():
        if isinstance(layer, LAYERS) and (only is None or only.search(name)):
            rank, (out, *rest) = 2 + len(found) % 2, layer.weight.shape
            down = torch.randn(rank, *rest, generator=generator) * layer.weight[0].numel() ** -0.5
            up = torch.randn(out, rank, *[1] * (len(rest) - 1), generator=generator) * 0.5
            found[name] = down, up, float(len(found) % 5 + 1) if alphas else None
    return found


def merged(model, made, strength=STRENGTH):
    """The reference with the changes in its weights: W + strength * alpha / rank * up @ down."""
    weights = dict(model.named_parameters())
    with torch.no_grad():
        for name, (down, up, alpha) in made.items():
            weight, rank = weights[f"{name}.weight"], len(down)
            change = (up.flatten(1) @ down.flatten(1)).view(weight.shape)
            weight += strength * (1 if alpha is None else alpha / rank) * change
    return model


def to_comfy(name):
    for theirs, ours in COMFY:
        name = name.replace(theirs, ours)
    return name


def to_diffsynth(name):
    """What diffsynth's own converter calls a module; None where it has no such module."""
    converter = peers.load_diffsynth("cog_dit").CogDiTStateDictConverter()
    theirs = converter.from_diffusers({f"{name}.weight": torch.zeros(1, 1)})
    return next(iter(theirs), "").removesuffix(".weight") or None


def to_original(name):
    """SVD's module in svd_xt.safetensors."""
    found = tiny_svd.keys.DIFFUSERS.find(f"{name}.weight")[1]
    return found.removesuffix(".weight")


def flat(name):
    return name.replace(".", "_")


# dialect -> (the key of a module, the ends of down, up and alpha: None where a dialect has none)
PEFT, KOHYA = (".lora_A.weight", ".lora_B.weight", None), (".lora_down.weight", ".lora_up.weight", ".alpha")
DIALECTS = {
    "Fun": (lambda name: "lora_unet__" + flat(name), KOHYA),
    "kohya": (lambda name: "lora_unet_" + flat(name), KOHYA),
    "PEFT": (lambda name: "transformer." + name, PEFT),
    "PEFT, default": (
        lambda name: "base_model.model." + name,
        (".lora_A.default.weight", ".lora_B.default.weight", None),
    ),
    "diffusers": (lambda name: "transformer." + name, (".lora.down.weight", ".lora.up.weight", None)),
    "Fun, flattened": (flat, ("_lora_A_default_weight", "_lora_B_default_weight", "_alpha")),
    "Fun, flattened with prefix": (
        lambda name: "lora_unet__" + flat(name),
        ("_lora_A_weight", "_lora_B_weight", "_alpha"),
    ),
    "Fun, of VideoX": (lambda name: "diffusion_model." + name, (*PEFT[:2], ".alpha")),
    "diffsynth": (to_diffsynth, (".lora_A.default.weight", ".lora_B.default.weight", None)),
    "ComfyUI": (lambda name: "diffusion_model." + to_comfy(name), KOHYA),
    "ComfyUI, bare": (to_comfy, KOHYA),
}
SVD_DIALECTS = {
    "kohya": DIALECTS["kohya"],
    "PEFT": (lambda name: "unet." + name, PEFT),
    "diffusers": (lambda name: "unet." + name, DIALECTS["diffusers"][1]),
    "ComfyUI": (lambda name: "diffusion_model." + to_original(name), KOHYA),
    "original, flattened": (lambda name: "lora_unet_" + flat(to_original(name)), KOHYA),
}
TEXT_DIALECTS = {
    "kohya": (lambda name: "lora_te_" + flat(name), KOHYA),
    "PEFT": (lambda name: "text_encoder." + name, PEFT),
}


def tensors_of(made, dialect):
    """The file's tensors; modules that the dialect has no name for are taken out of `made`."""
    call, (down, up, alpha) = dialect
    tensors = {}
    for name in list(made):
        if (called := call(name)) is None:
            del made[name]
            continue
        tensors[called + down], tensors[called + up] = made[name][:2]
        if alpha and made[name][2] is not None:
            tensors[called + alpha] = torch.tensor(made[name][2])
    return tensors


def write(folder, name, tensors, metadata=None):
    folder.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous() for key, value in tensors.items()}, folder / name, metadata)
    return name


def write_exvideo(folder, name="exvideo-cog.safetensors", size=None, family="5B"):
    """A LoRA as ExVideo's for CogVideoX 5B; `size` (width, height, frames) of its training goes into the metadata."""
    made = changes(reference(family), EXVIDEO)
    settings = dict(zip(("sample_width", "sample_height", "sample_frames"), size or (), strict=False))
    for side in ("sample_width", "sample_height"):
        settings |= {side: settings[side] // 8} if size else {}
    notes = {"config": json.dumps(settings)} if size else None
    return write(folder, name, tensors_of(made, DIALECTS["diffsynth"]), notes)
