"""State-dict keys of PixArt checkpoints: diffusers' names, which are ours, and those of PixArt-alpha's own .pth files."""

from ...weights.fused import part_of
from ...weights.keymap import TOLD, KeyMap, Rows, dropped, same, under
from ..animatediff.keys import INSIDE

BLOCK = "transformer_blocks.{i}."
THEIRS = "blocks.{i}."
EMBEDDERS = {
    "t_embedder": "timestep_embedder",
    "csize_embedder": "resolution_embedder",
    "ar_embedder": "aspect_ratio_embedder",
}
# the learned text of a prompt that was left out in training: empty prompts stand for it
SILENCE = f"{TOLD}y_embedding"
# positions of the pictures that it was trained on
TABLE = f"{TOLD}pos_embed"

# EasyAnimate v1's motion module in a block
MOTION: Rows = under("attn_temporal.temporal_transformer.", "attn_temporal.temporal_transformer.", INSIDE)

DIFFUSERS = KeyMap(
    *same("pos_embed.proj.{p}", "scale_shift_table", "proj_out.{p}", BLOCK + "scale_shift_table"),
    *same("caption_projection.linear_{n}.{p}", "adaln_single.linear.{p}"),
    *same(*(f"adaln_single.emb.{name}.linear_{{n}}.{{p}}" for name in EMBEDDERS.values())),
    *same(*(f"{BLOCK}attn{n}.to_{name}.{{p}}" for n in (1, 2) for name in ("q", "k", "v", "out.0"))),
    *same(BLOCK + "ff.net.0.proj.{p}", BLOCK + "ff.net.2.{p}"),
    ("caption_projection.y_embedding", SILENCE),
    # EasyAnimate v1's training saves both together; its motion module is another part
    *dropped(under(BLOCK, BLOCK, MOTION)),
)


def _halves(theirs: str, names: str, ours: str) -> Rows:
    """Rows of a layer that stands for several of ours."""
    return tuple(
        (f"{THEIRS}{part_of(theirs, number, len(names))}.{{p}}", f"{BLOCK}{ours}.to_{name}.{{p}}")
        for number, name in enumerate(names)
    )


# PixArt-alpha/PixArt-alpha, diffusion/model/nets/PixArt.py and PixArtMS.py
ORIGINAL = KeyMap(
    ("x_embedder.proj.{p}", "pos_embed.proj.{p}"),
    *(
        (f"{theirs}.mlp.{place}.{{p}}", f"adaln_single.emb.{ours}.linear_{number}.{{p}}")
        for theirs, ours in EMBEDDERS.items()
        for place, number in ((0, 1), (2, 2))
    ),
    ("t_block.1.{p}", "adaln_single.linear.{p}"),
    ("y_embedder.y_proj.fc{n}.{p}", "caption_projection.linear_{n}.{p}"),
    *_halves("attn.qkv", "qkv", "attn1"),
    (THEIRS + "attn.proj.{p}", BLOCK + "attn1.to_out.0.{p}"),
    (THEIRS + "cross_attn.q_linear.{p}", BLOCK + "attn2.to_q.{p}"),
    *_halves("cross_attn.kv_linear", "kv", "attn2"),
    (THEIRS + "cross_attn.proj.{p}", BLOCK + "attn2.to_out.0.{p}"),
    (THEIRS + "mlp.fc1.{p}", BLOCK + "ff.net.0.proj.{p}"),
    (THEIRS + "mlp.fc2.{p}", BLOCK + "ff.net.2.{p}"),
    (THEIRS + "scale_shift_table", BLOCK + "scale_shift_table"),
    ("final_layer.linear.{p}", "proj_out.{p}"),
    ("final_layer.scale_shift_table", "scale_shift_table"),
    ("y_embedder.y_embedding", SILENCE),
    # made from the size
    ("pos_embed", TABLE),
)
