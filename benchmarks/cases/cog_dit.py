"""The CogVideoX transformer beside its peers: time by number of frames and width, peak memory, resident weights.

All get the same weights and the same rotary table, which the host and diffusers would make otherwise. The
host computes attention with PyTorch, its fastest choice here.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .. import ours, peers
from ..harness import OURS, Row, Setting, assert_parity, time_rows
from ..memory import peak_live_bytes

TOLERANCE = 1e-4  # float32, two blocks, weights of 0.05: rounding alone
GIB = 2**30
TEXT_TOKENS = 226
STEPS = 50
PUBLISHED_HEADS = 48  # of 5B: a width of 3072

Tables = tuple[Tensor, Tensor]  # cosines and sines, each twice
Forward = Callable[[Tensor, Tensor, Tensor, Tables], Tensor]  # (x, timestep, context, tables) -> v


def times(setting: Setting) -> Iterator[Row]:
    """Two blocks of width 512; in the full suite two of the published width as well."""
    models, absent = build(two_blocks(8), setting, torch.float32, setting.device)
    for latents in (13, 25, 33):
        yield from _times(models, absent, latents, setting, "")
    del models
    if setting.full:
        models, absent = build(
            two_blocks(PUBLISHED_HEADS), setting, torch.float32, setting.device, spread=0.02
        )
        yield from _times(models, absent, 13, setting, "published width, ")


def counts(setting: Setting) -> Iterator[Row]:
    """Peaks at the width of 5B on meta tensors, then the weights that a table leaves."""
    models, absent = build(two_blocks(PUBLISHED_HEADS), setting, torch.bfloat16, "meta")
    for latents in (13, 33):
        yield _peak(models, absent, latents)
    yield _resident()


def two_blocks(heads: int) -> Any:
    """5B's configuration with other heads and two blocks."""
    return ours.config("cogvideox", "diffusion_model", num_heads=heads, num_layers=2)


def build(
    config: Any, setting: Setting, dtype: torch.dtype, device: str, spread: float = 0.05
) -> tuple[dict[str, Forward], dict[str, str]]:
    """Forwards of models with the same random weights, and the peers that are absent.

    `config` is a CogVideoXConfig. Weights are drawn with a deviation of `spread`.
    """
    model = ours.network("cogvideox", "diffusion_model", config, dtype, device)
    ours.draw(model, spread)
    models: dict[str, Forward] = {OURS: lambda x, timestep, context, _: model(x, timestep, context)}
    made, absent = peers.build_present(
        {"diffusers": _diffusers, "host": _host, "diffsynth": _diffsynth},
        setting,
        config,
        model.state_dict(),
        dtype,
        device,
    )
    return {**models, **made}, absent


def real_tables(table_ld: Tensor) -> Tables:
    """The peers' cosines and sines, each twice, of our complex rotations."""
    cosines, sines = (part.repeat_interleave(2, dim=1) for part in (table_ld.real, table_ld.imag))
    return cosines.contiguous(), sines.contiguous()


def _diffusers(config, weights, dtype, device) -> Forward:
    build = partial(
        peers.load_diffusers().CogVideoXTransformer3DModel,
        num_attention_heads=config.num_heads,
        num_layers=config.num_layers,
        use_rotary_positional_embeddings=config.rotary,
        **({"patch_size_t": 2, "patch_bias": False} if config.patch_size_t > 1 else {}),
    )
    peer = peers.place(build, weights, dtype, device)

    def forward(x: Tensor, timestep: Tensor, context: Tensor, tables: Tables | None) -> Tensor:
        v = peer(x.transpose(1, 2), context, timestep, image_rotary_emb=tables, return_dict=False)[0]
        return v.transpose(1, 2)

    return forward


def _host(config, weights, dtype, device) -> Forward:
    module = peers.load_host("comfy.ldm.cogvideo.model", device)
    module.optimized_attention = peers.load_host("comfy.ldm.modules.attention", device).attention_pytorch
    build = partial(
        module.CogVideoXTransformer3DModel,
        num_attention_heads=config.num_heads,
        num_layers=config.num_layers,
        use_rotary_positional_embeddings=True,
        operations=peers.load_host("comfy.ops", device).disable_weight_init,
        dtype=dtype,
    )
    peer = peers.place(build, {_host_key(key): value for key, value in weights.items()}, dtype, device)

    def forward(x: Tensor, timestep: Tensor, context: Tensor, tables: Tables) -> Tensor:
        peer._get_rotary_emb = lambda *_, **__: tables
        return peer(x, timestep, context)

    return forward


