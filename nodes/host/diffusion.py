"""A Family record as a host MODEL: its sampling, its latent format, its memory, its patcher.

Only the host's extension points are used: a BASE config, a BaseModel, a LatentFormat and a patcher
(`comfy/supported_models_base.py`, `comfy/model_base.py`), plus one OUTER_SAMPLE wrapper.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import comfy.conds
import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_sampling
import comfy.supported_models_base
import torch
from comfy.patcher_extension import WrapperExecutor, WrappersMP, get_all_wrappers
from torch import Tensor, nn

from ...modules.families.family import Family, Part
from .backend import HostOperations, attend, new_patcher

# The host divides by sqrt(alpha_bar): a terminal signal-to-noise ratio of exactly zero needs a stand-in.
# This one keeps sigma finite in fp32; diffusers' Euler uses the same (EulerDiscreteScheduler, rescaled betas).
TERMINAL_ALPHA_BAR = 2.0**-24


@dataclass(frozen=True)
class ModelRecipe:
    """Everything needed to build a MODEL, and to build it once more when the host asks."""

    family: Family
    part: Part
    config: Any
    alphas_cumprod: Tensor  # (1000,) float64
    fill: Callable[[nn.Module, torch.dtype], None]  # put the checkpoint's weights into a meta module
    weight_dtype: torch.dtype  # of the file
    parameters: int
    dtype: torch.dtype | None = None  # what the user asked for; None: the host chooses


class FamilyLatents(comfy.latent_formats.LatentFormat):
    """Latents of a family as the host wants to know them: channels, strides and scale."""

    def __init__(self, grid: Any, scale: float, rgb_factors: Any = None, rgb_bias: Any = None):
        self.latent_channels = grid.channels
        self.latent_dimensions = 3 if grid.stride_t > 1 else 2
        self.spacial_downscale_ratio = grid.stride_hw
        self.temporal_downscale_ratio = grid.stride_t
        self.scale_factor = scale
        self.latent_rgb_factors = rgb_factors
        self.latent_rgb_factors_bias = rgb_bias


class FamilySampling(comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.V_PREDICTION):
    """The family's own schedule, v-prediction, in the host's sigma = sqrt((1 - a) / a) coordinates."""

    def __init__(self, alphas_cumprod: Tensor):
        super().__init__()
        alphas = alphas_cumprod.double().clamp(min=TERMINAL_ALPHA_BAR)
        self.set_sigmas(((1 - alphas) / alphas).sqrt())

    def calculate_denoised(self, sigma: Tensor, model_output: Tensor, model_input: Tensor) -> Tensor:
        """x0 from v; where the schedule has no signal left it is -v exactly, whatever stands in for sigma."""
        denoised = super().calculate_denoised(sigma, model_output, model_input)
        terminal = comfy.model_sampling.reshape_sigma(sigma >= self.sigma_max * (1 - 1e-6), denoised.ndim)
        return torch.where(terminal, -model_output, denoised)


class FamilyConfig(comfy.supported_models_base.BASE):
    """The host's model configuration, filled from a recipe."""

    unet_config = {"image_model": "kinetograph"}
    unet_extra_config = {}  # the host's defaults are those of a UNet
    supported_inference_dtypes = [torch.bfloat16, torch.float16, torch.float32]

    def __init__(self, recipe: ModelRecipe):
        super().__init__(self.unet_config)
        self.recipe = recipe
        scale = recipe.family.latent_scale(recipe.config)
        colours = recipe.config.rgb_factors, recipe.config.rgb_bias
        self.latent_format = FamilyLatents(recipe.family.grid, scale, *colours)
        self.memory_usage_factor = recipe.family.memory_factor(recipe.config)

    def get_model(self, state_dict: Any, prefix: str = "", device: Any = None) -> "FamilyModel":
        return FamilyModel(self, device=device)


class FamilyModel(comfy.model_base.BaseModel):
    """The host's view of a family's network: which conditioning reaches it, and in what shape."""

    def __init__(self, model_config: FamilyConfig, device: Any = None):
        recipe = model_config.recipe

        def build(dtype: Any, device: Any, operations: Any, **_: Any) -> nn.Module:
            hosted = type("Hosted" + recipe.part.build.__name__, (HostedForward, recipe.part.build), {})
            ops = HostOperations(operations)
            return hosted(recipe.config, ops=ops, attention=attend, dtype=dtype, device=device)

        prediction = comfy.model_base.ModelType.V_PREDICTION
        super().__init__(model_config, prediction, device=device, unet_model=build)
        self.model_sampling = FamilySampling(recipe.alphas_cumprod)

    @property
    def recipe(self) -> ModelRecipe:
        return self.model_config.recipe

    def extra_conds(self, **kwargs: Any) -> dict[str, Any]:
        """Text, and for image-to-video the image latents, checked against the checkpoint."""
        out = {}
        context = kwargs.get("cross_attn")
        if context is not None:
            check_text_width(context, self.recipe)
            out["c_crossattn"] = comfy.conds.CONDRegular(context)
        concat = self.concat_cond(**kwargs)
        if concat is not None:
            out["c_concat"] = comfy.conds.CONDNoiseShape(concat)
        return out

    def concat_cond(self, **kwargs: Any) -> Tensor | None:
        """Image latents (b, c, t, h, w) for the channel axis, scaled as the checkpoint was trained.

        Frames that the sampler added behind an odd clip (`pad_to_patch`) are silent like all but the first.
        Raises ValueError when an image-to-video checkpoint got no image, a text-to-video one got an image,
        or the sizes differ.
        """
        config, noise = self.recipe.config, kwargs["noise"]
        image = kwargs.get("concat_latent_image")
        if not config.image_to_video:
            if image is not None:
                raise ValueError(
                    f"{self.recipe.part.variant(config)} is a text-to-video checkpoint and takes no image "
                    "conditioning: load an image-to-video (I2V) checkpoint, or connect the prompt directly."
                )
            return None
        if image is None:
            raise ValueError(
                f"{self.recipe.part.variant(config)} is an image-to-video checkpoint: connect "
                "ImageToVideoConditioning between the prompts and the sampler."
            )
        image = image[:1] * config.image_latent_scale
        missing = noise.shape[2] - image.shape[2]
        if 0 < missing < config.patch_size_t:
            image = torch.nn.functional.pad(image, (0, 0, 0, 0, 0, missing))
        if image.shape[2:] != noise.shape[2:]:
            raise ValueError(
                f"Image conditioning is for latents of {tuple(image.shape[2:])} (frames, height, width) but "
                f"the latent to sample is {tuple(noise.shape[2:])}: give ImageToVideoConditioning the same "
                "latent that goes into the sampler."
            )
        return image.to(kwargs["device"])


