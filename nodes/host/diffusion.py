"""A Family record as a host MODEL: its sampling, its latent format, its memory, its patcher.

Only the host's extension points are used: a BASE config, a BaseModel, a LatentFormat and a patcher
(`comfy/supported_models_base.py`, `comfy/model_base.py`), plus one OUTER_SAMPLE wrapper.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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

from ...modules.families.family import Family, LatentSpace, Part, Request, Shared
from ...modules.grid import LatentGrid
from ...modules.noise import EDMNoise, Noise
from . import patches, refusals
from .backend import Check, HostOperations, attend, new_patcher, unchecked
from .description import VideoModel, attach
from .guards import NUM_FRAMES, checking, guard_limits
from .whole_patches import pad_to_patch

# The host's names in a conditioning: of image latents, of the mask over them, and of SVD's numbers beside ours.
CONCAT, CONCAT_MASK = "concat_latent_image", "concat_mask"
# ours, for latents of a clip to follow
CONTROL = "kinetograph_control_latents"
NUMBERS = {
    "fps": "fps",
    "motion_bucket_id": "motion_bucket_id",
    "augmentation_level": "noise_aug_strength",
    # of the host's text node for PixArt
    "width": "width",
    "height": "height",
}
PREDICTIONS = {
    "epsilon": comfy.model_base.ModelType.EPS,
    "v": comfy.model_base.ModelType.V_PREDICTION,
}
# puts a checkpoint's weights into a meta module, in a dtype
Fill = Callable[[nn.Module, torch.dtype], None]
# The host's names of what it batches in a way of its own, beside the network's.
INPUTS = {"context": "c_crossattn", "concat": "c_concat"}


@dataclass(frozen=True)
class ModelRecipe:
    """Everything needed to build a MODEL, and to build it once more when the host asks."""

    family: Family
    part: Part
    config: Any
    fill: Fill
    weight_dtype: torch.dtype  # of the file
    parameters: int
    dtype: torch.dtype | None = None  # what the user asked for; None: the host chooses
    check: Check = unchecked
    # what the host saves beside the weights
    notes: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Family and variant, as a user knows them."""
        variant = self.part.variant(self.config)
        return variant if variant.startswith(self.family.label) else f"{self.family.label} {variant}"


class FamilyLatents(comfy.latent_formats.LatentFormat):
    """Latents of a family as the host wants to know them: channels, strides and scale."""

    def __init__(self, grid: LatentGrid, latents: LatentSpace):
        self.latent_channels = grid.channels
        self.latent_dimensions = 2 if grid.frames_on_batch else 3
        self.spacial_downscale_ratio = grid.stride_hw
        self.temporal_downscale_ratio = grid.stride_t
        self.scale_factor = latents.scale
        self.latent_rgb_factors = latents.rgb_factors
        self.latent_rgb_factors_bias = latents.rgb_bias


class FamilySampling(comfy.model_sampling.EPS):
    """A noise process as the host asks for one. What the network sees and says is `modules/noise.py`'s business."""

    noise: Noise

    def calculate_input(self, sigma: Tensor, noise: Tensor) -> Tensor:
        return self.noise.scaled(noise, sigma)

    def calculate_denoised(self, sigma: Tensor, model_output: Tensor, model_input: Tensor) -> Tensor:
        return self.noise.denoised(model_input, model_output, sigma)


class DiscreteSampling(FamilySampling, comfy.model_sampling.ModelSamplingDiscrete):
    """A table of levels, in the host's sigma = sqrt((1 - a) / a) coordinates."""

    def __init__(self, noise: Noise):
        super().__init__()
        self.noise = noise
        self.set_sigmas(noise.sigmas())


class EDMSampling(
    FamilySampling, comfy.model_sampling.ModelSamplingContinuousEDM, comfy.model_sampling.V_PREDICTION
):
    """Continuous noise levels, as the host's own SVD has them; the host looks for these classes when it saves."""

    def __init__(self, noise: EDMNoise):
        super().__init__()
        self.noise = noise
        self.set_parameters(noise.sigma_min, noise.sigma_max, sigma_data=1.0)


def sampling_of(noise: Noise) -> DiscreteSampling | EDMSampling:
    """The host's model sampling for a noise process."""
    return EDMSampling(noise) if isinstance(noise, EDMNoise) else DiscreteSampling(noise)


