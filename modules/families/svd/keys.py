"""State-dict keys of Stable Video Diffusion and ExVideo checkpoints, by who published them.

Ours are those of the original svd_xt.safetensors (Stability-AI/generative-models) below the prefix of each
part, which ComfyUI keeps; only the CLIP image encoder has Hugging Face's. UNets have four levels with two
ResBlocks each, three on the way up.
"""

from ...weights.keymap import KeyMap

Rows = tuple[tuple[str, str | None], ...]


def _same(*patterns: str) -> Rows:
    """Rows for keys that keep their name."""
    return tuple((pattern, pattern) for pattern in patterns)


def _dropped(rows: Rows) -> Rows:
    """Rows that know the same keys and have no use for them."""
    return tuple((theirs, None) for theirs, _ in rows)


def _under(theirs: str, ours: str, rows: Rows) -> Rows:
    """Rows with a place in front of both names."""
    return tuple((theirs + a, ours + b if b is not None else None) for a, b in rows)


def _originals(rows: Rows) -> Rows:
    """Rows of the names on our side, which are the original's, for a table that keeps them."""
    return _same(*(ours for _, ours in rows if ours is not None))


# UNet: (in diffusers, in the original) of one ResBlock and of one transformer.
CONVOLVED = (
    ("norm1.{p}", "in_layers.0.{p}"),
    ("conv1.{p}", "in_layers.2.{p}"),
    ("norm2.{p}", "out_layers.0.{p}"),
    ("conv2.{p}", "out_layers.3.{p}"),
)
EMBEDDED = (*CONVOLVED, ("time_emb_proj.{p}", "emb_layers.1.{p}"))
MIXED = _same("time_mixer.mix_factor")
RES_BLOCK = (
    *_under("spatial_res_block.", "", EMBEDDED),
    ("spatial_res_block.conv_shortcut.{p}", "skip_connection.{p}"),
    *_under("temporal_res_block.", "time_stack.", EMBEDDED),
    *MIXED,
)
BLOCK = _same(
    *(f"{name}.{{p}}" for name in ("norm1", "norm2", "norm3", "ff.net.0.proj", "ff.net.2")),
    *(f"{attn}.{name}.{{p}}" for attn in ("attn1", "attn2") for name in ("to_q", "to_k", "to_v", "to_out.0")),
)
TIME_BLOCK = (*BLOCK, *_same("norm_in.{p}", "ff_in.net.0.proj.{p}", "ff_in.net.2.{p}"))
TRANSFORMER = (
    *_same("norm.{p}", "proj_in.{p}", "proj_out.{p}"),
    *_under("transformer_blocks.0.", "transformer_blocks.0.", BLOCK),
    *_under("temporal_transformer_blocks.0.", "time_stack.0.", TIME_BLOCK),
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
    *(row for theirs, ours in RES_BLOCK_PLACES for row in _under(theirs, ours, RES_BLOCK)),
    *(row for theirs, ours in TRANSFORMER_PLACES for row in _under(theirs, ours, TRANSFORMER)),
    *RESAMPLERS,
)
ORIGINAL = KeyMap(*_originals(DIFFUSERS.rows))

# ExVideo: the numbers that diffsynth 1.1.9 (models/svd_unet.py) gives to the 16 temporal transformers.
EXVIDEO_NUMBERS = (7, 17, 29, 39, 51, 61, 83, 113, 123, 133, 144, 154, 164, 175, 185, 195)
EXVIDEO_BLOCK = (
    *_same(*(f"{name}.{{p}}" for name in ("norm_in", "norm1", "norm2"))),
    *_same(*(f"{attn}.to_{name}.{{p}}" for attn in ("attn1", "attn2") for name in "qkv")),
    ("attn1.to_out.{p}", "attn1.to_out.0.{p}"),
    ("attn2.to_out.{p}", "attn2.to_out.0.{p}"),
    ("act_fn_in.proj.{p}", "ff_in.net.0.proj.{p}"),
    ("ff_in.{p}", "ff_in.net.2.{p}"),
    ("act_fn_out.proj.{p}", "ff.net.0.proj.{p}"),
    ("ff_out.{p}", "ff.net.2.{p}"),
    ("norm_out.{p}", "norm3.{p}"),
)
EXVIDEO_BRANCH = (
    *_under("", "time_stack.0.", EXVIDEO_BLOCK),
    ("positional_embedding_proj.{n}.{p}", "time_pos_embed.{n}.{p}"),
    ("positional_embedding.embeddings", "positional.embeddings"),
    ("positional_conv.{p}", "positional.conv.{p}"),
)
EXVIDEO = KeyMap(
    *(
        row
        for number, (_, ours) in zip(EXVIDEO_NUMBERS, TRANSFORMER_PLACES, strict=True)
        for row in _under(f"blocks.{number}.", ours, EXVIDEO_BRANCH)
    )
)

