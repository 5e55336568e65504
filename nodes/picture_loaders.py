"""Loaders of models that make pictures, and clips with a motion module."""

from ..modules.families import PIXART
from ..modules.families.pixart.captions import LOWER_CASE, PREPARATIONS
from ..modules.weights.files import FileIdentity
from .checks import checked, guarded
from .host.api import io
from .pipeline import loading, models, pixart, pocket
from .widgets import part_input, weight_dtype_input


class PixArtLoader(io.ComfyNode):
    """Loads PixArt-alpha (arXiv 2310.00426), the base of EasyAnimate v1: folders, single files and original .pth files."""

    @classmethod
    @guarded
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KinetographPixArtLoader",
            display_name="PixArt Loader",
            category="kinetograph/loaders",
            description="Load PixArt-alpha 512 or 1024: pictures, or clips with EasyAnimate v1's motion module.",
            search_aliases=["pixart", "easyanimate", "pixart-alpha", "text to video", "portrait"],
            inputs=[
                io.Combo.Input(
                    "model",
                    options=models.list_parts(PIXART, "diffusion_model"),
                    tooltip="Transformer file, or a diffusers folder that holds all three parts. Looked for in "
                    "diffusion_models, checkpoints and EasyAnimate's Diffusion_Transformer, Personalized_Model and "
                    "Motion_Module.",
                ),
                part_input(
                    PIXART,
                    "text_encoder",
                    loading.FROM_MODEL,
                    ("vae", "text_encoder"),
                    "T5 v1.1 encoder, such as t5xxl_fp16.safetensors in text_encoders.",
                ),
                part_input(
                    PIXART,
                    "vae",
                    loading.FROM_MODEL,
                    ("vae", "tiny_vae", "text_encoder"),
                    "VAE of SD1.5, such as vae-ft-mse-840000-ema-pruned.safetensors in vae.",
                ),
                weight_dtype_input(),
                io.Combo.Input(
                    "personalized",
                    options=pixart.list_personalized(),
                    default=pixart.NONE,
                    tooltip="Checkpoint whose weights take the place of the model's, such as "
                    "easyanimate_portrait.safetensors; what it does not hold stays.",
                ),
                io.Combo.Input(
                    "captions",
                    options=list(PREPARATIONS),
                    default=LOWER_CASE,
                    advanced=True,
                    tooltip="How prompts are prepared. DeepFloyd cleaning is that of PixArt's training: it also takes out "
                    "addresses, markup and brackets, with them prompt weights, and needs beautifulsoup4 and ftfy.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    "MODEL",
                    tooltip="The transformer, for pictures; for clips put Motion Module Apply behind it.",
                ),
                io.Clip.Output("CLIP", tooltip="The text encoder, for CLIP Text Encode."),
                io.Vae.Output("VAE", tooltip="The VAE of SD1.5."),
            ],
        )

    @classmethod
    def validate_inputs(
        cls, model=None, text_encoder=None, vae=None, personalized=None, captions=None
    ) -> bool | str:
        """Read the headers when the prompt is posted: a wrong file is an error before anything runs."""
        return pixart.problem(model, text_encoder, vae, personalized, captions) or True

    @classmethod
    def fingerprint_inputs(
        cls, model=None, text_encoder=None, vae=None, personalized=None, **_
    ) -> list[FileIdentity]:
        """Load again when a file was replaced under its name."""
        return pixart.fingerprint(model, text_encoder, vae, personalized)

    @classmethod
    @checked
    def execute(
        cls, model: str, text_encoder: str, vae: str, weight_dtype: str, personalized: str, captions: str
    ) -> io.NodeOutput:
        files = pixart.Files(model, text_encoder, vae, personalized)
        return io.NodeOutput(*pixart.load(files, weight_dtype, captions))


class PocketLoader(io.ComfyNode):
    """Loads the pocket SD, a small SD1.5 with TAESD and T5, as the host's own SD1.5: for trying nodes and for tests."""

    @classmethod
    @guarded
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KinetographPocketLoader",
            display_name="Pocket Loader",
            category="kinetograph/loaders",
            description="Load the pocket SD that comes with this pack: a tiny SD1.5 to try motion modules with.",
            search_aliases=["pocket sd", "tiny sd", "sd1.5", "animatediff", "load checkpoint"],
            is_experimental=True,
            inputs=[
                io.Combo.Input(
                    "model",
                    options=models.list_picture_models(),
                    tooltip="The pocket SD's file, pocket-sd.safetensors. Looked for in SD.",
                ),
            ],
            outputs=[
                io.Model.Output("MODEL", tooltip="The UNet, as ComfyUI's own SD1.5."),
                io.Clip.Output("CLIP", tooltip="The T5 encoder, for CLIP Text Encode."),
                io.Vae.Output("VAE", tooltip="TAESD, for VAE Encode and VAE Decode."),
            ],
        )

    @classmethod
    def validate_inputs(cls, model=None) -> bool | str:
        """Read the header when the prompt is posted: a wrong file is an error before anything runs."""
        return pocket.problem(model) or True

    @classmethod
    def fingerprint_inputs(cls, model=None) -> list[FileIdentity]:
        """Load again when the file was replaced under its name."""
        return pocket.fingerprint(model)

    @classmethod
    @checked
    def execute(cls, model: str) -> io.NodeOutput:
        return io.NodeOutput(*pocket.load_pocket(model))


NODES = [PixArtLoader, PocketLoader]
