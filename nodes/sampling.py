"""Sampling whole clips with the host's samplers and schedulers."""

from ..modules.sampling.samplers import SAMPLERS as OURS
from .checks import ABSENT, check_known, checked, guarded
from .host.api import io
from .host.sampling import SAMPLERS, SCHEDULERS
from .pipeline import sampling as pipeline
from .widgets import guidance_options, long_clip_input


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
                io.Model.Input(
                    "model",
                    tooltip="Video model of a loader of this pack, or the host's own: SVD; SD1.5 or SDXL, whose clips are "
                    "batches of pictures.",
                ),
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
                io.Int.Input(
                    "steps",
                    default=50,
                    min=1,
                    max=1000,
                    tooltip="Sampling steps; CogVideoX: 50. Few-step models: AnimateDiff-Lightning the number in the "
                    "file's name, AnimateLCM 4 to 8, AnimateLCM-SVD and TDM 4.",
                ),
                io.DynamicCombo.Input(
                    "guidance",
                    options=[io.DynamicCombo.Option(name, parts) for name, parts in guidance_options()],
                    tooltip="How strongly the prompt pulls, and how that changes over steps or frames.",
                ),
                io.Combo.Input(
                    "sampler_name",
                    options=[*OURS, *SAMPLERS],
                    default="cogvideox_ddim",
                    tooltip="CogVideoX 2B: cogvideox_ddim, 5B and 1.5: cogvideox_dpm, both exact where the noise "
                    "schedule holds no signal; or any sampler of ComfyUI. Few-step models: lcm for AnimateLCM and "
                    "AnimateLCM-SVD, euler for AnimateDiff-Lightning, cogvideox_ddim for TDM.",
                ),
                io.Combo.Input(
                    "scheduler",
                    options=[*SCHEDULERS, *pipeline.SCHEDULERS],
                    default="simple",
                    tooltip="Any scheduler of ComfyUI. trailing is CogVideoX's own for every number of steps; simple is the "
                    "same where it divides 1000, else up to one timestep off. edm is SVD's own ramp (as karras), exact "
                    "also below denoise 1. For models distilled to few steps, and no others: trailing for "
                    "AnimateDiff-Lightning; animatelcm_svd; lcm_100 for AnimateLCM, lcm_50 for other LCMs; tdm for "
                    "TDM's LoRA on CogVideoX 2B, at 4 steps (at others trailing).",
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
            check_known("guidance", guidance, pipeline.GUIDANCE)
            if long_clip is not ABSENT:
                check_known("long_clip", long_clip, pipeline.LONG_CLIP)
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
        settings = pipeline.Settings(
            seed, steps, guidance, sampler_name, scheduler, denoise, preview, long_clip or {}
        )
        return io.NodeOutput(pipeline.sample(model, positive, negative, latent, settings, "Video Sampler"))


NODES = [VideoSampler]
