"""One loader per kind of checkpoint: files in, MODEL, CLIP and VAE of the host out."""

from ..modules.families import COGVIDEOX, PIXART, SVD
from ..modules.families.pixart.captions import LOWER_CASE, PREPARATIONS
from ..modules.weights.files import FileIdentity
from .checks import checked, guarded
from .host.api import io
from .pipeline import loading, models, pixart, pocket, sparse_ctrl
from .widgets import part_input, weight_dtype_input


class CogVideoXLoader(io.ComfyNode):
    """Loads CogVideoX (arXiv 2408.06072) and CogVideoX-Fun for the host's own nodes: 2B, 5B and 1.5, all variants."""

    @classmethod
    @guarded
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KinetographCogVideoXLoader",
            display_name="CogVideoX Loader",
            category="kinetograph/loaders",
            description="Load a CogVideoX or CogVideoX-Fun checkpoint: a diffusers folder, or single files.",
            search_aliases=["cogvideo", "cogvideox", "cogvideox-fun", "text to video", "image to video"],
            inputs=[
                io.Combo.Input(
                    "model",
                    options=models.list_parts(COGVIDEOX, "diffusion_model"),
                    tooltip="Transformer file, or a diffusers folder that holds all three parts. Looked for in "
                    "diffusion_models, checkpoints and CogVideo.",
                ),
                part_input(
                    COGVIDEOX,
                    "text_encoder",
                    loading.FROM_MODEL,
                    ("vae", "text_encoder"),
                    "T5 v1.1 encoder, such as t5xxl_fp16.safetensors in text_encoders.",
                ),
                part_input(
                    COGVIDEOX,
                    "vae",
                    loading.FROM_MODEL,
                    ("vae", "text_encoder"),
                    "CogVideoX 3D VAE, in vae or CogVideo.",
                ),
                weight_dtype_input(),
                io.Combo.Input(
                    "decode",
                    options=list(loading.DECODE),
                    default=loading.FROM_TRANSFORMER,
                    optional=True,
                    advanced=True,
                    tooltip="How the VAE cuts a clip to decode it. fun: the first latent frame alone, then pairs, as "
                    "CogVideoX-Fun from V1.5 on; base: as all others.",
                ),
            ],
            outputs=[
                io.Model.Output("MODEL", tooltip="The transformer."),
                io.Clip.Output("CLIP", tooltip="The text encoder, for CLIP Text Encode."),
                io.Vae.Output("VAE", tooltip="The 3D causal VAE."),
            ],
        )

    @classmethod
    def validate_inputs(cls, model=None, text_encoder=None, vae=None) -> bool | str:
        """Read the headers when the prompt is posted: a wrong file is an error before anything runs."""
        return loading.parts_problem(COGVIDEOX, model, text_encoder=text_encoder, vae=vae) or True

    @classmethod
    def fingerprint_inputs(cls, model=None, text_encoder=None, vae=None, **_) -> list[FileIdentity]:
        """Load again when a file was replaced under its name."""
        return loading.fingerprint(model, text_encoder=text_encoder, vae=vae)

    @classmethod
    @checked
    def execute(
        cls,
        model: str,
        text_encoder: str,
        vae: str,
        weight_dtype: str,
        decode: str = loading.FROM_TRANSFORMER,
    ) -> io.NodeOutput:
        return io.NodeOutput(*loading.load_cogvideox(model, text_encoder, vae, weight_dtype, decode))


