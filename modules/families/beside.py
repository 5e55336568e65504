"""The published files that go beside those of the families: bases that motion modules go into, and LoRAs.

Sizes and SHA-256 stand in public lists of models and in LFS pointers. None where none was found.
"""

from .animatediff.releases import APACHE, ORIGINALS
from .family import Release
from .pixart.releases import EASYANIMATE

FUN_LORAS = "alibaba-pai/CogVideoX-Fun-V1.1-Reward-LoRAs"
CAMERA = (
    "ZoomIn",
    "ZoomOut",
    "PanLeft",
    "PanRight",
    "TiltUp",
    "TiltDown",
    "RollingClockwise",
    "RollingAnticlockwise",
)

BASES = (
    Release(
        name="Stable Diffusion 1.5",
        repository="Comfy-Org/stable-diffusion-v1-5-archive",
        file="v1-5-pruned-emaonly-fp16.safetensors",
        kind="base",
        variant="SD1.5",
        sha256="e9476a13728cd75d8279f6ec8bad753a66a1957ca375a1464dc63b37db6e3916",
        folder="checkpoints",
        licence="CreativeML Open RAIL-M",
        gigabytes=2.13,
    ),
    Release(
        name="Stable Diffusion XL",
        repository="stabilityai/stable-diffusion-xl-base-1.0",
        file="sd_xl_base_1.0.safetensors",
        kind="base",
        variant="SDXL",
        bytes=6_938_078_334,
        sha256="31e35c80fc4829d14f90153f4c74cd59c90b779f6afe05a74cd6120b893f7e5b",
        folder="checkpoints",
        licence="CreativeML Open RAIL++-M",
    ),
)
MOTION_LORAS = tuple(
    Release(
        name=f"MotionLoRA {camera}",
        repository=ORIGINALS,
        file=f"v2_lora_{camera}.ckpt",
        kind="lora",
        variant="v2",
        folder="animatediff_motion_lora",
        needs=("AnimateDiff v2",),
        licence=APACHE,
        gigabytes=0.077,
    )
    for camera in CAMERA
)
LORAS = (
    Release(
        name="AnimateDiff v3 adapter",
        repository=ORIGINALS,
        file="v3_sd15_adapter.ckpt",
        kind="lora",
        variant="SD1.5",
        bytes=102_134_097,
        sha256="fd2d8e26480f6ab013c1e6af86fdf1dedbb1ed5baf850ccd5f365f39d6c3472c",
        folder="loras",
        needs=("AnimateDiff v3",),
        licence=APACHE,
    ),
    Release(
        name="AnimateLCM LoRA",
        repository="wangfuyun/AnimateLCM",
        file="AnimateLCM_sd15_t2v_lora.safetensors",
        kind="lora",
        variant="SD1.5",
        bytes=134_621_556,
        sha256="8f90d840e075ff588a58e22c6586e2ae9a6f7922996ee6649a7f01072333afe4",
        folder="loras",
    ),
    Release(
        name="ExVideo-CogVideoX LoRA",
        repository="ECNU-CILab/ExVideo-CogVideoX-LoRA-129f-v1",
        file="ExVideo-CogVideoX-LoRA-129f-v1.safetensors",
        kind="lora",
        variant="5B",
        folder="loras",
        needs=("CogVideoX 5B",),
        gigabytes=1.0,
    ),
    # the name of its one file is not on record
    Release(
        name="TDM LoRA for CogVideoX 2B",
        repository="Luo-Yihong/TDM_CogVideoX-2B_LoRA",
        file="*.safetensors",
        kind="lora",
        variant="2B",
        folder="loras",
        save_as="TDM_CogVideoX-2B_LoRA.safetensors",
        needs=("CogVideoX 2B",),
    ),
    *(
        Release(
            name=f"Reward LoRA {reward} for CogVideoX-Fun V1.1 {size}",
            repository=FUN_LORAS,
            file=f"CogVideoX-Fun-V1.1-{size.lower()}-InP-{reward}.safetensors",
            kind="lora",
            variant=f"Fun-{size}-InP",
            folder="loras",
            needs=(f"CogVideoX-Fun V1.1 {size}-InP",),
            gigabytes=gigabytes,
        )
        for size, gigabytes in (("2B", 0.454), ("5B", 1.01))
        for reward in ("HPS2.1", "MPS")
    ),
    Release(
        name="EasyAnimate portrait LoRA",
        repository=EASYANIMATE,
        file="Personalized_Model/easyanimate_portrait_lora.safetensors",
        kind="lora",
        variant="512",
        folder="Personalized_Model",
        needs=("EasyAnimate v1",),
        licence=APACHE,
        gigabytes=0.654,
    ),
)
BESIDE: tuple[Release, ...] = (*BASES, *MOTION_LORAS, *LORAS)
