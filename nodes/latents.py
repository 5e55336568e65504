"""What a sampler starts from: empty clips, encoded clips, clips with frames that stay; and of what size."""

from ..modules.conditioning.pinned_frames import parse_frames
from ..modules.conditioning.sizes import LEAST, MOST, TOKENS
from .checks import check_choice, check_known, check_number, checked, guarded
from .host.api import io
from .pipeline import encoding, latents, media
from .widgets import (
    MAX_FRAMES,
    MAX_SIZE,
    fit_input,
    media_input,
    posterior_input,
    posterior_problem,
    size_input,
)

SIZE_TIP = "Pixels: CogVideoX in steps of 16, SVD of 64. 0: what the model was trained on."


class VideoLatent(io.ComfyNode):
    """An empty clip in a family's latent layout, told in pixels and frames."""

    @classmethod
    @guarded
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KinetographVideoLatent",
            display_name="Video Latent",
            category="kinetograph/conditioning",
            description="Empty latent clip. Sizes and frame counts that the family cannot make are refused.",
            search_aliases=["empty latent video", "cogvideox empty latent"],
            inputs=[
                io.Combo.Input(
                    "family",
                    options=[*latents.GRIDS, latents.FROM_MODEL],
                    tooltip="Family of the model that will sample; 'from the model': whatever is connected.",
                ),
                size_input("width", 720, SIZE_TIP),
                size_input("height", 480, SIZE_TIP),
                io.Int.Input(
                    "num_frames",
                    default=49,
                    min=0,
                    max=MAX_FRAMES,
                    tooltip="Pixel frames. CogVideoX: one more than a multiple of 4, 49, 1.5 81 or 161; SVD 14, XT 25, "
                    "ExVideo 128. 0: what the model was trained on.",
                ),
                io.Int.Input(
                    "batch_size", default=1, min=1, max=64, tooltip="How many clips to make at once."
                ),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="Only needed where a size is 0 or the family comes from it; else it must be of that family.",
                ),
            ],
            outputs=[
                io.Latent.Output(
                    "LATENT",
                    tooltip="Zeros of (batch, channels, frames, height, width); SVD: (frames, 4, height, width).",
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, family=None, width=None, height=None, num_frames=None) -> bool | str:
        """Refuse sizes and counts that do not fold, naming the nearest that do, when the prompt is posted."""
        try:
            check_choice("family", family, (*latents.GRIDS, latents.FROM_MODEL))
            check_number("width", width, 0, MAX_SIZE)
            check_number("height", height, 0, MAX_SIZE)
            check_number("num_frames", num_frames, 0, MAX_FRAMES)
        except ValueError as error:
            return str(error)
        return latents.size_problem(family, (width, height, num_frames)) or True

    @classmethod
    @checked
    def execute(cls, family, width, height, num_frames, batch_size, model=None) -> io.NodeOutput:
        size = (width, height, num_frames)
        return io.NodeOutput(latents.empty_clips(family, size, batch_size, model, "Video Latent"))


class VAEEncodeChunked(io.ComfyNode):
    """Encodes a clip for video to video, with memory that does not grow with its length."""

    @classmethod
    @guarded
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KinetographVAEEncodeChunked",
            display_name="VAE Encode (Chunked)",
            category="kinetograph/conditioning",
            description="Encode a clip chunk by chunk, exactly. Frame counts that do not fold are refused.",
            search_aliases=["vae encode video", "video to video", "v2v"],
            inputs=[
                io.Vae.Input(
                    "vae", tooltip="VAE of the model's family, from its loader, or one of SD1.5 or SDXL."
                ),
                media_input(
                    "images",
                    "Frames of the clip, or a VIDEO that is read as it is encoded; CogVideoX: 1, 9, 17, ... 49.",
                ),
                posterior_input(),
            ],
            outputs=[
                io.Latent.Output("LATENT", tooltip="The clip as latents, for a sampler with denoise < 1.")
            ],
        )

    @classmethod
    def validate_inputs(cls, images=None, *, posterior=None) -> bool | str:
        """Refuse an unknown way to read the posterior; `images` carries the answer, so it is checked here, too."""
        return posterior_problem(posterior, "images", images, "IMAGE,VIDEO") or True

    @classmethod
    @checked
    def execute(cls, vae, images, posterior) -> io.NodeOutput:
        return io.NodeOutput(encoding.encode_clip(vae, images, posterior.get("seed"), "VAE Encode (Chunked)"))


