"""Sampling through the host: its samplers and schedulers, guidance that may change over the run."""

import bisect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import comfy.model_base
import comfy.model_management
import comfy.sample
import comfy.samplers
import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...modules.noise import NEAR_TERMINAL
from . import compat, injection
from .diffusion import CONCAT
from .guards import NUM_FRAMES
from .latents import set_conditioning

SAMPLERS = comfy.samplers.KSampler.SAMPLERS
SCHEDULERS = comfy.samplers.KSampler.SCHEDULERS

# from this sigma on x0 is below 1 % of what the network sees
NO_SIGNAL = 100.0

Guidance = Callable[[float, int], "float | Tensor"]  # (progress 0..1, frames) -> scale, or one per frame
StepCallback = Callable[[int, Tensor, Tensor, int], None]  # step, denoised, x, total


class ScheduledGuider(comfy.samplers.CFGGuider):
    """Classifier-free guidance whose scale follows a schedule; a guider of the host like its own."""

    def __init__(self, model: Any, guidance: Guidance, clip_frames: int | None = None):
        """`clip_frames`: frames of a clip where they lie on the batch axis, None where on the third."""
        super().__init__(model)
        self.guidance, self.clip_frames = guidance, clip_frames
        self._falling: list[float] = []  # negated sigmas of this run, rising for bisect

    def sample(
        self, noise: Tensor, latent_image: Tensor, sampler: Any, sigmas: Tensor, *args: Any, **kwargs: Any
    ) -> Any:
        self._falling = [-sigma for sigma in sigmas.tolist()]
        return super().sample(noise, latent_image, sampler, sigmas, *args, **kwargs)

    def predict_noise(
        self, x: Tensor, timestep: Tensor, model_options: Any = None, seed: Any = None
    ) -> Tensor:
        frames = self.clip_frames or x.shape[2]
        scale = self.guidance(self.progress(float(timestep.flatten()[0])), frames)
        options = model_options or {}
        conds = self.conds.get("negative"), self.conds.get("positive")
        if isinstance(scale, Tensor):
            return self._predict_by_frame(x, timestep, *conds, scale, options, seed)
        return comfy.samplers.sampling_function(
            self.inner_model, x, timestep, *conds, scale, model_options=options, seed=seed
        )

    def _predict_by_frame(
        self,
        x: Tensor,
        timestep: Tensor,
        negative: Any,
        positive: Any,
        scale_t: Tensor,
        options: Any,
        seed: Any,
    ) -> Tensor:
        """The host's guided prediction with one scale per latent frame.

        The hook of the host that replaces the blend works on x - x0, which at CogVideoX's first step has lost
        three digits; ours comes after the blend and sees x0 itself. A blend that the user installed is asked
        instead, with a scale per frame.
        """
        scale = self._spread(scale_t.to(x.device), x)
        options = {**options, "disable_cfg1_optimization": True}
        if (installed := options.get("sampler_cfg_function")) is not None:
            options["sampler_cfg_function"] = lambda args: installed({**args, "cond_scale": scale})
        else:
            hooks = options.get("sampler_post_cfg_function", [])
            options["sampler_post_cfg_function"] = [blend_with(scale), *hooks]
        most = float(scale_t.max())
        return comfy.samplers.sampling_function(
            self.inner_model, x, timestep, negative, positive, most, model_options=options, seed=seed
        )

    def _spread(self, scale_t: Tensor, x: Tensor) -> Tensor:
        """A scale per frame of a clip, shaped to broadcast over the latents of all clips."""
        if self.clip_frames is None:
            return scale_t.view(1, 1, -1, 1, 1)
        return scale_t.repeat(x.shape[0] // self.clip_frames).view(-1, 1, 1, 1)

    def progress(self, sigma: float) -> float:
        """Share of the steps done at `sigma`; between two steps (second-order samplers) in log sigma."""
        steps = len(self._falling) - 1
        at = bisect.bisect_left(self._falling, -sigma)
        if at > steps or at == 0 or self._falling[at] == -sigma:
            return min(at, steps) / steps
        above, below = -self._falling[at - 1], -self._falling[at]
        if below <= 0:
            return (at - 1) / steps
        return (at - 1 + math.log(above / sigma) / math.log(above / below)) / steps


def blend_with(scale: Tensor) -> Callable[[dict[str, Any]], Tensor]:
    """A post-CFG hook of the host that blends both predictions anew, `scale` broadcast over them."""

    def blend(args: dict[str, Any]) -> Tensor:
        uncond = args["uncond_denoised"]
        return uncond + (args["cond_denoised"] - uncond) * scale

    return blend


def wrap_sampler(model: Any, start: Callable[..., Tensor]) -> comfy.samplers.KSAMPLER:
    """A sampler of `modules/sampling/samplers.py` as a SAMPLER of the host.

    `start(x, denoise, sigmas, terminal, report, seed)` runs it; sigmas are floats and the terminal one, which
    stands for infinity, is the largest of the model's schedule where that leaves next to nothing of x0.
    """
    largest = float(model.get_model_object("model_sampling").sigma_max)
    # the largest level of SD1.5, 14.6, still holds a picture
    terminal = largest * NEAR_TERMINAL if largest > NO_SIGNAL else math.inf

    def run(network: Any, x: Tensor, sigmas: Tensor, extra_args: Any, callback: Any, disable: Any) -> Tensor:
        ones = x.new_ones([x.shape[0]])

        def denoise(x: Tensor, sigma: float) -> Tensor:
            return network(x, sigma * ones, **extra_args)

        def report(step: int, x0: Tensor, x: Tensor) -> None:
            if callback is not None:
                sigma = sigmas[step]
                callback({"i": step, "denoised": x0, "x": x, "sigma": sigma, "sigma_hat": sigma})

        return start(x, denoise, sigmas.tolist(), terminal, report, extra_args.get("seed") or 0)

    return comfy.samplers.KSAMPLER(run)


@dataclass(frozen=True)
class Plan:
    """The widgets of KSampler but for the guidance."""

    sampler: "str | comfy.samplers.KSAMPLER"  # a name of the host, or a wrapped sampler of ours
    scheduler: str
    steps: int
    denoise: float
    seed: int
    levels: list[float] | None = None  # noise levels of our own instead of a scheduler's, the last 0

    def sigmas(self, model: Any) -> Tensor:
        """The noise levels KSampler would take; a sampler of ours takes its steps as DDIM does."""
        if self.levels is not None:
            return torch.tensor(self.levels, dtype=torch.float64).float()
        name = self.sampler if isinstance(self.sampler, str) else "ddim"
        host = comfy.samplers.KSampler(
            model, self.steps, model.load_device, name, self.scheduler, self.denoise, model.model_options
        )
        self._check(host.sigmas)
        return host.sigmas

    def _check(self, sigmas: Tensor) -> None:
        """ValueError for noise levels that no sampler can run at: kl_optimal has none for a single step."""
        if not bool(sigmas.isfinite().all()):
            steps = f"{self.steps} step{'s' if self.steps > 1 else ''}"
            raise ValueError(
                f"Scheduler {self.scheduler} gives noise levels that are not finite for {steps} of this model: "
                f"take {self.steps + 1} steps or more, or another scheduler, such as simple."
            )


def sample_latents(
    model: Any,
    latent: dict[str, Any],
    positive: Any,
    negative: Any,
    guider: comfy.samplers.CFGGuider,
    plan: Plan,
    callback: StepCallback,
) -> Tensor:
    """The same run that the host's KSampler makes, with our guider and callback; returns latents."""
    samples, sampler = latent["samples"], plan.sampler
    guider.set_conds(positive, negative)
    result = guider.sample(
        comfy.sample.prepare_noise(samples, plan.seed, latent.get("batch_index")),
        samples,
        comfy.samplers.sampler_object(sampler) if isinstance(sampler, str) else sampler,
        plan.sigmas(model),
        denoise_mask=latent.get("noise_mask"),
        callback=callback,
        disable_pbar=True,
        seed=plan.seed,
    )
    return result.to(comfy.model_management.intermediate_device(), compat.intermediate_dtype())


def constant_guider(model: Any, cfg: float) -> comfy.samplers.CFGGuider:
    """The host's own guider at one scale: exactly what KSampler uses."""
    guider = comfy.samplers.CFGGuider(model)
    guider.set_cfg(cfg)
    return guider


def with_clips(model: Any, frames: int, *conditionings: Any, total: int) -> tuple[Any, ...]:
    """(MODEL, CONDITIONINGs) told that a batch of `total` frames holds clips of `frames`.

    The host's SVD takes a batch for one clip, and stretches pictures of one clip over all of it. Others are as they
    were: image models see every frame alone unless they have motion modules.
    """
    if injection.has_motion(model):
        clone = model.clone()
        injection.set_clip_frames(clone, frames)
        return clone, *conditionings
    if total == frames:
        return model, *conditionings
    if getattr(model.model, "recipe", None) is not None:
        return model, *(set_conditioning(entries, **{NUM_FRAMES: frames}) for entries in conditionings)
    if not isinstance(model.model, comfy.model_base.SVD_img2vid):
        return model, *conditionings

    def told(executor: Any, *args: Any, **kwargs: Any) -> Tensor:
        # a context window tells its own number
        own = kwargs.get("num_video_frames", total)
        return executor(*args, **{**kwargs, "num_video_frames": frames if own == total else own})

    clone = model.clone()
    clone.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "kinetograph_clips", told)
    return clone, *(_for_all_clips(entries, frames, total // frames) for entries in conditionings)


def _for_all_clips(conditioning: Any, frames: int, count: int) -> Any:
    """A CONDITIONING whose pictures of one clip stand for each of several, and that tells how long one is."""
    repeated = []
    for tokens, values in conditioning:
        values, image = {**values, NUM_FRAMES: frames}, values.get(CONCAT)
        if image is not None and len(image) == frames:
            values = {**values, CONCAT: image.repeat(count, 1, 1, 1)}
        repeated.append([tokens, values])
    return repeated


def one_at_a_time(model: Any) -> Any:
    """A clone of a MODEL whose positive and negative passes run one after the other.

    The host puts both in one batch where it believes that memory allows: half the activations in turn cost
    little time for a clip, whose frames fill the device. A CALC_COND_BATCH wrapper of the host. The MODEL itself
    where the host splits the passes over devices (0.30, MultiGPU CFG Split): each then holds one pass anyway, and
    one after the other they would all run on the first.
    """
    if model.get_additional_models_with_key("multigpu"):
        return model
    clone = model.clone()
    clone.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, "kinetograph_one_at_a_time", _each_alone)
    return clone


def _each_alone(executor: Any, model: Any, conds: Any, *args: Any, **kwargs: Any) -> list[Tensor]:
    return [executor(model, [cond], *args, **kwargs)[0] for cond in conds]


def non_finite_weight(model: Any) -> str | None:
    """Name of the first weight of a MODEL that holds a NaN or infinity; None when all are finite."""
    for key, weight in model.model.diffusion_model.state_dict().items():
        if weight.is_floating_point() and not torch.isfinite(weight.float()).all():
            return key
    return None


def inference_dtype(model: Any) -> torch.dtype:
    """The dtype a MODEL computes in."""
    return model.model.get_dtype_inference()
