"""Clips of which something is given: pictures at their ends, a video with a mask, a video to follow."""

from .checks import check_choice, check_known, check_socket, checked, guarded
from .host.api import io
from .pipeline import inpainting
from .widgets import fit_input


class InpaintConditioning(io.ComfyNode):
    """Tells a model what is known of a clip, in the way that it was trained; the sampler makes the rest."""

    @classmethod
    @guarded
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KinetographInpaintConditioning",
            display_name="Inpaint Conditioning",
            category="kinetograph/conditioning",
            description="Start images, an end image, or a video with a mask, for CogVideoX-Fun InP, CogVideoX, SVD "
            "and image models with a motion module. Nothing connected: text to video.",
            search_aliases=["video inpaint", "first last frame", "cogvideox-fun", "outpaint", "end image"],
            inputs=[
                io.Model.Input(
                    "model", tooltip="The model that will sample: it tells how it learns what is known."
                ),
                io.Vae.Input("vae", tooltip="VAE of that model's loader."),
                io.Latent.Input(
                    "latent", tooltip="The latent that will be sampled: it tells size and length."
                ),
                io.Conditioning.Input(
                    "positive", optional=True, tooltip="Prompt of what to show. SVD takes none."
                ),
                io.Conditioning.Input(
                    "negative",
                    optional=True,
                    tooltip="Prompt of what to avoid; may be empty. SVD takes none.",
                ),
                io.Image.Input(
                    "start_images",
                    optional=True,
                    tooltip="The first frame, or the first few frames in order.",
                ),
                io.Image.Input(
                    "end_image",
                    optional=True,
                    tooltip="The last frame, or the last few in order; needs a start image.",
                ),
                io.Image.Input(
                    "video",
                    optional=True,
                    tooltip="A clip of the latent's length, of which the mask hides a part.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Over the video, white where it is made anew: one mask for all frames, or one per frame.",
                ),
                io.ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="Image encoder of the SVD checkpoint, for SVD alone.",
                ),
                fit_input(),
                _mode_input(),
            ],
            outputs=[
                io.Conditioning.Output("positive", tooltip="Positive prompt with what is known."),
                io.Conditioning.Output("negative", tooltip="Negative prompt with what is known."),
                io.Latent.Output(
                    "latent",
                    tooltip="For the sampler. Where the model has no other way, it holds what is known.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, model=None, *, mode=None) -> bool | str:
        """Refuse an unknown mode; `model` carries the answer, so it is checked here, too."""
        try:
            if model is not None:
                check_socket("model", "MODEL", model)
            check_known("mode", mode, inpainting.MODES)
            if mode and mode.get("mode") == inpainting.RESIZED:
                check_choice("mode.image_noise", mode.get("image_noise"), inpainting.NOISES)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    @checked
    def execute(
        cls, model, vae, latent, fit, mode, positive=None, negative=None, start_images=None, end_image=None,
        video=None, mask=None, clip_vision=None,
    ) -> io.NodeOutput:  # fmt: skip
        given = inpainting.Given(start_images, end_image, video, mask, fit)
        both, node = (positive, negative), "Inpaint Conditioning"
        return io.NodeOutput(*inpainting.inpaint(model, vae, latent, both, given, clip_vision, mode, node))


def _mode_input() -> io.DynamicCombo.Input:
    noise = io.Combo.Input(
        "image_noise",
        options=list(inpainting.NOISES),
        default=inpainting.AS_TRAINED,
        tooltip="Noise on what is known. as trained: as the model's config.json says (Fun V1.1 5B and V1.5: 0.0563).",
    )
    seed = io.Int.Input("seed", default=0, min=0, max=2**64 - 1, tooltip="Seed of that noise.")
    return io.DynamicCombo.Input(
        "mode",
        options=[
            io.DynamicCombo.Option(inpainting.RESIZED, [noise, seed]),
            io.DynamicCombo.Option(inpainting.VAE_LATENTS, []),
        ],
        tooltip="How the mask reaches the model. mask resized: as CogVideoX-Fun; mask as VAE latents: for models with "
        "three times the latent channels, such as ComfyUI's VOID.",
    )


class ControlVideoConditioning(io.ComfyNode):
    """Gives a CogVideoX-Fun Control or Pose checkpoint the video that every frame follows."""

    @classmethod
    @guarded
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KinetographControlVideoConditioning",
            display_name="Control Video Conditioning",
            category="kinetograph/conditioning",
            description="Encode a control video (pose, depth, edges, as the checkpoint was trained) and attach it to "
            "both prompts.",
            search_aliases=["controlnet video", "pose", "canny", "depth", "cogvideox-fun control"],
            inputs=[
                io.Conditioning.Input("positive", tooltip="Prompt of what to show."),
                io.Conditioning.Input("negative", tooltip="Prompt of what to avoid; may be empty."),
                io.Vae.Input("vae", tooltip="VAE of the model's loader."),
                io.Image.Input("video", tooltip="Frames to follow, as many as the latent has."),
                io.Latent.Input(
                    "latent", tooltip="The latent that will be sampled: it tells size and length."
                ),
                fit_input(),
            ],
            outputs=[
                io.Conditioning.Output("positive", tooltip="Positive prompt with the control video."),
                io.Conditioning.Output("negative", tooltip="Negative prompt with the control video."),
            ],
        )

    @classmethod
    @checked
    def execute(cls, positive, negative, vae, video, latent, fit) -> io.NodeOutput:
        both, node = (positive, negative), "Control Video Conditioning"
        return io.NodeOutput(*inpainting.follow(both, vae, video, latent, fit, node))


NODES = [InpaintConditioning, ControlVideoConditioning]
