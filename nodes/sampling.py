"""Sampling whole clips with the host's samplers and schedulers."""

import math

import torch
from torch import Tensor

from ..modules.adoption import recognise
from ..modules.families import FAMILIES
from ..modules.families.family import EDMSchedule
from ..modules.sampling import guidance as rules
from ..modules.sampling import samplers
from ..modules.sampling.contrast import enhance_contrast
from ..modules.sampling.previews import filmstrip
from ..modules.sampling.schedules import edm_levels
from .host import adoption, progress, sampling, values
from .host.api import io
from .host.checks import ABSENT, check_known, checked, guarded

GUIDANCE = ("constant", "dynamic cosine", "per-frame linear")
EDM = "edm"  # the one scheduler of ours, beside the host's
LONG_CLIP = ("off", "on")
BY_ID = {family.id: family for family in FAMILIES}
MAX_CFG = 100.0
CFG_TIP = "Classifier-free guidance scale; 1 turns it off and halves the work."


def _scale(name: str, default: float, tooltip: str) -> io.Float.Input:
    return io.Float.Input(name, default=default, min=0.0, max=MAX_CFG, step=0.1, tooltip=tooltip)


def guider_for(model, options: dict, steps: int, clip_frames: int | None):
    """The host's guider for a choice of the guidance DynamicCombo.

    `clip_frames`: frames of a clip where they lie on the batch axis, else None.
    """
    kind = options["guidance"]
    if kind == "constant":
        return sampling.constant_guider(model, options["cfg"])
    if kind == "dynamic cosine":
        rule = rules.dynamic_cosine(options["cfg"], steps, options["clock"])
    else:
        rule = rules.per_frame_linear(options["min_cfg"], options["max_cfg"])
    return sampling.ScheduledGuider(model, rule, clip_frames)


def sampler_for(model, name: str):
    """The host's sampler of that name, or one of ours wrapped for the host."""
    if name not in samplers.SAMPLERS:
        return name

    def start(x, denoise, sigmas, terminal, report, seed):
        draw = samplers.seeded_draws(x, seed)
        return samplers.SAMPLERS[name](x, samplers.Run(denoise, sigmas, terminal, draw, report))

    return sampling.wrap_sampler(model, start)


def levels_for(recipe, scheduler: str, steps: int, denoise: float) -> list[float] | None:
    """The noise levels of our own scheduler; None for the host's. ValueError for a model that has no such levels."""
    if scheduler != EDM:
        return None
    schedule = recipe.family.schedule(recipe.config)
    if not isinstance(schedule, EDMSchedule):
        raise ValueError(
            f"Scheduler {EDM} is for models with continuous noise levels, such as SVD: {recipe.label} has a "
            "discrete schedule, choose simple."
        )
    return edm_levels(steps, schedule.sigma_min, schedule.sigma_max, denoise)


def first_clip(x: Tensor, clip_frames: int | None) -> Tensor:
    """The first clip of a batch of latents as (c, t, h, w)."""
    return x[0] if clip_frames is None else x[:clip_frames].movedim(0, 1)


def finish(samples: Tensor, long_clip: dict, clip_frames: int | None) -> Tensor:
    """Latents with the contrast that the long-clip options ask for, clip by clip."""
    if long_clip.get("long_clip", "off") == "off":
        return samples
    if clip_frames is None:
        clips = [clip.movedim(0, 1) for clip in samples]
    else:
        clips = list(samples.split(clip_frames))
    done = [
        enhance_contrast(clip, long_clip["contrast_scale"], long_clip["equalise_frames"]) for clip in clips
    ]
    return torch.cat(done) if clip_frames else torch.stack([clip.movedim(0, 1) for clip in done])


def step_callback(model, label: str, steps: int, preview: bool, clip_frames: int | None):
    """Called by the sampler after each step: stops at the first bad value, moves the bar, shows a filmstrip."""
    bar = progress.steps(steps)
    colours = values.rgb_map(model)

    def callback(step, denoised, x, total):
        # A sum is one pass without a mask; only an odd one is looked at closer.
        if not math.isfinite(float(denoised.sum())) and not bool(denoised.isfinite().all()):
            raise ValueError(non_finite_message(model, label, step + 1, total))
        bar.advance(1, filmstrip(first_clip(denoised, clip_frames), *colours) if preview else None)

    return callback


def non_finite_message(model, label: str, step: int, total: int) -> str:
    """Why a run went non-finite, as far as it can be told: a damaged weight, or the dtype's range."""
    start = f"{label} gave a NaN or infinity at step {step} of {total}"
    if (key := sampling.non_finite_weight(model)) is not None:
        return f"{start}: the weight {key} is not finite. The checkpoint is damaged: get the file again."
    dtype = str(sampling.inference_dtype(model)).removeprefix("torch.")
    remedy = "choose weight_dtype bf16 or fp32 in the loader" if dtype != "float32" else "lower the guidance"
    return f"{start} while computing in {dtype}, with finite weights: {remedy}, or check LoRAs and prompts."


