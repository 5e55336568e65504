"""Tiny SparseCtrl of diffusers' own class, and files of it in every spelling, for `host/pictures.py`'s tiny SD1.5."""

import torch
from safetensors.torch import save_file

from kinetograph.benchmarks import peers
from kinetograph.modules.families.animatediff import SPARSE_CONTROL
from kinetograph.modules.families.animatediff.sparse import SparseConfig
from kinetograph.modules.families.animatediff.sparse_keys import MOTION
from kinetograph.tests.motion_files import CHANNELS, randomise, tensors

CONTEXT = 32
# channels of a key frame, and whether they are latents
CONDITIONS = {"rgb": (4, True), "scribble": (3, False)}
# AnimateDiff's names of a motion module, by those of diffusers: with one attention, one table is one
MODULE = ".motion_modules."
RENAMES = (
    ("attn1.to", "attention_blocks.0.to"),
    ("pos_embed", "attention_blocks.0.pos_encoder"),
    ("norm1", "norms.0"),
    ("norm3", "ff_norm"),
)


class Alone(torch.nn.Module):
    """A norm that diffusers calls with a whole clip (b, c, t, h, w), over each frame alone, as it was trained."""

    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, x):
        return torch.stack([self.norm(frame) for frame in x.unbind(2)], dim=2)

    def state_dict(self, *args, **kwargs):
        return self.norm.state_dict(*args, **kwargs)


def reference(condition, seed=0):
    """SparseControlNetModel of diffusers, tiny and random, none of its weights zero."""
    peers.load_diffusers()
    from diffusers import SparseControlNetModel

    channels, latents = CONDITIONS[condition]
    made = SparseControlNetModel(
        conditioning_channels=channels,
        use_simplified_condition_embedding=latents,
        block_out_channels=CHANNELS,
        cross_attention_dim=CONTEXT,
        motion_max_seq_length=32,
    )
    return randomise(made, seed)


def per_frame(made):
    """The reference with its motion modules' group norms over single frames."""
    from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D

    for layer in made.modules():
        if isinstance(layer, AnimateDiffTransformer3D):
            layer.norm = Alone(layer.norm)
    return made


def original(key):
    """AnimateDiff's name of a key of diffusers."""
    head, found, rest = key.partition(MODULE)
    if not found:
        return key
    number, _, inside = rest.partition(".")
    for theirs, ours in RENAMES:
        inside = inside.replace(theirs, ours)
    return f"{head}{MODULE}{number}.temporal_transformer.{inside}"


def write(path, condition, seed=0, name=original):
    """A file of a reference's weights, each key under the name that `name` gives it, without those of None."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = reference(condition, seed).state_dict()
    save_file({name(key): value.contiguous() for key, value in tensors.items() if name(key)}, path)
    return path


def of_pocket(condition="rgb", seed=6):
    """{key: tensor} of a SparseCtrl of no training for the pocket SD, in ComfyUI's names."""
    config = SparseConfig((64, 64), layers=1, context_dim=CONTEXT, attended=2, condition=condition)
    made = tensors(config, seed, SPARSE_CONTROL)
    return {key.removeprefix(MOTION): value for key, value in made.items()}
