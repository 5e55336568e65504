"""The SVD UNet beside its peers: time by number of frames and width, peak memory at full size.

All get the same weights and the epsilons of the original, which diffusers and diffsynth have otherwise. The
host computes attention with PyTorch, its fastest choice here. ExVideo is compared with diffsynth alone. Memory
is compared with diffusers as it is and with its feed-forward in chunks, its own way of saving some.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .. import ours, peers
from ..harness import OURS, Row, Setting, assert_parity, time_rows
from ..memory import peak_live_bytes

TOLERANCE = 1e-4  # float32: rounding alone
GIB = 2**30
CONTEXT_DIM = 1024
TIMESTEP = 0.5
SPREAD = 0.03  # of the weights
NARROW, PUBLISHED = (64, 128, 256, 256), (320, 640, 1280, 1280)
SMOKE, FULL = ((14, 16, 24),), ((14, 32, 32), (25, 16, 24))  # frames, height and width in cells

Forward = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]  # (x, timestep, context, ids) -> v
Models = tuple[dict[str, Forward], dict[str, str]]  # and the peers that are absent


def times(setting: Setting) -> Iterator[Row]:
    """A fifth of the width; in the full suite ExVideo and the published width as well."""
    models, absent = build(NARROW, setting, torch.float32, setting.device)
    for size in (*SMOKE, *FULL) if setting.full else SMOKE:
        yield from _times(models, absent, *size, setting)
    del models
    if setting.full:
        models, absent = build(NARROW, setting, torch.float32, setting.device, exvideo=True)
        yield from _times(models, absent, 32, 16, 16, setting, "ExVideo, ")
        del models
        models, absent = build(PUBLISHED, setting, torch.float32, setting.device)
        yield from _times(models, absent, 7, 16, 24, setting, "published width, ")


def counts(setting: Setting) -> Iterator[Row]:
    """Peaks at full size on meta tensors."""
    models, absent = build(PUBLISHED, setting, torch.float16, "meta", lean=True)
    yield _peak(models, absent, 25, 72, 128)
    yield _peak(models, absent, 128, 64, 64)
    models, absent = build(PUBLISHED, setting, torch.float16, "meta", exvideo=True)
    yield _peak(models, absent, 128, 64, 64, "ExVideo, ")


def build(
    channels: tuple[int, ...],
    setting: Setting,
    dtype: torch.dtype,
    device: str,
    exvideo: bool = False,
    lean: bool = False,
) -> Models:
    """Forwards of models with the same random weights, and the peers that are absent.

    `lean` adds the modes of peers that save memory at a cost in time.
    """
    from ...modules.layers.positions import sinusoid

    config = ours.config("svd", "diffusion_model", channels=channels, exvideo=exvideo)
    model = ours.network("svd", "diffusion_model", config, dtype, device)
    ours.draw(model, SPREAD)

    def forward(x: Tensor, timestep: Tensor, context: Tensor, ids: Tensor) -> Tensor:
        y = sinusoid(ids.flatten(), 256).reshape(1, -1).to(dtype)
        return model(x, timestep, context, y=y)

    models: dict[str, Forward] = {OURS: forward}
    makers: dict[str, Callable[..., Forward]] = {"diffsynth": _diffsynth}
    if not exvideo:
        makers = {"diffusers": _diffusers, "host": _host, **makers}
    if lean:
        makers["diffusers, chunked feed-forward"] = partial(_diffusers, lean=True)
    made, absent = peers.build_present(makers, setting, config, model.state_dict(), dtype, device)
    return {**models, **made}, absent


def _diffusers_keys(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    from ...modules.families.svd import keys

    renames = keys.DIFFUSERS.reverse().rename(weights)
    return {renames[key]: value for key, value in weights.items()}


def _diffusers(config, weights, dtype, device, lean: bool = False) -> Forward:
    build = partial(
        peers.load_diffusers().UNetSpatioTemporalConditionModel,
        block_out_channels=config.channels,
        num_attention_heads=tuple(width // config.head_dim for width in config.channels),
    )
    peer = peers.place(build, _diffusers_keys(weights), dtype, device)
    for name, module in peer.named_modules():
        if "_res_block" in name and isinstance(module, nn.GroupNorm):
            module.eps = 1e-5
    if lean:
        peer.enable_forward_chunking()
    return lambda x, timestep, context, ids: peer(x[None], timestep, context, ids, return_dict=False)[0][0]


def host_unet(config, weights, dtype, device, load: Callable[[str], Any]) -> nn.Module:
    """ComfyUI's network as its detection configures it for svd_xt, at other widths.

    `load` imports a module of the host.
    """
    module = load("comfy.ldm.modules.diffusionmodules.openaimodel")
    build = partial(
        module.UNetModel,
        image_size=32,
        in_channels=config.in_channels,
        model_channels=config.channels[0],
        out_channels=config.out_channels,
        num_res_blocks=config.num_res_blocks,
        channel_mult=[width // config.channels[0] for width in config.channels],
        num_classes="sequential",
        adm_in_channels=config.adm_dim,
        num_head_channels=config.head_dim,
        use_spatial_transformer=True,
        use_linear_in_transformer=True,
        transformer_depth=[1, 1, 1, 1, 1, 1, 0, 0],
        transformer_depth_middle=1,
        transformer_depth_output=[1] * 9 + [0] * 3,
        context_dim=config.context_dim,
        legacy=False,
        use_temporal_resblock=True,
        use_temporal_attention=True,
        extra_ff_mix_layer=True,
        use_spatial_context=True,
        merge_strategy="learned_with_images",
        video_kernel_size=[3, 1, 1],
        operations=load("comfy.ops").disable_weight_init,
        dtype=dtype,
    )
    return peers.place(build, weights, dtype, device)


def _host(config, weights, dtype, device) -> Forward:
    from ...modules.layers.positions import sinusoid

    load = partial(peers.load_host, device=device)
    attention = load("comfy.ldm.modules.attention")
    attention.optimized_attention = attention.attention_pytorch
    peer = host_unet(config, weights, dtype, device, load)

    def forward(x: Tensor, timestep: Tensor, context: Tensor, ids: Tensor) -> Tensor:
        rows = len(x)
        y = sinusoid(ids.flatten(), 256).reshape(1, -1).to(dtype).expand(rows, -1)
        images = torch.zeros(1, rows, device=x.device)
        return peer(
            x,
            timestep.expand(rows),
            context.expand(rows, -1, -1),
            y,
            num_video_frames=rows,
            image_only_indicator=images,
        )

    return forward


def _diffsynth(config, weights, dtype, device) -> Forward:
    from ...modules.families.svd import keys

    module = peers.load_diffsynth("svd_unet")
    branch = keys.EXVIDEO.reverse()
    extended = any(".positional." in key for key in weights)
    own = {}
    plain = {key: value for key, value in weights.items() if ".positional." not in key}
    for key, value in weights.items():
        if ".positional." in key:
            own[branch.rename([key])[key]] = value
    renamed = module.SVDUNet.state_dict_converter().from_diffusers(_diffusers_keys(plain))
    build = partial(_scaled_diffsynth, module, config.channels[0], 128 if extended else None)
    peer = peers.place(build, {**renamed, **own}, dtype, device)
    for name, layer in peer.named_modules():
        if isinstance(layer, nn.GroupNorm):
            layer.eps = 1e-6 if name.endswith(".norm") else 1e-5
    return lambda x, _, context, ids: peer(x, TIMESTEP, context[0], ids)


def _scaled_diffsynth(module, first: int, frames: int | None) -> nn.Module:
    """Its constructor knows one size only: while it runs, the blocks it names scale what they are given."""

    def scaled(value: int) -> int:
        return value * first // 320

    blocks = {
        "ResnetBlock": lambda i, o, emb, eps: (scaled(i), scaled(o), scaled(emb), 32, eps),
        "TemporalResnetBlock": lambda i, o, emb, eps: (scaled(i), scaled(o), scaled(emb), 32, eps),
        "AttentionBlock": lambda heads, d, c, layers, context, need_proj_out: (
            *(scaled(heads), d, scaled(c), layers, context, 32, 1e-6, need_proj_out),
        ),
        "TemporalAttentionBlock": lambda heads, d, c, *rest: (scaled(heads), d, scaled(c), *rest),
        "PopMixBlock": lambda *c: tuple(map(scaled, c)),
        "DownSampler": lambda c: (scaled(c),),
        "UpSampler": lambda c: (scaled(c),),
    }
    usual = {name: getattr(module, name) for name in blocks}
    try:
        for name, arguments in blocks.items():
            cls = usual[name]
            setattr(module, name, lambda *args, cls=cls, a=arguments, **kw: cls(*a(*args, **kw)))
        peer = module.SVDUNet(add_positional_conv=frames)
    finally:
        for name, cls in usual.items():
            setattr(module, name, cls)
    emb = 4 * first
    peer.time_proj = module.Timesteps(first)
    peer.time_embedding = nn.Sequential(nn.Linear(first, emb), nn.SiLU(), nn.Linear(emb, emb))
    peer.add_time_embedding = nn.Sequential(nn.Linear(768, emb), nn.SiLU(), nn.Linear(emb, emb))
    peer.conv_in = nn.Conv2d(8, first, 3, padding=1)
    peer.conv_norm_out = nn.GroupNorm(32, first)
    peer.conv_out = nn.Conv2d(first, 4, 3, padding=1)
    return peer


def inputs(frames: int, h: int, w: int, dtype: torch.dtype, device: str) -> tuple[Tensor, ...]:
    """x, timestep, context, and the three micro-conditions of one clip."""
    return (
        ours.noise(frames, dtype, device, frames, 8, h, w),
        torch.full((1,), TIMESTEP, device=device),
        ours.noise(0, dtype, device, 1, 1, CONTEXT_DIM),
        torch.tensor([[5.0, 127.0, 0.02]], device=device),
    )


def _times(
    models: dict[str, Forward],
    absent: dict[str, str],
    frames: int,
    h: int,
    w: int,
    setting: Setting,
    name: str = "",
) -> Iterator[Row]:
    values = inputs(frames, h, w, torch.float32, setting.device)
    with torch.inference_mode():
        outputs = {peer: model(*values) for peer, model in models.items()}
    parity = assert_parity(outputs.pop(OURS), outputs, TOLERANCE)
    works = {peer: partial(model, *values) for peer, model in models.items()}
    yield from time_rows(f"{name}{frames} frames, {h}x{w} cells", works, setting, parity, absent)


def _peak(
    models: dict[str, Forward], absent: dict[str, str], frames: int, h: int, w: int, name: str = ""
) -> Row:
    values = inputs(frames, h, w, torch.float16, "meta")
    with torch.inference_mode():
        samples = {peer: [peak_live_bytes(partial(model, *values)) / GIB] for peer, model in models.items()}
    return Row(f"{name}{frames} frames {8 * w}x{8 * h}", "peak GiB", samples, absent=dict(absent))
