"""AnimateDiff's files: the published lists strictly, every layout the same weights, and which release each is."""

import hashlib

import pytest
import torch
from safetensors.torch import save_file

from kinetograph.benchmarks import peers
from kinetograph.modules.families import ANIMATEDIFF
from kinetograph.modules.families.animatediff import MOTION_MODULE
from kinetograph.modules.families.animatediff.config import UNSURE, VERSIONS
from kinetograph.modules.weights.detect import detect
from kinetograph.modules.weights.errors import CheckpointError
from kinetograph.modules.weights.load import load_into, read_part
from kinetograph.tests import motion_files
from kinetograph.tests.checkpoints import BY_NAME, PUBLISHED, SIZES, header

FILES = {
    "v1": "animatediff-v1",
    "v2": "animatediff-v2",
    "v3": "animatediff-v3",
    "SDXL beta": "animatediff-sdxl-beta",
    "AnimateLCM": "animatelcm",
}
WEIGHTS = sorted(
    {
        (row.variant, row.file, row.bytes)
        for row in ANIMATEDIFF.releases
        if row.bytes and row.kind == "motion_module"
    },
    key=lambda row: row[1],
)
SECOND_TABLE = "attention_blocks.1.pos_encoder"
MODULE = ".temporal_transformer."
# ours to those of diffusers, by the words of its conversion
RENAMES = (
    (MODULE, "."),
    ("attention_blocks.0.to", "attn1.to"),
    ("attention_blocks.1.to", "attn2.to"),
    ("attention_blocks.0.pos_encoder", "pos_embed"),
    ("norms.0", "norm1"),
    ("norms.1", "norm2"),
    ("ff_norm", "norm3"),
)


def shapes_of(version):
    return BY_NAME[FILES[version]].shapes


def find(shapes):
    return detect(header(shapes), (ANIMATEDIFF,), "motion_module")


def without_tables(shapes):
    return {key: shape for key, shape in shapes.items() if not key.endswith(".pe")}


def to_diffusers(key):
    for ours, theirs in RENAMES:
        key = key.replace(ours, theirs)
    return key


def adapter(version, channels):
    """A MotionAdapter of diffusers, in the shapes of a release."""
    told = {"v1": {"motion_max_seq_length": 24}, "AnimateLCM": {"motion_max_seq_length": 64}}.get(version, {})
    peers.load_diffusers()
    from diffusers import MotionAdapter

    mid = version in ("v2", "AnimateLCM")
    return MotionAdapter(channels, motion_norm_num_groups=32, use_motion_mid_block=mid, **told)


@pytest.mark.parametrize("version", VERSIONS)
def test_our_modules_hold_exactly_what_the_files_hold(version):
    shapes = shapes_of(version)
    finding = find(shapes).check()
    assert (finding.matched, finding.num_dropped, finding.dialect) == (len(shapes), 0, "original")
    assert len(shapes) == PUBLISHED[FILES[version]]
    assert MOTION_MODULE.shapes(finding.config) == shapes
    assert finding.config == motion_files.PUBLISHED[version]


@pytest.mark.parametrize(
    ("version", "published"),
    [("v2", "c96a285a6888465f87de22a984d049fb"), ("SDXL beta", "72907b92caed19bdb2adb89aa4063fe2")],
)
def test_our_modules_have_the_fingerprints_of_the_published_files(version, published):
    """md5 of "key:d0_d1" and "key" of every tensor, sorted: so diffsynth 1.1.9 (model_config.py) knows files."""
    shapes = MOTION_MODULE.shapes(motion_files.PUBLISHED[version]).items()
    words = [word for key, shape in shapes for word in (f"{key}:{'_'.join(map(str, shape))}", key)]
    assert hashlib.md5(",".join(sorted(words)).encode()).hexdigest() == published


@pytest.mark.parametrize(("version", "file", "size"), WEIGHTS)
def test_a_published_file_is_as_large_as_its_tensors(version, file, size):
    """Beside what a container adds to them: a fiftieth of a percent."""
    numbers = sum(torch.Size(shape).numel() for shape in shapes_of(version).values())
    assert 1 < size / (numbers * SIZES["F32" if file.endswith(".ckpt") else "F16"]) < 1.0002