class HostedForward:
    """Mixed in before a family's network: the host's call, its wrappers, then the network's own forward."""

    def forward(
        self,
        x: Tensor,
        timestep: Tensor,
        context: Any = None,
        control: Any = None,
        transformer_options: Any = None,
        **conds: Any,
    ) -> Tensor:
        options = transformer_options or {}
        executor = WrapperExecutor.new_class_executor(
            self._network, self, get_all_wrappers(WrappersMP.DIFFUSION_MODEL, options)
        )
        return executor.execute(x, timestep, context, control, options, **conds)

    def _network(
        self, x: Tensor, timestep: Tensor, context: Any, control: Any, transformer_options: Any, **conds: Any
    ) -> Tensor:
        return super().forward(x, timestep, context, transformer_options)  # type: ignore[misc]


def check_text_width(context: Tensor, recipe: ModelRecipe) -> None:
    """Raise ValueError when the prompt was encoded by a text encoder of another width."""
    wanted = recipe.config.text_dim
    if context.shape[-1] != wanted:
        raise ValueError(
            f"The prompt was encoded to {context.shape[-1]} numbers a token, this "
            f"{recipe.part.variant(recipe.config)} checkpoint takes {wanted}: use the CLIP output of the loader "
            "that loaded the model."
        )


def pad_to_patch(executor: Any, noise: Tensor, latent_image: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Sample whole temporal patches: latents added behind the clip are cut off afterwards.

    CogVideoX 1.5 cuts two latent frames into one patch: 81 frames are 21 latents, 22 are sampled. Its own code
    decodes the first 21 (zai-org/CogVideo, sat/sample_video.py: (T - 1) // 2 pairs after the first latent), so
    that the clip starts with the latent that stands for one frame and that holds the image. diffusers drops the
    first one instead, and with it the image. An OUTER_SAMPLE wrapper of the host.
    """
    patch = executor.class_obj.model_patcher.model.recipe.config.patch_size_t
    added = -noise.shape[2] % patch
    if not added:
        return executor(noise, latent_image, *args, **kwargs)
    sampler, sigmas, denoise_mask, *rest = args
    seed = kwargs.get("seed", rest[2] if len(rest) > 2 else 0) or 0  # after callback and disable_pbar
    shape = (*noise.shape[:2], added, *noise.shape[3:])
    more = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=noise.dtype)
    noise = torch.cat([noise, more.to(noise.device)], dim=2)
    latent_image = repeat_last(latent_image, added)
    if "latent_shapes" in kwargs:
        kwargs["latent_shapes"] = [latent_image.shape]
    if denoise_mask is not None:
        denoise_mask = repeat_last(denoise_mask, added)
    return executor(noise, latent_image, sampler, sigmas, denoise_mask, *rest, **kwargs)[:, :, :-added]


def repeat_last(x_bcthw: Tensor, count: int) -> Tensor:
    """The clip with its last latent frame `count` times more."""
    return torch.cat([x_bcthw, x_bcthw[:, :, -1:].expand(-1, -1, count, -1, -1)], dim=2)


@torch.inference_mode(False)
def load_model(recipe: ModelRecipe, disable_dynamic: bool = False) -> Any:
    """A MODEL for the host from a recipe; the host calls it again with `disable_dynamic` for deep clones.

    Weights made in inference mode, in which nodes run, could never be trained on.
    """
    load_device = comfy.model_management.get_torch_device()
    offload_device = comfy.model_management.unet_offload_device()
    config = FamilyConfig(recipe)
    dtype = recipe.dtype or comfy.model_management.unet_dtype(
        model_params=recipe.parameters,
        supported_dtypes=config.supported_inference_dtypes,
        weight_dtype=recipe.weight_dtype,
    )
    cast = comfy.model_management.unet_manual_cast(dtype, load_device, config.supported_inference_dtypes)
    config.set_inference_dtype(dtype, cast)
    model = config.get_model(None, device=torch.device("meta"))
    patcher = new_patcher(model, load_device, offload_device, disable_dynamic)
    recipe.fill(model.diffusion_model, dtype)
    model.device = offload_device
    patcher.cached_patcher_init = (load_model, (recipe,))
    if recipe.config.patch_size_t > 1:
        patcher.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "kinetograph_pad_to_patch", pad_to_patch)
    return patcher