class PinFrames(io.ComfyNode):
    """Holds chosen frames of a clip to given pictures while the rest is sampled."""

    @classmethod
    @guarded
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KinetographPinFrames",
            display_name="Pin Frames",
            category="kinetograph/conditioning",
            description="Fix frames of a clip to pictures: the sampler fills in the others. For families "
            "with frames on the batch axis, such as SVD and ExVideo.",
            search_aliases=["keyframes", "first last frame", "inpaint frames", "frame interpolation"],
            inputs=[
                io.Latent.Input("latent", tooltip="The clip that will be sampled."),
                io.Vae.Input("vae", tooltip="VAE of the model that will sample."),
                io.Image.Input("images", tooltip="One picture for each frame number, in that order."),
                io.String.Input(
                    "frames",
                    default="0",
                    tooltip="Frame numbers from 0, such as 0, 31; negative ones count from the end: -1 is "
                    "the last.",
                ),
                fit_input(),
            ],
            outputs=[io.Latent.Output("LATENT", tooltip="The clip with its pinned frames, for a sampler.")],
        )

    @classmethod
    def validate_inputs(cls, frames=None) -> bool | str:
        """Refuse text that is no list of frame numbers; whether they fit the clip is known when it is."""
        try:
            if frames is not None:
                parse_frames(frames)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    @checked
    def execute(cls, latent, vae, images, frames, fit) -> io.NodeOutput:
        return io.NodeOutput(encoding.pin(latent, vae, images, frames, fit, "Pin Frames"))


class SizeFromImage(io.ComfyNode):
    """Finds the size and the length of a clip that starts from a picture, or is made of a video."""

    @classmethod
    @guarded
    def define_schema(cls) -> io.Schema:
        base = io.Int.Input(
            "base",
            default=512,
            min=LEAST,
            max=MOST,
            step=64,
            tooltip="Pixels on a side of a square of that area: 512, 768, 960, 1024 or 1280.",
        )
        tokens = io.Combo.Input(
            "tokens",
            options=list(map(str, TOKENS)),
            default=str(max(TOKENS)),
            tooltip="Tokens of a clip, as in Fun's training: 49 frames at 512, at 768, at 1024.",
        )
        return io.Schema(
            node_id="KinetographSizeFromImage",
            display_name="Size From Image",
            category="kinetograph/conditioning",
            description="Find a clip's size from a picture or a video: the nearest aspect ratio that "
            "CogVideoX-Fun was trained on, or its own size, and how many frames fit.",
            search_aliases=["resize to the start image", "aspect ratio", "resolution", "bucket size"],
            inputs=[
                media_input("image", "The picture that the clip starts from, or the video it is made of."),
                io.DynamicCombo.Input(
                    "rule",
                    options=[
                        io.DynamicCombo.Option("bucket", [base]),
                        io.DynamicCombo.Option("tokens", [base, tokens]),
                        io.DynamicCombo.Option("keep", []),
                    ],
                    tooltip="bucket: the nearest of 40 aspect ratios; tokens: so, too, with fewer frames where the "
                    "clip is large; keep: its own size, 256 to 1280 pixels a side.",
                ),
                io.Int.Input(
                    "num_frames",
                    default=49,
                    min=0,
                    max=MAX_FRAMES,
                    tooltip="Frames at most. 0: as many as the video has, or as the model was trained on.",
                ),
                io.Model.Input(
                    "model",
                    optional=True,
                    tooltip="The model that will sample: its sizes and frame counts. Without: CogVideoX's.",
                ),
            ],
            outputs=[
                io.Int.Output("width", tooltip="Pixels."),
                io.Int.Output("height", tooltip="Pixels."),
                io.Int.Output("num_frames", tooltip="Frames that the model can make."),
                io.String.Output("report", tooltip="What came, what was chosen and why, what is cut off."),
            ],
        )

    @classmethod
    def validate_inputs(cls, image=None, *, rule=None) -> bool | str:
        """Refuse an unknown rule; `image` carries the answer."""
        try:
            check_known("rule", rule, media.RULES)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    @checked
    def execute(cls, image, rule, num_frames, model=None) -> io.NodeOutput:
        tokens = int(rule["tokens"]) if "tokens" in rule else None
        chosen = media.SizeRule(rule["rule"], rule.get("base", 0), tokens)
        return io.NodeOutput(*media.choose_size(image, chosen, num_frames, model, "Size From Image"))


NODES = [VideoLatent, VAEEncodeChunked, PinFrames, SizeFromImage]
