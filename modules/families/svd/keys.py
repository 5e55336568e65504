"""State-dict keys of Stable Video Diffusion and ExVideo checkpoints, by who published them.

Ours are those of the original svd_xt.safetensors (Stability-AI/generative-models) below the prefix of each
part, which ComfyUI keeps. UNets have four levels with two
ResBlocks each, three on the way up.
"""

from ...weights.keymap import KeyMap, Rows, dropped, originals, same, under

# UNet: (in diffusers, in the original) of one ResBlock and of one transformer.
CONVOLVED = (
    ("norm1.{p}", "in_layers.0.{p}"),
    ("conv1.{p}", "in_layers.2.{p}"),
    ("norm2.{p}", "out_layers.0.{p}"),
    ("conv2.{p}", "out_layers.3.{p}"),
)
EMBEDDED = (*CONVOLVED, ("time_emb_proj.{p}", "emb_layers.1.{p}"))
MIXED = same("time_mixer.mix_factor")
RES_BLOCK = (
    *under("spatial_res_block.", "", EMBEDDED),
    ("spatial_res_block.conv_shortcut.{p}", "skip_connection.{p}"),
    *under("temporal_res_block.", "time_stack.", EMBEDDED),
    *MIXED,
)
BLOCK = same(
    *(f"{name}.{{p}}" for name in ("norm1", "norm2", "norm3", "ff.net.0.proj", "ff.net.2")),
    *(f"{attn}.{name}.{{p}}" for attn in ("attn1", "attn2") for name in ("to_q", "to_k", "to_v", "to_out.0")),
)
TIME_BLOCK = (*BLOCK, *same("norm_in.{p}", "ff_in.net.0.proj.{p}", "ff_in.net.2.{p}"))
TRANSFORMER = (
    *same("norm.{p}", "proj_in.{p}", "proj_out.{p}"),
    *under("transformer_blocks.0.", "transformer_blocks.0.", BLOCK),
    *under("temporal_transformer_blocks.0.", "time_stack.0.", TIME_BLOCK),
    ("time_pos_embed.linear_1.{p}", "time_pos_embed.0.{p}"),
    ("time_pos_embed.linear_2.{p}", "time_pos_embed.2.{p}"),
    *MIXED,
)
AROUND_BLOCKS = (
    ("conv_in.{p}", "input_blocks.0.0.{p}"),
    ("time_embedding.linear_1.{p}", "time_embed.0.{p}"),
    ("time_embedding.linear_2.{p}", "time_embed.2.{p}"),
    ("add_embedding.linear_1.{p}", "label_emb.0.0.{p}"),
    ("add_embedding.linear_2.{p}", "label_emb.0.2.{p}"),
    ("conv_norm_out.{p}", "out.0.{p}"),
    ("conv_out.{p}", "out.2.{p}"),
)
RES_BLOCK_PLACES = (
    *(
        (f"down_blocks.{i}.resnets.{j}.", f"input_blocks.{3 * i + j + 1}.0.")
        for i in range(4)
        for j in range(2)
    ),
    ("mid_block.resnets.0.", "middle_block.0."),
    ("mid_block.resnets.1.", "middle_block.2."),
    *((f"up_blocks.{i}.resnets.{j}.", f"output_blocks.{3 * i + j}.0.") for i in range(4) for j in range(3)),
)
TRANSFORMER_PLACES = (  # none at the smallest level
    *(
        (f"down_blocks.{i}.attentions.{j}.", f"input_blocks.{3 * i + j + 1}.1.")
        for i in range(3)
        for j in range(2)
    ),
    ("mid_block.attentions.0.", "middle_block.1."),
    *(
        (f"up_blocks.{i}.attentions.{j}.", f"output_blocks.{3 * i + j}.1.")
        for i in range(1, 4)
        for j in range(3)
    ),
)
RESAMPLERS = (
    *(
        (f"down_blocks.{i}.downsamplers.0.conv.{{p}}", f"input_blocks.{3 * i + 3}.0.op.{{p}}")
        for i in range(3)
    ),
    *(
        (
            f"up_blocks.{i}.upsamplers.0.conv.{{p}}",
            f"output_blocks.{3 * i + 2}.{1 if i == 0 else 2}.conv.{{p}}",
        )
        for i in range(3)
    ),
)
DIFFUSERS = KeyMap(
    *AROUND_BLOCKS,
    *(row for theirs, ours in RES_BLOCK_PLACES for row in under(theirs, ours, RES_BLOCK)),
    *(row for theirs, ours in TRANSFORMER_PLACES for row in under(theirs, ours, TRANSFORMER)),
    *RESAMPLERS,
)
# What ComfyUI saves after ExVideo Patch keeps ExVideo's layers where they were put.
POSITIONAL = same("positional.embeddings", "positional.conv.{p}")
ORIGINAL = KeyMap(
    *originals(DIFFUSERS.rows),
    *(row for _, ours in TRANSFORMER_PLACES for row in under(ours, ours, POSITIONAL)),
)

