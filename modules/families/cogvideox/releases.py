"""The published files and folders of CogVideoX and CogVideoX-Fun.

A folder may hold one file or several. No public record tells the exact size or the SHA-256 of the transformers and
VAEs; those of T5 stand in lists of models in nix and in downloaders.
"""

from ..family import Release, Size

SHORT, LONG = (720, 480, 49), (1360, 768, 81)
FUN_LONG = (672, 384, 85)
T5 = "T5 v1.1 XXL encoder"
# single files of the same weights, with diffusers keys
SINGLE = "Kijai/CogVideoX-comfy"


def _folders(variant: str, repository: str, size: Size, name: str | None = None) -> tuple[Release, ...]:
    """Transformer, VAE and text encoder of one pipeline."""
    name = name or f"CogVideoX {variant}"
    return (
        Release(name, repository, "transformer", "diffusion_model", variant, size=size),
        Release(f"{name} VAE", repository, "vae", "vae", "VAE"),
        Release(f"{name} text encoder", repository, "text_encoder", "text_encoder", T5),
    )


def _fun(version: str, *kinds: str) -> tuple[Release, ...]:
    """The pipelines of one version of CogVideoX-Fun, each a size and what it takes, such as 2b-InP."""
    found: tuple[Release, ...] = ()
    for kind in kinds:
        width, _, takes = kind.replace("b-", "B-").partition("-")
        # Pose follows a clip like Control
        variant = f"Fun-{'1.5-' if version == 'V1.5' else ''}{width}-{'InP' if takes == 'InP' else 'Control'}"
        repository = f"alibaba-pai/CogVideoX-Fun-{'' if version == 'V1.0' else version + '-'}{kind}"
        size = FUN_LONG if version == "V1.5" else SHORT
        found += _folders(variant, repository, size, f"CogVideoX-Fun {version} {width}-{takes}")
    return found


RELEASES = (
    *_folders("2B", "zai-org/CogVideoX-2b", SHORT),
    *_folders("5B", "zai-org/CogVideoX-5b", SHORT),
    *_folders("5B-I2V", "zai-org/CogVideoX-5b-I2V", SHORT),
    *_folders("1.5-5B", "zai-org/CogVideoX1.5-5B", LONG),
    *_folders("1.5-5B-I2V", "zai-org/CogVideoX1.5-5B-I2V", LONG),
    *_fun("V1.0", "2b-InP", "5b-InP"),
    *_fun("V1.1", "2b-InP", "5b-InP", "2b-Control", "5b-Control", "2b-Pose", "5b-Pose"),
    *_fun("V1.5", "5b-InP"),
    Release(
        name="CogVideoX-Fun V1.1 5B-Control, one file",
        repository=SINGLE,
        file="CogVideoX_Fun_1_1_5b_Control_bf16.safetensors",
        kind="diffusion_model",
        variant="Fun-5B-Control",
    ),
    Release(
        name="CogVideoX 5B-I2V, one file",
        repository=SINGLE,
        file="CogVideoX_1_0_5b_I2V_bf16.safetensors",
        kind="diffusion_model",
        variant="5B-I2V",
    ),
    Release(
        name="CogVideoX 1.5-5B, one file",
        repository=SINGLE,
        file="CogVideoX_1_5_5b_T2V_bf16.safetensors",
        kind="diffusion_model",
        variant="1.5-5B",
    ),
    Release(
        name="CogVideoX 1.5-5B-I2V, one file",
        repository=SINGLE,
        file="CogVideoX_1_5_5b_I2V_bf16.safetensors",
        kind="diffusion_model",
        variant="1.5-5B-I2V",
    ),
    Release(
        name="CogVideoX VAE, bf16",
        repository=SINGLE,
        file="cogvideox_vae_bf16.safetensors",
        kind="vae",
        variant="VAE",
    ),
    Release(
        name="CogVideoX VAE, fp32",
        repository=SINGLE,
        file="cogvideox_vae_fp32.safetensors",
        kind="vae",
        variant="VAE",
    ),
    Release(
        name="T5 v1.1 XXL, fp16",
        repository="comfyanonymous/flux_text_encoders",
        file="t5xxl_fp16.safetensors",
        kind="text_encoder",
        variant=T5,
        bytes=9_787_841_024,
        sha256="6e480b09fae049a72d2a8c5fbccb8d3e92febeb233bbe9dfe7256958a9167635",
    ),
)
