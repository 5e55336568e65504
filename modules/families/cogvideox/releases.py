"""The published files and folders of CogVideoX and CogVideoX-Fun.

A folder may hold one file or several. No public record tells the exact size or the SHA-256 of the transformers and
VAEs; those of T5 stand in lists of models in nix and in downloaders. Sizes of folders are those of the hub's pages.
"""

from ..family import Release, Size

SHORT, LONG = (720, 480, 49), (1360, 768, 81)
FUN_LONG = (672, 384, 85)
T5 = "T5 v1.1 XXL encoder"
# single files of the same weights, with diffusers keys
SINGLE = "Kijai/CogVideoX-comfy"


# for all pipelines one file, beside which their own text encoders, the same one each time, need no room
T5_FILE = "T5 v1.1 XXL, fp16"
OPEN, OWN = "Apache-2.0", "CogVideoX LICENSE"
# of the transformer's file by the size of the network, and of the VAE's in 16 bits; V1.5's is in 32
SMALL_GB, LARGE_GB, VAE_GB = 3.39, 11.1, 0.431


def _folders(variant: str, repository: str, size: Size, name: str | None = None) -> tuple[Release, ...]:
    """Transformer, VAE and text encoder of one pipeline."""
    name = name or f"CogVideoX {variant}"
    small = "2B" in variant
    licence = OPEN if small else OWN
    return (
        Release(
            name,
            repository,
            "transformer",
            "diffusion_model",
            variant,
            size=size,
            folder="CogVideo",
            needs=(f"{name} VAE", T5_FILE),
            licence=licence,
            gigabytes=SMALL_GB if small else LARGE_GB,
        ),
        Release(
            f"{name} VAE",
            repository,
            "vae",
            "vae",
            "VAE",
            folder="CogVideo",
            licence=licence,
            gigabytes=2 * VAE_GB if variant.startswith("1.5") else VAE_GB,
        ),
        Release(f"{name} text encoder", repository, "text_encoder", "text_encoder", T5),
    )


def _single(name: str, file: str, variant: str, gigabytes: float) -> Release:
    """A transformer as one file under a name of its own."""
    return Release(
        f"{name}, one file",
        SINGLE,
        f"{file}.safetensors",
        "diffusion_model",
        variant,
        folder="diffusion_models",
        needs=("CogVideoX VAE, bf16", T5_FILE),
        licence=OWN,
        gigabytes=gigabytes,
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
    _single("CogVideoX-Fun V1.1 5B-Control", "CogVideoX_Fun_1_1_5b_Control_bf16", "Fun-5B-Control", 11.1),
    _single("CogVideoX 5B-I2V", "CogVideoX_1_0_5b_I2V_bf16", "5B-I2V", 11.3),
    _single("CogVideoX 1.5-5B", "CogVideoX_1_5_5b_T2V_bf16", "1.5-5B", 11.1),
    _single("CogVideoX 1.5-5B-I2V", "CogVideoX_1_5_5b_I2V_bf16", "1.5-5B-I2V", 11.1),
    Release(
        name="CogVideoX VAE, bf16",
        repository=SINGLE,
        file="cogvideox_vae_bf16.safetensors",
        kind="vae",
        variant="VAE",
        folder="vae",
        licence=OWN,
        gigabytes=VAE_GB,
    ),
    Release(
        name="CogVideoX VAE, fp32",
        repository=SINGLE,
        file="cogvideox_vae_fp32.safetensors",
        kind="vae",
        variant="VAE",
        folder="vae",
        licence=OWN,
        gigabytes=2 * VAE_GB,
    ),
    Release(
        name=T5_FILE,
        repository="comfyanonymous/flux_text_encoders",
        file="t5xxl_fp16.safetensors",
        kind="text_encoder",
        variant=T5,
        bytes=9_787_841_024,
        sha256="6e480b09fae049a72d2a8c5fbccb8d3e92febeb233bbe9dfe7256958a9167635",
        folder="text_encoders",
        licence=OPEN,
    ),
)