# ExVideo: the numbers that diffsynth 1.1.9 (models/svd_unet.py) gives to the 16 temporal transformers.
EXVIDEO_NUMBERS = (7, 17, 29, 39, 51, 61, 83, 113, 123, 133, 144, 154, 164, 175, 185, 195)
EXVIDEO_BLOCK = (
    *same(*(f"{name}.{{p}}" for name in ("norm_in", "norm1", "norm2"))),
    *same(*(f"{attn}.to_{name}.{{p}}" for attn in ("attn1", "attn2") for name in "qkv")),
    ("attn1.to_out.{p}", "attn1.to_out.0.{p}"),
    ("attn2.to_out.{p}", "attn2.to_out.0.{p}"),
    ("act_fn_in.proj.{p}", "ff_in.net.0.proj.{p}"),
    ("ff_in.{p}", "ff_in.net.2.{p}"),
    ("act_fn_out.proj.{p}", "ff.net.0.proj.{p}"),
    ("ff_out.{p}", "ff.net.2.{p}"),
    ("norm_out.{p}", "norm3.{p}"),
)
EXVIDEO_BRANCH = (
    *under("", "time_stack.0.", EXVIDEO_BLOCK),
    ("positional_embedding_proj.{n}.{p}", "time_pos_embed.{n}.{p}"),
    ("positional_embedding.embeddings", "positional.embeddings"),
    ("positional_conv.{p}", "positional.conv.{p}"),
)
EXVIDEO = KeyMap(
    *(
        row
        for number, (_, ours) in zip(EXVIDEO_NUMBERS, TRANSFORMER_PLACES, strict=True)
        for row in under(f"blocks.{number}.", ours, EXVIDEO_BRANCH)
    )
)

# VAE: (in diffusers, in the original) of one ResBlock, with and without its temporal half.
VAE_RES_BLOCK = (*same("norm{n}.{p}", "conv{n}.{p}"), ("conv_shortcut.{p}", "nin_shortcut.{p}"))
VAE_VIDEO_RES_BLOCK = (
    *under("spatial_res_block.", "", VAE_RES_BLOCK),
    *under("temporal_res_block.", "time_stack.", CONVOLVED),
    ("time_mixer.mix_factor", "mix_factor"),
)
VAE_ATTENTION = (  # Linear in diffusers, a convolution of one pixel in the original
    ("group_norm.{p}", "norm.{p}"),
    ("to_q.{p}", "q.{p}"),
    ("to_k.{p}", "k.{p}"),
    ("to_v.{p}", "v.{p}"),
    ("to_out.0.{p}", "proj_out.{p}"),
)


def _coder(half: str, res_block: Rows, levels: tuple[tuple[str, str], ...], resamplers: Rows) -> Rows:
    """Rows of an encoder or a decoder; `levels` are the places of its ResBlocks outside the middle."""
    places = (*levels, ("mid_block.resnets.0.", "mid.block_1."), ("mid_block.resnets.1.", "mid.block_2."))
    rows = (
        *same("conv_in.{p}", "conv_out.{p}"),
        ("conv_norm_out.{p}", "norm_out.{p}"),
        *(row for theirs, ours in places for row in under(theirs, ours, res_block)),
        *under("mid_block.attentions.0.", "mid.attn_1.", VAE_ATTENTION),
        *resamplers,
    )
    return under(half, half, rows)


DOWN = (("down_blocks.{i}.resnets.{j}.", "down.{i}.block.{j}."),)
DOWNSAMPLERS = (("down_blocks.{i}.downsamplers.0.conv.{p}", "down.{i}.downsample.conv.{p}"),)
UP = tuple((f"up_blocks.{i}.resnets.{{j}}.", f"up.{3 - i}.block.{{j}}.") for i in range(4))
UPSAMPLERS = tuple(
    (f"up_blocks.{i}.upsamplers.0.conv.{{p}}", f"up.{3 - i}.upsample.conv.{{p}}") for i in range(4)
)
QUANT = same("quant_conv.{p}")
ENCODER = _coder("encoder.", VAE_RES_BLOCK, DOWN, DOWNSAMPLERS)
DECODER = (
    *_coder("decoder.", VAE_VIDEO_RES_BLOCK, UP, UPSAMPLERS),
    ("decoder.time_conv_out.{p}", "decoder.conv_out.time_mix_conv.{p}"),
)
IMAGE_DECODER = _coder("decoder.", VAE_RES_BLOCK, UP, UPSAMPLERS)
VAE_DIFFUSERS = KeyMap(*ENCODER, *DECODER, *QUANT)


VAE_ORIGINAL = KeyMap(*originals(ENCODER), *originals(DECODER), *QUANT)
# A whole image VAE lies in the file; of it SVD uses the half that encodes the first frame.
IMAGE_VAE = KeyMap(
    *originals(ENCODER),
    *QUANT,
    *dropped((*originals(IMAGE_DECODER), *same("post_quant_conv.{p}"))),
)
