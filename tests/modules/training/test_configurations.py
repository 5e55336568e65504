"""The configurations that ship can be read, and hold the numbers that their systems were trained with."""

from pathlib import Path

import pytest

from kinetograph.modules.training.configuration import read_recipe

FOLDER = Path(__file__).resolve().parents[3] / "configs" / "training"
FILES = sorted(FOLDER.rglob("*.toml"))

# of each release's own script or paper, named at the head of its file: part, rank and alpha of a LoRA, rate, weight decay,
# epsilon, norm of the gradients, clips of a step, warm-up, frames, captions left out
PUBLISHED = {
    "animatediff_stage1": ("whole", None, 1e-5, 0.01, 1e-8, 1.0, 50, 0, 1, 0.1),
    "animatediff_domain_adapter": ("domain_adapter", (128, 128), 1e-4, 0.01, 1e-8, 1.0, 4, 0, 1, 0.1),
    "animatediff_motion_module": ("motion_module", None, 1e-4, 0.01, 1e-8, 1.0, 4, 0, 16, 0.1),
    "animatediff_motion_lora": ("motion_lora", (64, 64), 1e-4, 0.01, 1e-8, 1.0, 1, 0, 16, 0.1),
    "motiondirector": ("motion_lora", (64, 64), 5e-4, 0.01, 1e-8, 0.0, 1, 0, 16, 0.0),
    "easyanimate_t2i": ("whole", None, 1e-5, 0.01, 1e-8, 1.0, 2, 50, 1, 0.0),
    "easyanimate_t2v": ("motion_module", None, 2e-5, 0.03, 1e-10, 1.0, 2, 100, 16, 0.0),
    "easyanimate_lora_t2i": ("lora", (128, 64), 1e-4, 0.01, 1e-8, 1.0, 2, 0, 1, 0.0),
    "easyanimate_lora_t2v": ("lora", (128, 64), 2e-5, 0.03, 1e-10, 1.0, 2, 0, 16, 0.0),
    "fun_train_13312": ("whole", None, 2e-5, 0.03, 1e-10, 0.05, 128, 100, 49, 0.1),
    "fun_train_29952": ("whole", None, 2e-5, 0.03, 1e-10, 0.05, 256, 100, 49, 0.1),
    "fun_train_53248": ("whole", None, 2e-5, 0.03, 1e-10, 0.05, 128, 100, 49, 0.1),
    "fun_lora": ("lora", (128, 64), 1e-4, 0.03, 1e-10, 0.05, 1, 0, 49, 0.1),
    "fun_control": ("whole", None, 2e-5, 0.03, 1e-10, 0.05, 4, 50, 49, 0.1),
    "cogvideox_lora": ("lora", (128, 128), 1e-4, 1e-4, 1e-8, 1.0, 4, 0, 49, 0.0),
    "exvideo": ("exvideo", None, 1e-5, 0.01, 1e-8, 0.0, 8, 0, 128, 0.0),
    "svd_lora": ("lora", (4, 4), 1e-4, 0.01, 1e-8, 1.0, 1, 0, 25, 0.0),
}  # fmt: skip


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_configuration_is_a_recipe(file):
    assert read_recipe(file).data.folder


def test_every_published_system_has_its_configuration():
    assert {file.stem for file in FILES if file.parent == FOLDER} == set(PUBLISHED)


@pytest.mark.parametrize("name", PUBLISHED)
def test_numbers_are_the_published_ones(name):
    recipe = read_recipe(FOLDER / f"{name}.toml")
    part, data, steps = recipe.part, recipe.data, recipe.steps
    rank = (part.rank, part.alpha) if PUBLISHED[name][1] else None
    has = (part.name, rank, steps.lr, steps.weight_decay, steps.eps, steps.clip, steps.batch, steps.warm_up)
    assert (*has, data.frames, data.dropout) == PUBLISHED[name]
    assert steps.optimizer == "adamw" and (steps.beta_1, steps.beta_2) == (
        0.9, 0.95 if name == "cogvideox_lora" else 0.999
    )  # fmt: skip


def test_the_three_stages_of_fun_have_their_tokens_and_steps():
    for tokens, size, total in ((13312, 512, 7000), (29952, 768, 6500), (53248, 1024, 5000)):
        recipe = read_recipe(FOLDER / f"fun_train_{tokens}.toml")
        latent_frames = (recipe.data.frames - 1) // 4 + 1
        # a token is 16 pixels wide: 8 of the VAE, 2 of the patch
        assert latent_frames * (recipe.data.token_size // 16) ** 2 == tokens
        assert (recipe.data.token_size, recipe.steps.total, recipe.data.image_size) == (size, total, 1024)
        assert recipe.steps.clip_rule == "fun" and recipe.data.masks == "fun"


def test_losses_are_those_of_each_system():
    losses = {name: read_recipe(FOLDER / f"{name}.toml").loss for name in PUBLISHED}
    for name, loss in losses.items():
        kind = "learned_range" if name.startswith("easyanimate") else "target"
        assert loss.kind == ("denoised" if name in ("exvideo", "svd_lora") else kind)
        assert loss.debias == (name == "motiondirector") and loss.motion_sub == 0
    assert (losses["exvideo"].weight, losses["exvideo"].target_scale) == ("root_edm", 1.01)
    assert (losses["svd_lora"].weight, losses["svd_lora"].target_scale) == ("edm", 1.0)
    assert read_recipe(FOLDER / "exvideo.toml").levels.kind == "karras"
    levels = read_recipe(FOLDER / "svd_lora.toml").levels
    assert (levels.kind, levels.mean, levels.spread) == ("log_normal", 0.7, 1.6)