# VAE: (in diffusers, in the original) of one ResBlock, with and without its temporal half.
VAE_RES_BLOCK = (*_same("norm{n}.{p}", "conv{n}.{p}"), ("conv_shortcut.{p}", "nin_shortcut.{p}"))
VAE_VIDEO_RES_BLOCK = (
    *_under("spatial_res_block.", "", VAE_RES_BLOCK),
    *_under("temporal_res_block.", "time_stack.", CONVOLVED),
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
        *_same("conv_in.{p}", "conv_out.{p}"),
        ("conv_norm_out.{p}", "norm_out.{p}"),
        *(row for theirs, ours in places for row in _under(theirs, ours, res_block)),
        *_under("mid_block.attentions.0.", "mid.attn_1.", VAE_ATTENTION),
        *resamplers,
    )
    return _under(half, half, rows)


DOWN = (("down_blocks.{i}.resnets.{j}.", "down.{i}.block.{j}."),)
DOWNSAMPLERS = (("down_blocks.{i}.downsamplers.0.conv.{p}", "down.{i}.downsample.conv.{p}"),)
UP = tuple((f"up_blocks.{i}.resnets.{{j}}.", f"up.{3 - i}.block.{{j}}.") for i in range(4))
UPSAMPLERS = tuple(
    (f"up_blocks.{i}.upsamplers.0.conv.{{p}}", f"up.{3 - i}.upsample.conv.{{p}}") for i in range(4)
)
QUANT = _same("quant_conv.{p}")
ENCODER = _coder("encoder.", VAE_RES_BLOCK, DOWN, DOWNSAMPLERS)
DECODER = (
    *_coder("decoder.", VAE_VIDEO_RES_BLOCK, UP, UPSAMPLERS),
    ("decoder.time_conv_out.{p}", "decoder.conv_out.time_mix_conv.{p}"),
)
IMAGE_DECODER = _coder("decoder.", VAE_RES_BLOCK, UP, UPSAMPLERS)
VAE_DIFFUSERS = KeyMap(*ENCODER, *DECODER, *QUANT)


VAE_ORIGINAL = KeyMap(*_originals(ENCODER), *_originals(DECODER), *QUANT)
# A whole image VAE lies in the file; of it SVD uses the half that encodes the first frame.
IMAGE_VAE = KeyMap(
    *_originals(ENCODER),
    *QUANT,
    *_dropped((*_originals(IMAGE_DECODER), *_same("post_quant_conv.{p}"))),
)

# CLIP image encoder: (in Hugging Face's transformers, in OpenCLIP) of one layer.
LAYER = "vision_model.encoder.layers.{i}."
CLIP_LAYER = (
    ("layer_norm1.{p}", "ln_1.{p}"),
    ("layer_norm2.{p}", "ln_2.{p}"),
    ("self_attn.out_proj.{p}", "attn.out_proj.{p}"),
    ("mlp.fc1.{p}", "mlp.c_fc.{p}"),
    ("mlp.fc2.{p}", "mlp.c_proj.{p}"),
)
CLIP_EMBEDDINGS = (
    ("vision_model.embeddings.class_embedding", "class_embedding"),
    ("vision_model.embeddings.patch_embedding.weight", "conv1.weight"),
    ("vision_model.embeddings.position_embedding.weight", "positional_embedding"),
    ("vision_model.pre_layrnorm.{p}", "ln_pre.{p}"),  # spelt so in transformers
    ("vision_model.post_layernorm.{p}", "ln_post.{p}"),
    ("visual_projection.weight", "proj"),  # transposed
)
SPLIT = _same(*(f"{LAYER}self_attn.{name}_proj.{{p}}" for name in "qkv"))
HUGGING_FACE_NAMES = (
    *_same(*(name for name, _ in CLIP_EMBEDDINGS), *(LAYER + name for name, _ in CLIP_LAYER)),
    *SPLIT,
    ("vision_model.embeddings.position_ids", None),  # counts 0, 1, 2: nothing learned
)
CLIP_HUGGING_FACE = KeyMap(*HUGGING_FACE_NAMES)
CLIP_COMFY = KeyMap(*_under("visual.", "", HUGGING_FACE_NAMES))  # as ComfyUI saves it into a checkpoint
CLIP_ORIGINAL = KeyMap(
    *(("visual." + theirs, ours) for ours, theirs in CLIP_EMBEDDINGS),
    *((f"visual.transformer.resblocks.{{i}}.{theirs}", LAYER + ours) for ours, theirs in CLIP_LAYER),
    ("visual.transformer.resblocks.{i}.attn.in_proj_{p}", LAYER + "self_attn.in_proj_{p}"),
    # left of the text encoder, which SVD does not have
    *_dropped(
        _same(
            "logit_scale", "text_projection", "positional_embedding", "token_embedding.weight", "ln_final.{p}"
        )
    ),
)
