"""Motion modules come and go without a trace: in turn with others, after failures, with their MODEL gone, on disk."""

import ast
import gc
import importlib
import inspect
import weakref

import pytest
import torch

from kinetograph.tests.host import pictures
from kinetograph.tests.host.motion_bench import MotionBench
from kinetograph.tests.host.workbench import run

KEY = "kinetograph_motion"
TOUCHED = (
    "comfy.ldm.modules.diffusionmodules.openaimodel",
    "comfy.ldm.modules.attention",
    "comfy.ops",
    "comfy.model_patcher",
    "comfy.samplers",
    "comfy.sample",
    "torch.nn.modules.normalization",
)


@pytest.fixture(scope="module")
def bench(comfy_here, base):
    """With garbage collections, of which there are many here, that pass over the host and its libraries."""
    made = MotionBench(base)
    gc.collect()
    gc.freeze()
    yield made
    gc.unfreeze()


@pytest.fixture
def plain(bench):
    return pictures.build("small")


def sample(bench, model, steps=1):
    return bench.ksampler(model, bench.empty(3), steps=steps)


def traces(model):
    """What of ours is in the network of a MODEL: names of layers, hooks."""
    unet = model.model.diffusion_model
    named = [name for name, _ in unet.named_modules() if KEY in name]
    return named + [layer for layer in unet.modules() if layer._forward_hooks or layer._forward_pre_hooks]


def has_slots(model):
    return KEY in model.injections


def unload():
    from comfy.model_management import unload_all_models

    unload_all_models()
    gc.collect()


# of v2 the older host need not tell again
VERSIONS = ["v1", pytest.param("v2", marks=pytest.mark.newest)]


@pytest.mark.parametrize("version", VERSIONS)
def test_in_turn_with_the_plain_model_and_with_others(bench, plain, version):
    models = {"plain": plain, "motion": bench.move(plain, version), "other": bench.move(plain, "v3")}
    expected = {name: sample(bench, model) for name, model in models.items()}
    assert len({float(samples.sum()) for samples in expected.values()}) == 3
    for name in ("plain", "motion", "plain", "other", "motion", "other", "plain"):
        assert torch.equal(sample(bench, models[name]), expected[name]), name
    unload()
    assert not traces(plain)
    for name in ("other", "plain", "motion"):
        assert torch.equal(sample(bench, models[name]), expected[name]), name


@pytest.mark.parametrize("version", VERSIONS)
def test_a_model_that_is_gone_while_it_is_loaded_leaves_the_network_as_it_was(bench, plain, version):
    """The host hands its place to the MODEL that it was a clone of, which knows nothing of slots."""
    expected = sample(bench, plain)
    other = bench.move(plain, "v3")
    others = sample(bench, other)
    for _ in range(2):
        moving = bench.move(plain, version)
        assert not torch.equal(sample(bench, moving), expected)
        modules = weakref.ref(moving.get_additional_models_with_key(KEY)[0].model)
        del moving
        gc.collect()
        assert torch.equal(sample(bench, plain), expected)
        assert torch.equal(sample(bench, other), others)
        assert torch.equal(sample(bench, plain), expected)
        unload()
        assert modules() is None, "weights of modules that nobody has any more"
    assert not traces(plain)


def test_slots_that_were_left_behind_change_nothing(bench, plain):
    """Whatever a host forgets to take out: the plain model passes by them, and others put theirs in their place."""
    moving, other = bench.move(plain, "v1"), bench.move(plain, "v3")
    expected = {model: sample(bench, model) for model in (moving, other, plain)}
    unload()
    (left,), (theirs,) = (model.injections[KEY] for model in (moving, other))
    left.inject(moving)
    for model in (plain, other):
        assert traces(plain)
        assert torch.equal(sample(bench, model), expected[model])
    unload()
    left.inject(moving)
    theirs.inject(other)
    slots = [layer for layer in plain.model.diffusion_model.modules() if hasattr(layer, "held")]
    modules = {*other.get_additional_models_with_key(KEY)[0].model.modules()}
    assert len(slots) == 6 and all(slot.held[0] in modules for slot in slots)
    left.eject(moving)
    assert not traces(plain)


def test_a_call_that_knows_of_no_motion_passes_by(bench):
    from kinetograph.nodes.host import injection

    slot, x = injection.Slot(torch.nn.Linear(2, 2)), torch.ones(1, 2)
    assert injection.run_slot(slot, x, None, None, {}) is x and not [*slot.parameters()]


def failing(model, error, deep):
    """A clone whose second call raises, before the network or between its layers."""
    from comfy.patcher_extension import WrappersMP

    clone, calls = model.clone(), []

    def count():
        calls.append(1)
        if len(calls) == 2:
            raise error

    def outside(executor, *args, **kwargs):
        count()
        return executor(*args, **kwargs)

    def inside(h, hsp, options):
        if h.shape[1] == 64:
            count()
        return h, hsp

    if deep:
        clone.set_model_output_block_patch(inside)
    else:
        clone.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "test_failing", outside)
    return clone


@pytest.mark.newest
@pytest.mark.parametrize("deep", [False, True], ids=["before the network", "inside it"])
@pytest.mark.parametrize("kind", ["error", "interrupt", "memory"])
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_after_a_failure(bench, plain, version, kind, deep):
    from comfy.model_management import OOM_EXCEPTION, InterruptProcessingException

    moving = bench.move(plain, version)
    expected = sample(bench, plain), sample(bench, moving)
    error = {
        "error": RuntimeError("planned"),
        "interrupt": InterruptProcessingException(),
        "memory": OOM_EXCEPTION("planned"),
    }[kind]
    for model, samples in ((plain, expected[0]), (moving, expected[1])):
        broken = failing(moving, error, deep)
        with pytest.raises(type(error)):
            sample(bench, broken, steps=2)
        assert torch.equal(sample(bench, model), samples)
    del broken
    assert torch.equal(sample(bench, plain), expected[0])
    assert torch.equal(sample(bench, moving), expected[1])


