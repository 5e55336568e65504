"""LoRA files of AnimateDiff in every spelling, the published ones by their sizes; and what they make of weights.

What a file changes is known here from how it was made; nothing of the pack reads a name.
"""

import re

import torch

from kinetograph.modules.families.animatediff import MOTION_MODULE

ATTENTION = re.compile(r"\.attention_blocks\.\d\.to_(q|k|v|out\.0)\.weight$")
# of a spatial transformer of SD1.5: the names inside its only block
CROSS = tuple(f"attn{n}.to_{name}" for n in (1, 2) for name in ("q", "k", "v", "out.0"))
FORWARD = ("ff.net.0.proj", "ff.net.2")
SD15_LEVELS, TOKENS = (320, 640, 1280), 768


def changes(shapes, rank=4, seed=3):
    """{module: (down, up)} for weights {module: (out, in)}; strong enough to be seen."""
    generator, made = torch.Generator().manual_seed(seed), {}
    for module, (out, into) in shapes.items():
        down = torch.randn(rank, into, generator=generator) * into**-0.5
        made[module] = down, torch.randn(out, rank, generator=generator) * (0.5 / rank**0.5)
    return made


def merged(tensors, *loras):
    """Tensors with LoRAs in them: W + strength * up @ down; a LoRA is (changes, strength)."""
    result = dict(tensors)
    for made, strength in loras:
        for module, (down, up) in made.items():
            weight = result[f"{module}.weight"]
            change = (up.double() @ down.double()).view(weight.shape)
            result[f"{module}.weight"] = (weight.double() + strength * change).to(weight.dtype)
    return result


def of_motion(config, everything=False):
    """{module: (out, in)} of the attention of motion modules, or of all that is linear in their blocks."""
    shapes = MOTION_MODULE.shapes(config)
    return {
        key.removesuffix(".weight"): tuple(shape)
        for key, shape in shapes.items()
        if ATTENTION.search(key) or (everything and re.search(r"\.ff\.net\.\d(\.proj)?\.weight$", key))
    }


def to_diffusers(module):
    """diffusers' MotionAdapter has no transformer around the block, and numbers attentions from one."""
    return re.sub(
        r"attention_blocks\.(\d)",
        lambda fit: f"attn{int(fit[1]) + 1}",
        module.replace("temporal_transformer.", ""),
    )


def processor(module, whole=False):
    """`head.processor.last_lora`; MotionDirector cuts a module at its last dot, AnimateDiff forgets the 0 of to_out."""
    head, last = (module if whole else module.removesuffix(".0")).rsplit(".", 1)
    return f"{head}.processor.{last}_lora"


def flat(module):
    return "lora_unet_" + module.replace(".", "_")


PEFT, KOHYA, OLD = (
    ("lora_A.weight", "lora_B.weight"),
    ("lora_down.weight", "lora_up.weight"),
    ("down.weight", "up.weight"),
)
# spelling -> (a module's key, the ends of down and up, whether it knows layers that are no attention)
SPELLINGS = {
    "AnimateDiff": (processor, OLD, False),
    "diffusers' processors": (lambda module: "unet." + processor(to_diffusers(module)), OLD, False),
    "diffusers": (lambda module: f"unet.{to_diffusers(module)}.lora", OLD, True),
    "PEFT": (lambda module: "unet." + to_diffusers(module), PEFT, True),
    "PEFT, default": (
        lambda module: "base_model.model." + module,
        ("lora_A.default.weight", "lora_B.default.weight"),
        True,
    ),
    "MotionDirector": (lambda module: processor(module, whole=True), OLD, True),
    "MotionDirector, as trained": (lambda module: module, KOHYA, True),
    "kohya": (flat, KOHYA, True),
    "kohya, diffusers' names": (lambda module: flat(to_diffusers(module)), KOHYA, True),
}


def tensors_of(made, spelling="AnimateDiff"):
    """The file's tensors."""
    call, (down, up), _ = SPELLINGS[spelling]
    pairs = {call(module): pair for module, pair in made.items()}
    assert len(pairs) == len(made)
    return {
        f"{key}.{end}": half
        for key, pair in pairs.items()
        for end, half in zip((down, up), pair, strict=True)
    }


def shapes_of(modules, rank, spelling="AnimateDiff"):
    """The same in shapes alone, for files of the published sizes."""
    call, (down, up), _ = SPELLINGS[spelling]
    return {
        f"{call(module)}.{end}": shape
        for module, (out, into) in modules.items()
        for end, shape in ((down, (rank, into)), (up, (out, rank)))
    }


def of_unet(levels=SD15_LEVELS, tokens=TOKENS, more=()):
    """{module: (out, in)} of the attention in all 16 spatial transformers of an SD1.5 UNet; `more` is of FORWARD."""
    places = {f"down_blocks.{i}.attentions.{j}": width for i, width in enumerate(levels) for j in range(2)}
    places["mid_block.attentions.0"] = levels[-1]
    places |= {
        f"up_blocks.{i}.attentions.{j}": width
        for i, width in enumerate(reversed(levels), 1)
        for j in range(3)
    }
    sizes = {"ff.net.0.proj": (8, 1), "ff.net.2": (1, 4)}
    return {
        f"{place}.transformer_blocks.0.{name}": (
            tuple(width * size for size in sizes[name])
            if name in sizes
            else (width, tokens if re.search(r"attn2\.to_[kv]", name) else width)
        )
        for place, width in places.items()
        for name in (*CROSS, *more)
    }


def to_host(module):
    """The module in ComfyUI's UNet of SD1.5."""
    places = {
        r"^down_blocks\.(\d)\.attentions\.(\d)": lambda fit: (
            f"input_blocks.{1 + 3 * int(fit[1]) + int(fit[2])}.1"
        ),
        r"^mid_block\.attentions\.0": lambda fit: "middle_block.1",
        r"^up_blocks\.(\d)\.attentions\.(\d)": lambda fit: f"output_blocks.{3 * int(fit[1]) + int(fit[2])}.1",
    }
    for pattern, place in places.items():
        module = re.sub(pattern, place, module)
    return module


def spatial(made):
    """MotionDirector's file for the UNet: attention through processors, the others plain."""
    tensors = {}
    for module, (down, up) in made.items():
        key = processor(module) if ".attn" in module else f"{module}_lora"
        tensors |= {f"{key}.down.weight": down, f"{key}.up.weight": up}
    return tensors
