"""State-dict keys of CogVideoX checkpoints, by who published them. Ours are those of diffusers.

Raw fp8 casts as in kijai's repositories keep the diffusers keys and need no table of their own.
"""

from ...weights.keymap import KeyMap, same

BLOCK = "transformer_blocks.{i}."
NATIVE = "blocks.{i}."

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "norm_q", "norm_k")
AROUND_BLOCKS = same(
    "patch_embed.proj.{p}",
    "patch_embed.text_proj.{p}",
    "patch_embed.pos_embedding",  # 5B-I2V learns it
    "norm_final.{p}",
    "norm_out.linear.{p}",
    "norm_out.norm.{p}",
    "proj_out.{p}",
)
DIFFUSERS = KeyMap(
    *AROUND_BLOCKS,
    *same("time_embedding.linear_{n}.{p}", "ofs_embedding.linear_{n}.{p}"),
    *same(BLOCK + "norm{n}.linear.{p}", BLOCK + "norm{n}.norm.{p}"),
    *same(*(f"{BLOCK}attn1.{name}.{{p}}" for name in ATTENTION)),
    *same(BLOCK + "ff.net.0.proj.{p}", BLOCK + "ff.net.2.{p}"),
)
COMFY = KeyMap(  # ComfyUI 0.30, comfy/ldm/cogvideo/model.py
    *AROUND_BLOCKS,
    ("time_embedding_linear_{n}.{p}", "time_embedding.linear_{n}.{p}"),
    ("ofs_embedding_linear_{n}.{p}", "ofs_embedding.linear_{n}.{p}"),
    (NATIVE + "norm{n}.linear.{p}", BLOCK + "norm{n}.linear.{p}"),
    (NATIVE + "norm{n}.norm.{p}", BLOCK + "norm{n}.norm.{p}"),
    (NATIVE + "q.{p}", BLOCK + "attn1.to_q.{p}"),
    (NATIVE + "k.{p}", BLOCK + "attn1.to_k.{p}"),
    (NATIVE + "v.{p}", BLOCK + "attn1.to_v.{p}"),
    (NATIVE + "attn_out.{p}", BLOCK + "attn1.to_out.0.{p}"),
    (NATIVE + "norm_q.{p}", BLOCK + "attn1.norm_q.{p}"),
    (NATIVE + "norm_k.{p}", BLOCK + "attn1.norm_k.{p}"),
    (NATIVE + "ff_proj.{p}", BLOCK + "ff.net.0.proj.{p}"),
    (NATIVE + "ff_out.{p}", BLOCK + "ff.net.2.{p}"),
)
# modelscope/DiffSynth-Studio 1.1.9, models/cog_dit.py: ExVideo's LoRA is written so
DIFFSYNTH = KeyMap(
    ("patchify.proj.{p}", "patch_embed.proj.{p}"),
    ("context_embedder.{p}", "patch_embed.text_proj.{p}"),
    ("time_embedder.timestep_embedder.0.{p}", "time_embedding.linear_1.{p}"),
    ("time_embedder.timestep_embedder.2.{p}", "time_embedding.linear_2.{p}"),
    *same("norm_final.{p}", "norm_out.linear.{p}", "norm_out.norm.{p}", "proj_out.{p}"),
    (NATIVE + "norm{n}.linear.{p}", BLOCK + "norm{n}.linear.{p}"),
    (NATIVE + "norm{n}.norm.{p}", BLOCK + "norm{n}.norm.{p}"),
    *((f"{NATIVE}attn1.to_{name}.{{p}}", f"{BLOCK}attn1.to_{name}.{{p}}") for name in "qkv"),
    (NATIVE + "attn1.to_out.{p}", BLOCK + "attn1.to_out.0.{p}"),
    (NATIVE + "norm_q.{p}", BLOCK + "attn1.norm_q.{p}"),
    (NATIVE + "norm_k.{p}", BLOCK + "attn1.norm_k.{p}"),
    (NATIVE + "ff.0.{p}", BLOCK + "ff.net.0.proj.{p}"),
    (NATIVE + "ff.2.{p}", BLOCK + "ff.net.2.{p}"),
)

RESNETS = ("encoder.down_blocks.{i}.resnets.{j}.", "encoder.mid_block.resnets.{j}.")
# Their norms are functions of the latent.
SPATIAL_RESNETS = ("decoder.up_blocks.{i}.resnets.{j}.", "decoder.mid_block.resnets.{j}.")
SPATIAL_NORM = ("norm_layer", "conv_y.conv", "conv_b.conv")
VAE = KeyMap(
    *same(
        *(f"{half}.{conv}.conv.{{p}}" for half in ("encoder", "decoder") for conv in ("conv_in", "conv_out"))
    ),
    *same("encoder.norm_out.{p}", *(f"decoder.norm_out.{name}.{{p}}" for name in SPATIAL_NORM)),
    *same("encoder.down_blocks.{i}.downsamplers.0.conv.{p}", "decoder.up_blocks.{i}.upsamplers.0.conv.{p}"),
    *same(*(resnet + "conv{n}.conv.{p}" for resnet in (*RESNETS, *SPATIAL_RESNETS))),
    *same(*(resnet + "conv_shortcut.{p}" for resnet in (*RESNETS, *SPATIAL_RESNETS))),
    *same(*(resnet + "norm{n}.{p}" for resnet in RESNETS)),
    *same(*(f"{resnet}norm{{n}}.{name}.{{p}}" for resnet in SPATIAL_RESNETS for name in SPATIAL_NORM)),
)
