"""Pictures that a clip starts from, attached to what a sampler is told."""

from .checks import checked, guarded
from .host.api import io
from .pipeline import encoding
from .widgets import fit_input, posterior_input, posterior_problem

MAX_GAIN = 10.0
MAX_FPS, MAX_BUCKET, MAX_AUGMENTATION = 120, 1023, 10.0


class ImageToVideoConditioning(io.ComfyNode):
    """Gives an image-to-video checkpoint the picture that the clip starts from."""

    @classmethod
    @guarded
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KinetographImageToVideoConditioning",
            display_name="Image To Video Conditioning",
            category="kinetograph/conditioning",
            description="Encode a first frame and attach it to both prompts, for I2V checkpoints.",
            search_aliases=["i2v", "first frame", "start image"],
            inputs=[
                io.Conditioning.Input("positive", tooltip="Prompt of what to show."),
                io.Conditioning.Input("negative", tooltip="Prompt of what to avoid; may be empty."),
                io.Vae.Input("vae", tooltip="VAE of the model's family."),
                io.Image.Input("image", tooltip="The first frame. Of several images only the first is used."),
                io.Latent.Input(
                    "latent", tooltip="The latent that will be sampled: it tells size and length."
                ),
                fit_input(),
                posterior_input(),
                io.Float.Input(
                    "latent_gain",
                    default=1.0,
                    min=0.0,
                    max=MAX_GAIN,
                    step=0.0001,
                    advanced=True,
                    tooltip="Multiplies the image latents. 1.0 is as trained; diffusers feeds 1.5-5B-I2V "
                    "1/0.7 = 1.4286.",
                ),
            ],
            outputs=[
                io.Conditioning.Output("positive", tooltip="Positive prompt with the image."),
                io.Conditioning.Output("negative", tooltip="Negative prompt with the image."),
            ],
        )

    @classmethod
    def validate_inputs(cls, image=None, *, posterior=None) -> bool | str:
        """Refuse an unknown way to read the posterior; `image` carries the answer, so it is checked here, too."""
        return posterior_problem(posterior, "image", image) or True

    @classmethod
    @checked
    def execute(cls, positive, negative, vae, image, latent, fit, posterior, latent_gain) -> io.NodeOutput:
        both, node, draw = (positive, negative), "Image To Video Conditioning", posterior.get("seed")
        return io.NodeOutput(
            *encoding.start_from_image(both, vae, image, latent, fit, draw, latent_gain, node)
        )


class SVDConditioning(io.ComfyNode):
    """Everything SVD is told: the picture for both encoders, frame rate, motion and noise."""

    @classmethod
    @guarded
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KinetographSVDConditioning",
            display_name="SVD Conditioning",
            category="kinetograph/conditioning",
            description="Picture, frame rate, motion and augmentation noise for Stable Video Diffusion and "
            "ExVideo, prepared exactly as in training.",
            search_aliases=[
                "svd img2vid",
                "stable video diffusion",
                "motion bucket",
                "micro-conditioning",
            ],
            inputs=[
                io.ClipVision.Input("clip_vision", tooltip="Image encoder of the SVD checkpoint."),
                io.Vae.Input("vae", tooltip="VAE of the SVD checkpoint."),
                io.Image.Input("image", tooltip="The picture to set in motion, or one picture per frame."),
                io.Latent.Input(
                    "latent", tooltip="The latent that will be sampled: it tells size and frame count."
                ),
                io.Int.Input(
                    "fps",
                    default=7,
                    min=1,
                    max=MAX_FPS,
                    tooltip="Frames per second the motion is meant for.",
                ),
                io.Int.Input(
                    "motion_bucket_id",
                    default=127,
                    min=0,
                    max=MAX_BUCKET,
                    tooltip="How much moves: trained on 0 to 255, more is more.",
                ),
                io.Float.Input(
                    "noise_aug_strength",
                    default=0.02,
                    min=0.0,
                    max=MAX_AUGMENTATION,
                    step=0.001,
                    tooltip="Noise added to the picture: more lets the clip leave it further. ExVideo was "
                    "trained with 0.",
                ),
                io.Int.Input("seed", default=0, min=0, max=2**64 - 1, tooltip="Seed of that noise."),
                fit_input(),
            ],
            outputs=[
                io.Conditioning.Output("positive", tooltip="The picture, for a sampler."),
                io.Conditioning.Output("negative", tooltip="No picture, the same numbers: for a sampler."),
            ],
        )

    @classmethod
    @checked
    def execute(
        cls, clip_vision, vae, image, latent, fps, motion_bucket_id, noise_aug_strength, seed, fit
    ) -> io.NodeOutput:
        numbers = {
            # SVD's own models subtract 1
            "fps": fps,
            "motion_bucket_id": motion_bucket_id,
            "augmentation_level": noise_aug_strength,
        }
        return io.NodeOutput(
            *encoding.condition_svd(clip_vision, vae, image, latent, numbers, fit, seed, "SVD Conditioning")
        )


NODES = [ImageToVideoConditioning, SVDConditioning]
