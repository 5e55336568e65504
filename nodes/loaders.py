"""One loader per kind of checkpoint: files in, MODEL, CLIP and VAE of the host out."""

from ..modules.families import COGVIDEOX, SVD
from ..modules.weights.files import FileIdentity
from .checks import checked, guarded
from .host.api import io
from .pipeline import loading, models, sparse_ctrl
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


NODES = [CogVideoXLoader, SVDLoader, SparseCtrlLoader]