@pytest.mark.parametrize(
    ("version", "count"), [("v1", 540), ("v2", 567), ("v3", 540), ("SDXL beta", 405), ("AnimateLCM", 567)]
)
@pytest.mark.parametrize("table", [True, False])
def test_motion_adapters_of_diffusers_are_known(version, count, table):
    """One table for both attentions; where they were left out, a file is told by its places alone."""
    channels = (320, 640, 1280) if version == "SDXL beta" else (320, 640, 1280, 1280)
    with torch.device("meta"):
        theirs = adapter(version, channels).state_dict()
    shapes = {key: tuple(value.shape) for key, value in theirs.items()}
    like = shapes_of("v2" if version == "AnimateLCM" else version)
    assert set(shapes) == {to_diffusers(key) for key in like if SECOND_TABLE not in key}
    assert len(shapes) == count
    if not table:
        shapes = without_tables(shapes)
    finding = find(shapes).check()
    told = {"AnimateLCM": "v2"} if table else {"v1": UNSURE, "v3": UNSURE, "v2": "AnimateLCM"}
    assert (finding.dialect, finding.config.version) == ("diffusers", told.get(version, version))
    assert (finding.matched, finding.config.tables) == (len(shapes), int(table))


@pytest.mark.parametrize("version", ["v1", "v2", "SDXL beta"])
@pytest.mark.parametrize("table", [True, False])
def test_both_layouts_hold_the_same_weights(tmp_path, version, table):
    channels = motion_files.CONFIGS[version].channels
    theirs = motion_files.randomise(adapter(version, channels)).state_dict()
    if not table:
        theirs = without_tables(theirs)
    path = tmp_path / "adapter.safetensors"
    save_file(theirs, path)
    finding, tensors = read_part(path, (ANIMATEDIFF,), "motion_module")
    assert {to_diffusers(key) for key in tensors} == set(theirs)
    assert all(torch.equal(value, theirs[to_diffusers(key)]) for key, value in tensors.items())
    loaded = load_into(MOTION_MODULE.empty(finding.config), tensors)
    assert sum(1 for name, _ in loaded.named_buffers() if name.endswith(".pe")) == (
        len(channels) * 5 + (version == "v2")
    ) * int(table)


@pytest.mark.parametrize(
    ("version", "change", "told", "rows"),
    [
        ("v1", dict, "v1", 24),
        ("v2", dict, "v2", 32),
        ("v3", dict, "v3", 32),
        ("SDXL beta", dict, "SDXL beta", 32),
        ("v2", without_tables, "AnimateLCM", 64),
        ("v1", without_tables, UNSURE, 24),
        ("v3", without_tables, UNSURE, 24),
        ("SDXL beta", without_tables, "SDXL beta", 32),
    ],
)
def test_releases_are_told_apart(version, change, told, rows):
    config = find(change(shapes_of(version))).check().config
    assert (config.version, config.rows) == (told, rows)


def test_a_file_without_tables_may_be_named_and_no_other_against_its_keys():
    unsure = find(without_tables(shapes_of("v3"))).config
    assert [unsure.named(version).rows for version in ("v1", "v3")] == [24, 32]
    assert unsure.named("v1").joint_base_norms and not unsure.named("v3").joint_base_norms
    wrong = {
        "v1": ("v2", "SDXL beta", "AnimateLCM"),
        "v2": ("v1", "v3", "SDXL beta"),
        "SDXL beta": ("v1", "v2"),
    }
    for version, others in wrong.items():
        for other in others:
            with pytest.raises(ValueError, match="levels|in the middle"):
                find(shapes_of(version)).config.named(other)
    # a table of its own says how many frames it has positions for, whatever it is called
    assert find(shapes_of("v1")).config.named("v3").rows == 24


@pytest.mark.parametrize("wrapping", ["module.", "model.diffusion_model.", ""])
def test_names_around_a_module_do_not_matter(wrapping):
    shapes = {wrapping + key: shape for key, shape in shapes_of("v3").items()}
    assert find(shapes).check().config.version == "v3"


@pytest.mark.parametrize(
    "lacking", ["down_blocks.0.motion_modules.1", "mid_block", "up_blocks.3.motion_modules.2", "ff_norm.bias"]
)
def test_a_file_that_lacks_weights_is_refused(lacking):
    shapes = {key: shape for key, shape in shapes_of("v2").items() if lacking not in key}
    if lacking == "mid_block":
        assert find(shapes).check().config.version == "v3"
        return
    with pytest.raises(CheckpointError):
        find(shapes).check()


def test_a_base_model_is_no_motion_module():
    for listed in BY_NAME.values():
        if listed.family != "animatediff":
            with pytest.raises(CheckpointError):
                find(listed.shapes).check()