def long_clip_input() -> io.DynamicCombo.Input:
    """What long clips (ExVideo) may need: less memory, and contrast that does not fade."""
    return io.DynamicCombo.Input(
        "long_clip",
        optional=True,
        options=[
            io.DynamicCombo.Option("off", []),
            io.DynamicCombo.Option(
                "on",
                [
                    io.Boolean.Input(
                        "sequential_cfg",
                        default=True,
                        tooltip="Run the positive and the negative pass one after the other: half the memory.",
                    ),
                    io.Boolean.Input(
                        "equalise_frames",
                        default=True,
                        tooltip="Bring every frame's latents to the clip's mean and spread, as ExVideo does.",
                    ),
                    io.Float.Input(
                        "contrast_scale",
                        default=1.2,
                        min=0.1,
                        max=4.0,
                        step=0.05,
                        tooltip="Multiplies the finished latents; ExVideo: 1.2.",
                    ),
                ],
            ),
        ],
        tooltip="Options for long clips, such as ExVideo's 128 frames; off for all others.",
    )


class VideoSampler(io.ComfyNode):
    """KSampler for clips: the same numbers at equal settings, plus guidance schedules and a film preview."""

    @classmethod
    @guarded
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KinetographVideoSampler",
            display_name="Video Sampler",
            category="kinetograph/sampling",
            description="Sample a clip. Stops at the first value that is not finite and says why.",
            search_aliases=["ksampler video", "cogvideo sampler"],
            inputs=[
                io.Model.Input("model", tooltip="Video model of a loader of this pack."),
                io.Conditioning.Input("positive", tooltip="What to show."),
                io.Conditioning.Input("negative", tooltip="What to avoid; an empty prompt for CogVideoX."),
                io.Latent.Input("latent", tooltip="Empty latent, or an encoded clip for video to video."),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**64 - 1,
                    control_after_generate=True,
                    tooltip="Seed of the noise.",
                ),
                io.Int.Input("steps", default=50, min=1, max=1000, tooltip="Sampling steps; CogVideoX: 50."),
                io.DynamicCombo.Input(
                    "guidance",
                    options=[
                        io.DynamicCombo.Option("constant", [_scale("cfg", 6.0, CFG_TIP)]),
                        io.DynamicCombo.Option(
                            "dynamic cosine",
                            [
                                _scale("cfg", 6.0, "Guidance rises from 1 to 1 + cfg over the run."),
                                io.Combo.Input(
                                    "clock",
                                    options=list(rules.CLOCKS),
                                    tooltip="step: by the share of steps done, as CogVideoX's own code; "
                                    "timestep: as diffusers.",
                                ),
                            ],
                        ),
                        io.DynamicCombo.Option(
                            "per-frame linear",
                            [
                                _scale("min_cfg", 1.0, "Scale at the first frame."),
                                _scale("max_cfg", 6.0, "Scale at the last frame."),
                            ],
                        ),
                    ],
                    tooltip="How strongly the prompt pulls, and how that changes over steps or frames.",
                ),
                io.Combo.Input(
                    "sampler_name",
                    options=[*samplers.SAMPLERS, *sampling.SAMPLERS],
                    default="cogvideox_ddim",
                    tooltip="CogVideoX 2B: cogvideox_ddim, 5B and 1.5: cogvideox_dpm, both exact where the noise "
                    "schedule holds no signal; or any sampler of ComfyUI.",
                ),
                io.Combo.Input(
                    "scheduler",
                    options=[*sampling.SCHEDULERS, EDM],
                    default="simple",
                    tooltip="Any scheduler of ComfyUI; simple gives CogVideoX its trailing timesteps. edm is SVD's "
                    "own ramp (as karras), exact also below denoise 1.",
                ),
                io.Float.Input(
                    "denoise",
                    default=1.0,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    tooltip="Video to video: share of the noise schedule that is run. 1 ignores the clip.",
                ),
                io.Boolean.Input(
                    "preview", default=True, tooltip="Show a filmstrip of the clip as it forms."
                ),
                long_clip_input(),
            ],
            outputs=[io.Latent.Output("LATENT", tooltip="The sampled clip.")],
            # an unknown word for long_clip would not reach us otherwise
            accept_all_inputs=True,
        )

    @classmethod
    def validate_inputs(cls, preview=None, long_clip=ABSENT, *, guidance=None) -> bool | str:
        """Refuse an unknown choice: the host checks those of a DynamicCombo nowhere. `preview` carries the answer."""
        try:
            check_known("guidance", guidance, GUIDANCE)
            if long_clip is not ABSENT:
                check_known("long_clip", long_clip, LONG_CLIP)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    @checked
    def execute(
        cls,
        model,
        positive,
        negative,
        latent,
        seed,
        steps,
        guidance,
        sampler_name,
        scheduler,
        denoise,
        preview,
        long_clip=None,
    ) -> io.NodeOutput:
        long_clip = long_clip or {}
        model = adoption.own_model(model, "Video Sampler", BY_ID, recognise)
        recipe = model.model.recipe
        values.read_latent(latent, recipe.family.grid, recipe.label)
        clip_frames = None
        if recipe.family.grid.frames_on_batch:
            clip_frames, _ = values.clip_frames(latent)
            values.check_clips(clip_frames, positive, negative)
        if long_clip.get("sequential_cfg"):
            model = sampling.one_at_a_time(model)
        levels = levels_for(recipe, scheduler, steps, denoise)
        plan = sampling.Plan(sampler_for(model, sampler_name), scheduler, steps, denoise, seed, levels)
        guider = guider_for(model, guidance, steps, clip_frames)
        callback = step_callback(model, recipe.label, steps, preview, clip_frames)
        samples = sampling.sample_latents(model, latent, positive, negative, guider, plan, callback)
        return io.NodeOutput({**latent, "samples": finish(samples, long_clip, clip_frames)})


NODES = [VideoSampler]
