"""The published files of SVD and of what goes over it.

Sizes and SHA-256 stand in public manifests and LFS pointers: mumu0225/word2video, G-U-N/AnimateLCM, lists of models in
nix. None where none was found; they could not be compared with the hub.
"""

from ..family import Release

SVD = "stabilityai/stable-video-diffusion-img2vid"
XT, XT_1_1 = f"{SVD}-xt", f"{SVD}-xt-1-1"
EXVIDEO = "ECNU-CILab/ExVideo-SVD-128f-v1"
ANIMATE_LCM = "wangfuyun/AnimateLCM-SVD-xt"
CLIP = "CLIP ViT-H/14"
COMMUNITY = "Stability AI Community License"

# each holds UNet, CLIP and both autoencoders
WHOLE = (
    Release(
        name="SVD",
        repository=SVD,
        file="svd.safetensors",
        kind="diffusion_model",
        variant="UNet",
        sha256="3e0994626df395a3831de024f11b2d9d241143bb6f16e2efbacced248aa18ce0",
        size=(1024, 576, 14),
        folder="checkpoints",
        licence=COMMUNITY,
        gigabytes=9.56,
    ),
    Release(
        name="SVD-XT",
        repository=XT,
        file="svd_xt.safetensors",
        kind="diffusion_model",
        variant="UNet",
        bytes=9_559_625_980,
        sha256="b2652c23d64a1da5f14d55011b9b6dce55f2e72e395719f1cd1f8a079b00a451",
        size=(1024, 576, 25),
        folder="checkpoints",
        licence=COMMUNITY,
    ),
    Release(
        name="SVD-XT with the image decoder",
        repository=XT,
        file="svd_xt_image_decoder.safetensors",
        kind="diffusion_model",
        variant="UNet",
        bytes=9_503_252_964,
        sha256="99aa889bf6d1ca28e026755b83ba37e3072ad79b45dd4c94fae14bee7482263b",
        folder="checkpoints",
        licence=COMMUNITY,
    ),
    Release(
        name="SVD-XT 1.1",
        repository=XT_1_1,
        file="svd_xt_1_1.safetensors",
        kind="diffusion_model",
        variant="UNet",
        size=(1024, 576, 25),
        folder="checkpoints",
        licence=COMMUNITY,
        gated=True,
    ),
)
COMPONENTS = (
    Release(
        name="SVD-XT UNet",
        repository=XT,
        file="unet/diffusion_pytorch_model.safetensors",
        kind="diffusion_model",
        variant="UNet",
        bytes=6_098_682_464,
        sha256="7783d82729af04f26ded4641a5952617fe331fc46add332fb9e47674fecc6ad7",
    ),
    Release(
        name="SVD-XT UNet, fp16",
        repository=XT,
        file="unet/diffusion_pytorch_model.fp16.safetensors",
        kind="diffusion_model",
        variant="UNet",
        bytes=3_049_435_868,
        sha256="9fbc02e90f37d422f5e3a4aeaee95f6629dc8c45ca211b951626e930daf2bddf",
    ),
    Release(
        name="SVD-XT image encoder",
        repository=XT,
        file="image_encoder/model.safetensors",
        kind="image_encoder",
        variant=CLIP,
        bytes=2_528_371_296,
        sha256="ed1e5af7b4042ca30ec29999a4a5cfcac90b7fb610fd05ace834f2dcbb763eab",
    ),
    Release(
        name="SVD-XT image encoder, fp16",
        repository=XT,
        file="image_encoder/model.fp16.safetensors",
        kind="image_encoder",
        variant=CLIP,
        bytes=1_264_217_240,
        sha256="ae616c24393dd1854372b0639e5541666f7521cbe219669255e865cb7f89466a",
    ),
    Release(
        name="SVD-XT VAE",
        repository=XT,
        file="vae/diffusion_pytorch_model.safetensors",
        kind="vae",
        variant="VAE",
        bytes=391_017_740,
        sha256="5d92aa595a53d9da9faf594f09910ee869d5d567c8bb0362d5095673c69997d6",
    ),
    Release(
        name="SVD-XT VAE, fp16",
        repository=XT,
        file="vae/diffusion_pytorch_model.fp16.safetensors",
        kind="vae",
        variant="VAE",
        bytes=195_531_910,
        sha256="af602cd0eb4ad6086ec94fbf1438dfb1be5ec9ac03fd0215640854e90d6463a3",
    ),
)
# UNets for SVD-XT's CLIP and VAE, distilled to few steps
FEW_STEPS = (
    Release(
        name="AnimateLCM-SVD-xt",
        repository=ANIMATE_LCM,
        file="AnimateLCM-SVD-xt.safetensors",
        kind="diffusion_model",
        variant="UNet",
        bytes=6_098_682_464,
        sha256="6ca55e35f29437e8a65e8a1a9ce75262d5bab3d4fe137bdc3f3a94512c54b377",
        size=(1024, 576, 25),
        folder="diffusion_models",
        needs=("SVD-XT",),
    ),
    Release(
        name="AnimateLCM-SVD-xt 1.1",
        repository=ANIMATE_LCM,
        file="AnimateLCM-SVD-xt-1.1.safetensors",
        kind="diffusion_model",
        variant="UNet",
        bytes=6_098_682_464,
        sha256="94b2da1fcca8d03458ef0b07b94b4c55f94117cb0d90265c6c8452239ecc166e",
        size=(1024, 576, 25),
        folder="diffusion_models",
        needs=("SVD-XT",),
    ),
)
LONG = (
    Release(
        name="ExVideo-SVD",
        repository=EXVIDEO,
        file="model.fp16.safetensors",
        kind="extension",
        variant="ExVideo",
        size=(512, 512, 128),
        folder="diffusion_models",
        needs=("SVD-XT",),
        gigabytes=1.67,
    ),
    Release(
        name="ExVideo-SVD, fp32",
        repository=EXVIDEO,
        file="model.safetensors",
        kind="extension",
        variant="ExVideo",
        folder="diffusion_models",
        needs=("SVD-XT",),
        gigabytes=3.33,
    ),
)
RELEASES = (*WHOLE, *COMPONENTS, *FEW_STEPS, *LONG)