class SVDLoader(io.ComfyNode):
    """Loads Stable Video Diffusion (arXiv 2311.15127): svd, svd_xt and XT 1.1, single files and diffusers folders."""

    @classmethod
    @guarded
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KinetographSVDLoader",
            display_name="SVD Loader",
            category="kinetograph/loaders",
            description="Load a Stable Video Diffusion checkpoint: svd, svd_xt or XT 1.1, one file or a diffusers "
            "folder.",
            search_aliases=[
                "stable video diffusion",
                "svd_xt",
                "img2vid",
                "image only checkpoint loader",
            ],
            inputs=[
                io.Combo.Input(
                    "model",
                    options=models.list_parts(SVD, "diffusion_model"),
                    tooltip="Checkpoint file or diffusers folder. Looked for in checkpoints, diffusion_models and "
                    "SVD.",
                ),
                part_input(
                    SVD,
                    "image_encoder",
                    loading.FROM_CHECKPOINT,
                    ("image_encoder",),
                    "CLIP ViT-H/14 of the checkpoint, or another file that holds it.",
                ),
                part_input(
                    SVD,
                    "vae",
                    loading.FROM_CHECKPOINT,
                    ("vae",),
                    "The VAE with the temporal decoder, or another file that holds it.",
                ),
                weight_dtype_input(),
            ],
            outputs=[
                io.Model.Output("MODEL", tooltip="The UNet."),
                io.ClipVision.Output("CLIP_VISION", tooltip="The image encoder, for SVD Conditioning."),
                io.Vae.Output("VAE", tooltip="Image encoder and temporal decoder."),
            ],
        )

    @classmethod
    def validate_inputs(cls, model=None, image_encoder=None, vae=None) -> bool | str:
        """Read the headers when the prompt is posted: a wrong file is an error before anything runs."""
        return loading.parts_problem(SVD, model, image_encoder=image_encoder, vae=vae) or True

    @classmethod
    def fingerprint_inputs(cls, model=None, image_encoder=None, vae=None, **_) -> list[FileIdentity]:
        """Load again when a file was replaced under its name."""
        return loading.fingerprint(model, image_encoder=image_encoder, vae=vae)

    @classmethod
    @checked
    def execute(cls, model: str, image_encoder: str, vae: str, weight_dtype: str) -> io.NodeOutput:
        return io.NodeOutput(*loading.load_svd(model, image_encoder, vae, weight_dtype))


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


class SparseCtrlLoader(io.ComfyNode):
    """Loads SparseCtrl (arXiv 2311.16933) with the numbers of its key frames, for the host's Apply ControlNet."""

    @classmethod
    @guarded
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KinetographSparseCtrlLoader",
            display_name="SparseCtrl Loader",
            category="kinetograph/loaders",
            description="Load SparseCtrl rgb or scribble: key frames for AnimateDiff v3, through ComfyUI's Apply "
            "ControlNet.",
            search_aliases=[
                "sparsectrl",
                "sparse control",
                "keyframes",
                "animatediff controlnet",
                "frame interpolation",
            ],
            inputs=[
                io.Combo.Input(
                    "sparsectrl",
                    options=sparse_ctrl.list_files(),
                    tooltip="SparseCtrl file, .safetensors or .ckpt, in models/controlnet or models/animatediff_models.",
                ),
                io.String.Input(
                    "key_frames",
                    default="0",
                    tooltip="Frame numbers of the pictures, in their order, such as 0, 8, -1; negative ones count from the "
                    "end: -1 is the last.",
                ),
            ],
            outputs=[
                io.ControlNet.Output(
                    "CONTROL_NET",
                    tooltip="For Apply ControlNet, with one picture a key frame and, for rgb, the VAE.",
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, sparsectrl=None, key_frames=None) -> bool | str:
        """Read the header and the numbers when the prompt is posted: what is wrong is an error before anything runs."""
        return sparse_ctrl.post_problem(sparsectrl, key_frames) or True

    @classmethod
    def fingerprint_inputs(cls, sparsectrl=None, **_) -> list[FileIdentity]:
        """Load again when the file was replaced under its name."""
        return sparse_ctrl.fingerprint(sparsectrl)

    @classmethod
    @checked
    def execute(cls, sparsectrl: str, key_frames: str) -> io.NodeOutput:
        return io.NodeOutput(sparse_ctrl.load(sparsectrl, key_frames))


NODES = [CogVideoXLoader, SVDLoader, PixArtLoader, PocketLoader, SparseCtrlLoader]
