"""The published files and folders of PixArt-alpha, and the one that EasyAnimate v1 trained further.

No public record tells the exact size or the SHA-256 of any of them.
"""

from ..family import Release, Size

HUB = "PixArt-alpha"
# single files under the names of PixArt-alpha's own code, in pickles
ORIGINALS = f"{HUB}/PixArt-alpha"
# EasyAnimate's files lie at no hub
EASYANIMATE = "https://pai-aigc-photog.oss-cn-hangzhou.aliyuncs.com/easyanimate"
FOLDER, LICENCE, T5_FILE = "Diffusion_Transformer", "Open RAIL++-M", "T5 v1.1 XXL, fp16"
# of the transformer, and of the VAE in 32 bits
NETWORK_GB, VAE_GB = 2.45, 0.335
SMALL, LARGE = (512, 512, 1), (1024, 1024, 1)


def _base(variant: str, name: str, size: Size) -> tuple[Release, ...]:
    """A pipeline's transformer and VAE in folders, and the transformer as one file."""
    label = f"PixArt-alpha {variant}"
    repository, needs = f"{HUB}/{name}", (f"{label} VAE", T5_FILE)
    network = Release(
        label,
        repository,
        "transformer",
        "diffusion_model",
        variant,
        size=size,
        folder=FOLDER,
        needs=needs,
        licence=LICENCE,
        gigabytes=NETWORK_GB,
    )
    vae = Release(
        f"{label} VAE", repository, "vae", "vae", "VAE", folder=FOLDER, licence=LICENCE, gigabytes=VAE_GB
    )
    return (
        network,
        vae,
        Release(f"{label}, one file", ORIGINALS, f"{name}.pth", "diffusion_model", variant),
    )


RELEASES: tuple[Release, ...] = (
    *_base("512", "PixArt-XL-2-512x512", SMALL),
    *_base("1024-MS", "PixArt-XL-2-1024-MS", LARGE),
    # the few steps that it needs are in its numbers alone
    Release(
        name="PixArt-LCM 1024-MS",
        repository=f"{HUB}/PixArt-LCM-XL-2-1024-MS",
        file="transformer",
        kind="diffusion_model",
        variant="1024-MS",
    ),
    Release(
        name="Stable Diffusion VAE, EMA",
        repository=ORIGINALS,
        file="sd-vae-ft-ema",
        kind="vae",
        variant="VAE",
    ),
    Release(
        name="PixArt-alpha 512, folders in one archive",
        repository=EASYANIMATE,
        file="Diffusion_Transformer/PixArt-XL-2-512x512.tar",
        kind="diffusion_model",
        variant="512",
        folder=FOLDER,
        licence=LICENCE,
        gigabytes=11.4,
    ),
    Release(
        name="EasyAnimate portrait",
        repository=EASYANIMATE,
        file="Personalized_Model/easyanimate_portrait.safetensors",
        kind="diffusion_model",
        variant="512",
        folder="Personalized_Model",
        needs=("EasyAnimate v1",),
        licence="Apache-2.0",
        gigabytes=2.3,
    ),
)
