"""The published motion modules and SparseCtrl. Sizes and SHA-256 stand in public lists of models and in LFS pointers."""

from ..family import Release, Size

ORIGINALS = "guoyww/animatediff"
COPIES = "conrevo/AnimateDiff-A1111"
LIGHTNING = "ByteDance/AnimateDiff-Lightning"
FOLDER, APACHE = "animatediff_models", "Apache-2.0"
SD15, SDXL = (512, 512, 16), (1024, 1024, 16)


def _module(
    name: str,
    file: str,
    variant: str,
    size: Size | None = None,
    bytes: int | None = None,
    sha256: str | None = None,
    repository: str = ORIGINALS,
) -> Release:
    return Release(
        name,
        repository,
        file,
        "motion_module",
        variant,
        bytes,
        sha256,
        size,
        folder=FOLDER,
        needs=_needs(variant),
        licence={ORIGINALS: APACHE, LIGHTNING: "CreativeML Open RAIL-M"}.get(repository, ""),
    )


def _needs(variant: str) -> tuple[str, ...]:
    """The base that a module goes into, and what AnimateLCM was distilled with."""
    beside = ("AnimateLCM LoRA",) if variant == "AnimateLCM" else ()
    return ("Stable Diffusion XL" if variant == "SDXL beta" else "Stable Diffusion 1.5", *beside)


RELEASES = (
    _module(
        "AnimateDiff v1, SD1.4",
        "mm_sd_v14.ckpt",
        "v1",
        sha256="aa7fd8a200a89031edd84487e2a757c5315460eca528fa70d4b3885c399bffd5",
    ),
    _module(
        "AnimateDiff v1",
        "mm_sd_v15.ckpt",
        "v1",
        SD15,
        sha256="cf16ea656cb16124990c8e2c70a29c793f9841f3a2223073fac8bd89ebd9b69a",
    ),
    _module(
        "AnimateDiff v2",
        "mm_sd_v15_v2.ckpt",
        "v2",
        SD15,
        1_817_888_431,
        "69ed0f5fef82b110aca51bcab73b21104242bc65d6ab4b8b2a2a94d31cad1bf0",
    ),
    _module(
        "AnimateDiff v3",
        "v3_sd15_mm.ckpt",
        "v3",
        SD15,
        1_673_262_583,
        "2412711886f61091846f53204aabc38aa6e09356d62a9808abe4daa802168343",
    ),
    _module(
        "AnimateDiff SDXL beta",
        "mm_sdxl_v10_beta.ckpt",
        "SDXL beta",
        SDXL,
        950_143_538,
        "fa4950a062e892fca50d4c441fcd6130d1ad68a621a0404d155be17580072978",
    ),
    _module(
        "AnimateLCM",
        "AnimateLCM_sd15_t2v.ckpt",
        "AnimateLCM",
        SD15,
        1_813_041_929,
        "b46c3de62e5696af72c4056e3cdcbea12fbc19581c0aad7b6f2b027851148f5f",
        "wangfuyun/AnimateLCM",
    ),
    # of the v2 layout: nothing but their numbers tells them apart
    *(
        _module(
            f"AnimateDiff-Lightning, {steps} step{'s' * (steps > 1)}",
            f"animatediff_lightning_{steps}step_comfyui.safetensors",
            "v2",
            SD15 if steps == 4 else None,
            908_929_664 if steps in (4, 8) else None,
            "aeb66ae8ff4a868d31379c3bde3e5e7e510a4d4b565a06ee4f1297e93a561dc5" if steps == 4 else None,
            LIGHTNING,
        )
        for steps in (1, 2, 4, 8)
    ),
    *(
        _module(f"{name}, fp16", f"motion_module/{file}.safetensors", variant, None, bytes, repository=COPIES)
        for name, file, variant, bytes in (
            ("AnimateDiff v1, SD1.4", "mm_sd14_v1", "v1", None),
            ("AnimateDiff v1", "mm_sd15_v1", "v1", None),
            ("AnimateDiff v2", "mm_sd15_v2", "v2", None),
            ("AnimateDiff v3", "mm_sd15_v3", "v3", 836_618_008),
            ("AnimateDiff SDXL beta", "mm_sdxl_v10_beta", "SDXL beta", None),
            ("AnimateLCM", "mm_sd15_AnimateLCM", "AnimateLCM", None),
        )
    ),
    *(
        Release(
            f"SparseCtrl {condition}",
            ORIGINALS,
            file,
            "sparse_control",
            f"SparseCtrl {condition}",
            bytes,
            sha256,
            folder="controlnet",
            needs=("AnimateDiff v3 adapter",),
            licence=APACHE,
        )
        for condition, file, bytes, sha256 in (
            (
                "rgb",
                "v3_sd15_sparsectrl_rgb.ckpt",
                1_988_040_333,
                "c93f27a3cd15edf99bbddf4522509f2e831f515cc7db9c820d955037ddafbe45",
            ),
            ("scribble", "v3_sd15_sparsectrl_scribble.ckpt", 1_992_335_697, None),
        )
    ),
    *(
        Release(
            f"SparseCtrl {condition}, fp16",
            COPIES,
            f"control/mm_sd15_v3_sparsectrl_{condition}.safetensors",
            "sparse_control",
            f"SparseCtrl {condition}",
            bytes,
            folder="controlnet",
            needs=("AnimateDiff v3 adapter",),
        )
        for condition, bytes in (("rgb", 993_974_272), ("scribble", None))
    ),
)