@pytest.mark.newest
def test_memory_is_back_at_the_start(bench, plain):
    def bytes_held():
        gc.collect()
        kinds = (torch.Tensor, torch.nn.Parameter)
        return sum(thing.untyped_storage().nbytes() for thing in gc.get_objects() if type(thing) in kinds)

    sample(bench, bench.move(plain))
    unload()
    start = bytes_held()
    # of v1 with hooks
    moving = bench.move(plain, "v1")
    samples = sample(bench, moving)
    assert bytes_held() > start + 300_000
    del moving, samples
    unload()
    assert bytes_held() == start


@pytest.mark.parametrize("version", VERSIONS)
def test_keys_of_the_network_are_its_own(bench, plain, version):
    def keys():
        return [*plain.model.state_dict()], [name for name, _ in plain.model.named_parameters()]

    own, during = keys(), []
    moving = bench.move(plain, version)
    moving.set_model_output_block_patch(
        lambda h, hsp, _: (during.append((keys(), bool(traces(plain)))), (h, hsp))[1]
    )
    sample(bench, moving)
    assert all(seen == (own, True) for seen in during) and during
    unload()
    assert keys() == own and not traces(plain)


def test_no_saved_model_holds_motion_modules(bench, plain, tmp_path):
    import comfy.sd
    from safetensors import safe_open

    moving = bench.move(plain)
    files = []
    for name, model in (("moving", moving), ("plain", plain)):
        sample(bench, model)
        path = tmp_path / f"{name}.safetensors"
        comfy.sd.save_checkpoint(str(path), model)
        with safe_open(path, "pt") as file:
            files.append({key: file.get_tensor(key) for key in file.keys()})
    assert len(files[1]) > 100 and files[0].keys() == files[1].keys()
    assert all(torch.equal(value, files[1][key]) for key, value in files[0].items())
    assert (
        moving.get_key_patches("diffusion_model.").keys() == plain.get_key_patches("diffusion_model.").keys()
    )


def test_models_with_motion_merge(bench, plain):
    from comfy_extras.nodes_model_merging import ModelMergeSimple

    other = pictures.build("small", 6)

    def merge(first, second):
        return run(ModelMergeSimple, model1=first, model2=second, ratio=0.7)[0]

    first, second = bench.move(merge(plain, other)), merge(bench.move(plain), other)
    assert torch.equal(sample(bench, first), sample(bench, second))
    # what the second one has beside its weights stays behind
    assert not has_slots(merge(plain, bench.move(other)))


def test_a_deep_clone_has_the_motion_too(bench, plain):
    moving = bench.move(plain)
    if "force_deepcopy" not in inspect.signature(moving.clone).parameters:
        pytest.skip("this host makes none")
    expected = sample(bench, moving)
    copy = moving.clone(force_deepcopy=True)
    assert copy.model is not moving.model
    assert torch.equal(sample(bench, copy), expected)
    assert torch.equal(sample(bench, moving), expected)
    assert not torch.equal(sample(bench, plain), expected)


def defined(source):
    """{name, or Class.name: line numbers of what stands there} of a module's source, first decorators included."""
    lines = {}

    def note(name, node):
        lines.setdefault(name, set()).update(
            {node.lineno, *(decorator.lineno for decorator in node.decorator_list)}
        )

    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.parse(source).body:
        if isinstance(node, kinds):
            note(node.name, node)
        elif isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, kinds):
                    note(f"{node.name}.{inner.name}", inner)
    return lines


def replaced(module):
    """Names under which a module no longer holds what its own source defines there."""
    found = []
    for name, lines in defined(inspect.getsource(module)).items():
        holder, _, attribute = name.rpartition(".")
        own = vars(vars(module)[holder]) if holder else vars(module)
        value = own.get(attribute)
        value = getattr(value, "fget", None) or getattr(value, "__func__", value)
        code = getattr(inspect.unwrap(value), "__code__", None) if value is not None else None
        if code is None or code.co_filename != module.__file__ or code.co_firstlineno not in lines:
            found.append(name)
    return found


def test_nothing_of_the_host_is_replaced(bench, plain):
    """After import and while motion modules are in a network: every function is the one of its source."""
    modules = [importlib.import_module(name) for name in TOUCHED]
    moving, during = bench.move(plain, "v1"), []

    def look(h, hsp, _):
        during.extend(name for module in modules for name in replaced(module))
        return h, hsp

    moving.set_model_output_block_patch(look)
    bench.ksampler(moving, bench.empty(), steps=1)
    assert during == []
    assert sum(len(defined(inspect.getsource(module))) for module in modules) > 250


def test_a_replaced_function_is_seen(bench, monkeypatch):
    from comfy.ldm.modules.diffusionmodules import openaimodel

    monkeypatch.setattr(openaimodel.ResBlock, "forward", lambda self, x, emb: x)
    monkeypatch.setattr(openaimodel, "forward_timestep_embed", lambda *_: None)
    assert replaced(openaimodel) == ["forward_timestep_embed", "ResBlock.forward"]
    monkeypatch.setattr(torch.nn.GroupNorm, "forward", lambda self, x: x)
    assert replaced(torch.nn.modules.normalization) == ["GroupNorm.forward"]