def _host_key(key: str) -> str:
    for here, there in (
        ("transformer_blocks.", "blocks."),
        ("attn1.to_out.0", "attn_out"),
        ("attn1.to_", ""),
        ("attn1.", ""),
        ("ff.net.0.proj", "ff_proj"),
        ("ff.net.2", "ff_out"),
        ("time_embedding.linear", "time_embedding_linear"),
    ):
        key = key.replace(here, there)
    return key


def _diffsynth(config, weights, dtype, device) -> Forward:
    module = peers.load_diffsynth("cog_dit")
    attention = peers.load_diffsynth("attention").Attention
    width, time_dim, heads = config.width, config.time_embed_dim, config.num_heads

    def build() -> nn.Module:
        peer = module.CogDiT.__new__(module.CogDiT)  # its constructor knows one size only
        nn.Module.__init__(peer)
        peer.patchify = module.CogPatchify(config.in_channels, width, 2)
        peer.time_embedder = module.TimestepEmbeddings(width, time_dim)
        peer.context_embedder = nn.Linear(config.text_dim, width)
        peer.blocks = nn.ModuleList(
            module.CogDiTBlock(width, time_dim, heads) for _ in range(config.num_layers)
        )
        for block in peer.blocks:
            block.attn1 = attention(width, heads, config.head_dim, bias_q=True, bias_kv=True, bias_out=True)
        peer.norm_final = nn.LayerNorm(width, eps=1e-5)
        peer.norm_out = module.CogAdaLayerNorm(width, time_dim, single=True)
        peer.proj_out = nn.Linear(width, 4 * config.out_channels)
        return peer

    peer = peers.place(build, module.CogDiT.state_dict_converter().from_diffusers(weights), dtype, device)
    return lambda x, timestep, context, tables: peer(x, timestep, context, image_rotary_emb=tables)


def inputs(
    batch: int, latents: int, h: int, w: int, dtype: torch.dtype, device: str
) -> tuple[Tensor, Tensor, Tensor, Tables]:
    """x, timestep, context, and the rotations of 5B for them as peers want them."""
    import numpy as np

    from ...modules.layers import positions

    rows, columns = positions.crop_coordinates((h // 2, w // 2), (30, 45))
    angles = positions.rotary_angles(np.arange(latents), rows, columns, 64)
    return (
        ours.noise(latents, dtype, device, batch, 16, latents, h, w),
        torch.full((batch,), 479.0, device=device),
        ours.noise(0, dtype, device, batch, TEXT_TOKENS, 4096),
        real_tables(positions.rotary_table(angles, torch.device(device))),
    )


def _times(
    models: dict[str, Forward], absent: dict[str, str], latents: int, setting: Setting, name: str
) -> Iterator[Row]:
    values = inputs(1, latents, 12, 16, torch.float32, setting.device)
    with torch.inference_mode():
        outputs = {name: model(*values) for name, model in models.items()}
    parity = assert_parity(outputs.pop(OURS), outputs, TOLERANCE)
    works = {name: partial(model, *values) for name, model in models.items()}
    size = f"{name}{latents} latent frames, {TEXT_TOKENS + latents * 48} tokens"
    yield from time_rows(size, works, setting, parity, absent)


def _peak(models: dict[str, Forward], absent: dict[str, str], latents: int) -> Row:
    values = inputs(2, latents, 60, 90, torch.bfloat16, "meta")
    with torch.inference_mode():
        samples = {name: [peak_live_bytes(partial(model, *values)) / GIB] for name, model in models.items()}
    return Row(f"5B, {4 * latents - 3} frames 720x480, CFG 2", "peak GiB", samples, absent=dict(absent))


def _resident() -> Row:
    """Share of the 5B weights that stays in memory beside a table of the modulations of 50 steps."""
    from ...modules.families.cogvideox.modulation import is_tabulated

    config = ours.config("cogvideox", "diffusion_model")
    model = ours.network("cogvideox", "diffusion_model", config, torch.bfloat16, "meta")
    sizes = {key: parameter.nbytes for key, parameter in model.named_parameters()}
    resident = sum(size for key, size in sizes.items() if not is_tabulated(key))
    table = model.tabulate([float(20 * step + 19) for step in range(STEPS)])
    share = (resident + table.nbytes) / sum(sizes.values())
    return Row(f"5B, table of {STEPS} steps", "resident share", {OURS: [share]})
