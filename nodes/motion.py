"""Layers added to a MODEL for longer clips, or for other motion, than it was trained on."""

from ..modules.weights.files import FileIdentity
from .checks import checked, guarded
from .host.api import io
from .pipeline import exvideo as extension
from .pipeline import motion


class ExVideoPatch(io.ComfyNode):
    """Extends SVD to 128 frames and CogVideoX 5B to 129 (ExVideo, arXiv 2406.14130); what comes in stays as it is."""

    @classmethod
    @guarded
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KinetographExVideoPatch",
            display_name="ExVideo Patch",
            category="kinetograph/motion",
            description="Extend an SVD model to 128 frames with ExVideo's temporal layers (learned positions and a "
            "convolution over space and time), or CogVideoX 5B to 129 with its LoRA.",
            search_aliases=["exvideo", "long video", "svd 128 frames", "cogvideox 129 frames"],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="SVD model, from SVD Loader or of the host's image only checkpoint loader, or CogVideoX "
                    "5B from CogVideoX Loader.",
                ),
                io.Combo.Input(
                    "exvideo",
                    options=extension.list_files(),
                    tooltip="ExVideo file: for SVD (528 tensors) in SVD, diffusion_models or checkpoints; for CogVideoX "
                    "5B (a LoRA of 336 modules) in loras.",
                ),
            ],
            outputs=[io.Model.Output("MODEL", tooltip="The model with ExVideo's layers, or with its LoRA.")],
        )

    @classmethod
    def validate_inputs(cls, exvideo=None) -> bool | str:
        """Read the header when the prompt is posted: a wrong file is an error before anything runs."""
        return extension.post_problem(exvideo) or True

    @classmethod
    def fingerprint_inputs(cls, exvideo=None, **_) -> list[FileIdentity]:
        """Load again when the file was replaced under its name."""
        return extension.fingerprint(exvideo)

    @classmethod
    @checked
    def execute(cls, model, exvideo) -> io.NodeOutput:
        return io.NodeOutput(extension.extend(model, exvideo, "ExVideo Patch"))


class MotionModuleApply(io.ComfyNode):
    """Puts motion modules into an image model, AnimateDiff's (arXiv 2307.04725) or EasyAnimate v1's; what comes in stays."""

    @classmethod
    @guarded
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KinetographMotionModuleApply",
            display_name="Motion Module Apply",
            category="kinetograph/motion",
            description="Make clips with an SD1.5, SDXL or PixArt model: AnimateDiff's motion modules v1, v2, v3, SDXL beta, "
            "AnimateDiff-Lightning and AnimateLCM, and EasyAnimate v1's.",
            search_aliases=[
                "animatediff",
                "motion module",
                "animatediff loader",
                "animatelcm",
                "lightning",
                "easyanimate",
            ],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="SD1.5 or SDXL model of any loader of ComfyUI, with LoRAs and patches or without; for EasyAnimate's "
                    "module the PixArt model of PixArt Loader.",
                ),
                io.Combo.Input(
                    "motion_module",
                    options=motion.list_modules(),
                    tooltip="Motion module file, .safetensors or .ckpt: AnimateDiff's in models/animatediff_models, EasyAnimate's "
                    "in models/Motion_Module.",
                ),
                io.Combo.Input(
                    "beta_schedule",
                    options=list(motion.SCHEDULES),
                    default=motion.AS_TRAINED,
                    tooltip="Noise schedule. 'as trained' is that of the motion module: linear in beta for SD1.5 "
                    "(ComfyUI's sqrt_linear), to 0.020 for SDXL beta, the model's own for PixArt; 'use existing' keeps the "
                    "model's own.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.01,
                    tooltip="Strength of motion: of what the modules add. 0 adds nothing, 1 is as trained.",
                ),
                io.Combo.Input(
                    "version",
                    options=list(motion.NAMED),
                    default=motion.FROM_FILE,
                    tooltip="Which release of AnimateDiff the file is. It tells by itself, but for a v1 or v3 that was saved "
                    "without its position table: their norms differ, so that one must be named.",
                ),
                io.Int.Input(
                    "num_frames",
                    default=0,
                    min=0,
                    max=4096,
                    tooltip="Frames of one clip where KSampler makes several at once. 0: the whole batch is one clip. Video "
                    "Sampler reads it off the latent.",
                ),
            ],
            outputs=[io.Model.Output("MODEL", tooltip="The model with motion modules and their schedule.")],
        )

    @classmethod
    def validate_inputs(cls, motion_module=None, version=None) -> bool | str:
        """Read the header when the prompt is posted: a wrong file is an error before anything runs."""
        return motion.post_problem(motion_module, version) or True

    @classmethod
    def fingerprint_inputs(cls, motion_module=None, **_) -> list[FileIdentity]:
        """Load again when the file was replaced under its name."""
        return motion.fingerprint(motion_module)

    @classmethod
    @checked
    def execute(cls, model, motion_module, beta_schedule, strength, version, num_frames) -> io.NodeOutput:
        settings = motion.Settings(strength, beta_schedule, version, num_frames)
        return io.NodeOutput(motion.apply(model, motion_module, settings, "Motion Module Apply"))


NODES = [ExVideoPatch, MotionModuleApply]