class FamilyConfig(comfy.supported_models_base.BASE):
    """The host's model configuration, filled from a recipe."""

    unet_config = {"image_model": "kinetograph"}
    unet_extra_config = {}  # the host's defaults are those of a UNet
    # as in the host's own SVD, for the host's nodes that save all parts into one file
    clip_vision_prefix = "conditioner.embedders.0.open_clip.model.visual."
    supported_inference_dtypes = [torch.bfloat16, torch.float16, torch.float32]

    def __init__(self, recipe: ModelRecipe):
        super().__init__(self.unet_config)
        self.recipe = recipe
        network, config = recipe.family.network, recipe.config
        self.latent_format = FamilyLatents(network.grid, network.latents(config))
        self.memory_usage_factor = network.memory_factor(config)

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

        noise = recipe.family.network.noise(recipe.config)
        super().__init__(model_config, PREDICTIONS[noise.prediction], device=device, unet_model=build)
        self.model_sampling = sampling_of(noise)
        # read by nodes that patch by width, such as FreeU
        model_config.unet_config["model_channels"] = self.diffusion_model.places.width
        # object patches may put others in their place
        self.notes = recipe.notes
        # of a clip, where a conditioning does not say
        self.clip_frames: int | None = None

    @property
    def recipe(self) -> ModelRecipe:
        return self.model_config.recipe

    def state_dict_for_saving(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Everything that the host saves into a file, with what no shape of it tells."""
        return {**super().state_dict_for_saving(*args, **kwargs), **self.notes}

    def extra_conds(self, **kwargs: Any) -> dict[str, Any]:
        """The network's inputs beside latents and time, as the family makes them from the conditioning."""
        frames = kwargs.get(NUM_FRAMES, self.clip_frames)
        request = Request(
            tuple(kwargs["noise"].shape),
            kwargs.get("cross_attn"),
            kwargs.get(CONCAT),
            None if frames is None else int(frames),
            {ours: float(kwargs[name]) for name, ours in NUMBERS.items() if name in kwargs},
            kwargs.get(CONCAT_MASK),
            kwargs.get(CONTROL),
        )
        named = self.recipe.family.network.conditions(self.recipe.config, request)
        named = {INPUTS.get(name, name): value for name, value in named.items()}
        return {name: _condition(name, value, kwargs["device"]) for name, value in named.items()}


class SharedCond(comfy.conds.CONDRegular):
    """One row for all pictures of a conditioning."""

    def process_cond(self, batch_size: int, **kwargs: Any) -> Any:
        return self._copy_with(self.cond)


def _condition(name: str, value: Tensor | Shared | int, device: Any) -> Any:
    """A value in the wrapping by which the host knows how to batch, crop and slice it."""
    if isinstance(value, Shared):
        return SharedCond(value.value.to(device))
    if not isinstance(value, Tensor):
        return comfy.conds.CONDConstant(value)
    if name == "c_concat":
        return comfy.conds.CONDNoiseShape(value.to(device))
    return comfy.conds.CONDRegular(value.to(device))


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
        hooks = patches.hooks_for(self, transformer_options, control)  # type: ignore[arg-type]
        more = {} if hooks is None else {"hooks": hooks}
        return super().forward(x, timestep, context, transformer_options, **conds, **more)  # type: ignore[misc]


def of_recipe(recipe: ModelRecipe) -> VideoModel:
    """What there is to say about a MODEL of this pack."""
    network, config = recipe.family.network, recipe.config
    return VideoModel(
        family=recipe.family.id,
        label=recipe.label,
        grid=network.grid,
        noise=network.noise(config),
        latents=network.latents(config),
        native_size=network.native_size(config),
        limits=network.limits(config),
        takes=network.takes(config),
        image_noise=network.image_noise(config),
        frame_rule=network.frame_rule(config),
    )


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
    description = of_recipe(recipe)
    attach(patcher, description)
    guard_limits(patcher, description)
    patcher.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "kinetograph_weights_check", checking(recipe.check))
    patcher.add_wrapper_with_key(
        WrappersMP.OUTER_SAMPLE, "kinetograph_patches_check", refusals.before_sampling
    )
    if recipe.family.network.frame_rule(recipe.config).multiple > 1:
        patcher.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "kinetograph_pad_to_patch", pad_to_patch)
    return patcher
