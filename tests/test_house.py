"""The rules of the house that can be read off the source: who imports whom, and what nobody does."""

import ast
import json
import re
import warnings
from functools import cache
from pathlib import Path

import pytest

from kinetograph.tests.circles import circles

ROOT = Path(__file__).resolve().parents[1]
PACK = "kinetograph"
ROOMS = ("modules", "nodes", "pocket", "benchmarks", "tools", "tests")
HOST_PACKAGES = {"comfy", "comfy_api", "comfy_execution", "comfy_extras", "folder_paths", "nodes", "server"}
HOST_PACKAGES |= {"execution", "latent_preview", "node_helpers", "comfy_api_nodes", "app"}
TEST_ONLY = {"diffusers", "diffsynth", "pytest"}
STAGES = ("conditioning", "sampling", "decoding", "videofile")
GROUND = {"grid", "noise"}
ROOMS_OPEN_TO = {
    "layers": {*GROUND, "layers"},
    "weights": {*GROUND, "layers", "weights"},
    "encoders": {*GROUND, "layers", "weights", "encoders"},
    "families": {*GROUND, "layers", "weights", "encoders", "families"},
    **{stage: {*GROUND, "layers", stage} for stage in STAGES},
    # it shows whole files as those who write videos do
    "download": {"families", "videofile", "download"},
}
VAGUE_NAMES = {"utils", "util", "helper", "helpers", "misc", "common", "new", "v2"}
FILE_LINES, FUNCTION_LINES, EXECUTE_LINES = 300, 40, 15
# better whole
LONG_FUNCTIONS = {"modules/families/svd/model.py: forward"}


def sources(*folders):
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [path for path in paths if "runs" not in path.parts]


SHIPPED = [ROOT / "__init__.py", *sources("modules", "nodes")]
EVERYTHING = [ROOT / "dev.py", *SHIPPED, *sources("pocket", "benchmarks", "tools", "tests")]


def dotted(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return (PACK, *(parts[:-1] if parts[-1] == "__init__" else parts))


@cache
def parse(path):
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports_of(path):
    """(dotted name as a tuple, line) of everything a file imports, relative imports resolved."""
    package = dotted(path) if path.name == "__init__.py" else dotted(path)[:-1]
    for statement in ast.walk(parse(path)):
        if isinstance(statement, ast.Import):
            for alias in statement.names:
                yield tuple(alias.name.split(".")), statement.lineno
        elif isinstance(statement, ast.ImportFrom):
            start = package[: len(package) - statement.level + 1] if statement.level else ()
            module = (*start, *(statement.module.split(".") if statement.module else ()))
            for alias in statement.names:
                yield (*module, alias.name), statement.lineno


def complaints(paths, forbidden):
    """Every import for which `forbidden(name)` gives a reason, as file:line reason."""
    found = []
    for path in paths:
        for name, line in imports_of(path):
            if reason := forbidden(name):
                found.append(f"{path.relative_to(ROOT)}:{line}: {reason}: {'.'.join(name)}")
    return found


def imported_files(path, files):
    """{dotted name: line} of the files of the repository that a file imports, anywhere in it.

    `from .room import name` is the file `room/name` where there is one, else room's own `__init__`. That Python runs
    the `__init__` of every folder on the way is no arrow of the file that stands deeper in it.
    """
    found = {}
    for name, line in imports_of(path):
        whole = (PACK, *name) if name[0] in ROOMS else name
        (target, *_) = [*(known for known in (whole, whole[:-1]) if known in files), dotted(path)]
        if target != dotted(path):
            found.setdefault(target, line)
    return found


def test_no_file_imports_itself_in_a_circle():
    """Imports inside functions count, too: what is imported late there leans on the same file."""
    files = {dotted(path): path for path in EVERYTHING}
    arrows = {name: imported_files(path, files) for name, path in files.items()}
    assert sum(map(len, arrows.values())) > 800
    assert circles(arrows) == []


def test_circles_are_seen():
    ways = {"a": "b", "b": "c", "c": "de", "d": "", "e": "b"}
    arrows = {(name,): {(other,): 7 for other in others} for name, others in ways.items()}
    assert circles(arrows) == ["b:7 -> c", "c:7 -> e", "e:7 -> b"]


def test_modules_never_import_the_host():
    def forbidden(name):
        if name[0] in HOST_PACKAGES or name[:2] == (PACK, "nodes"):
            return "modules/ must not know ComfyUI"

    assert complaints(sources("modules"), forbidden) == []


def test_only_nodes_host_imports_comfyui():
    others = [path for path in EVERYTHING if path not in sources("nodes/host", "tests")]

    def forbidden(name):
        if name[0] in HOST_PACKAGES:
            return "only nodes/host may import ComfyUI"

    # __init__.py names a host type for type checkers alone
    assert complaints([path for path in others if path != ROOT / "__init__.py"], forbidden) == []


@pytest.mark.parametrize("room", ROOMS_OPEN_TO)
def test_rooms_of_modules_import_only_what_is_open_to_them(room):
    allowed = ROOMS_OPEN_TO[room]

    def forbidden(name):
        if name[:2] == (PACK, "modules") and name[2] not in allowed:
            return f"{room}/ may import {sorted(allowed)} only"

    assert complaints(sources(f"modules/{room}"), forbidden) == []


def test_grid_stands_alone():
    def forbidden(name):
        if name[0] == PACK:
            return "grid imports nothing of the pack"

    assert complaints([ROOT / "modules" / "grid.py"], forbidden) == []


def test_nodes_host_knows_only_the_ground_floor_and_the_family_record():
    open_to_host = {("grid",), ("noise",), ("layers",), ("encoders",), ("families", "family")}

    def forbidden(name):
        inside = name[2:] if name[:2] == (PACK, "modules") else None
        if inside is not None and not {inside[:1], inside[:2]} & open_to_host:
            return "nodes/host may import grid, noise, layers, encoders and families.family only"
        if name[:2] == (PACK, "nodes") and name[2] != "host":
            return "nodes/host imports no other wing"

    assert complaints(sources("nodes/host"), forbidden) == []


# what stands beside the node files and is none of them
BESIDE_NODES = {"checks", "extension", "widgets"}
NODE_FILES = [
    path
    for path in (ROOT / "nodes").glob("*.py")
    if path.name != "__init__.py" and path.stem not in BESIDE_NODES
]


def test_node_files_never_import_each_other():
    def forbidden(name):
        if name[:2] == (PACK, "nodes") and name[2] not in {"host", "pipeline", "checks", "widgets"}:
            return "a node file imports pipeline, host, modules, widgets and checks, no other node file"

    assert len(NODE_FILES) >= 8 and complaints(NODE_FILES, forbidden) == []


def test_the_pipeline_knows_no_node():
    def forbidden(name):
        if name[:2] == (PACK, "nodes") and name[2] not in {"host", "pipeline"}:
            return "nodes/pipeline imports host and modules"

    assert complaints(sources("nodes/pipeline"), forbidden) == []


def test_references_are_for_tests_and_benchmarks_only():
    def forbidden(name):
        if name[0] in TEST_ONLY:
            return "a test-only package"

    assert complaints([*SHIPPED, *sources("pocket", "tools"), ROOT / "dev.py"], forbidden) == []


def test_imports_inside_the_pack_are_relative():
    def forbidden(name):
        if name[0] in ("modules", "pocket"):
            return "import by relative path, the pack root is never on sys.path"

    assert complaints(SHIPPED, forbidden) == []
    absolute = [
        path for path in SHIPPED if re.search(r"^\s*(from|import) kinetograph", path.read_text(), re.M)
    ]
    assert absolute == []


def test_importing_a_module_does_nothing():
    """Only definitions, constants and guarded blocks stand at the top of a file."""
    quiet = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Assign)
    quiet += (ast.AnnAssign, ast.If, ast.Try, ast.AugAssign)
    loud = []
    for path in SHIPPED:
        for statement in parse(path).body:
            is_words = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
            if not is_words and not isinstance(statement, quiet):
                loud.append(f"{path.relative_to(ROOT)}:{statement.lineno}")
    assert loud == []


def calls(path):
    for expression in ast.walk(parse(path)):
        if isinstance(expression, ast.Call):
            yield (
                ast.unparse(expression.func),
                {word.arg: word.value for word in expression.keywords},
                expression,
            )


def is_constant(value, wanted):
    return isinstance(value, ast.Constant) and value.value is wanted


def test_no_code_comes_from_data():
    """Pickles only with weights_only=True, no eval or exec, no shell, nothing that loosens torch's guard."""
    wrong = []
    for path in EVERYTHING:
        for name, words, call in calls(path):
            where = f"{path.relative_to(ROOT)}:{call.lineno}: {name}"
            if name == "torch.load" and not is_constant(words.get("weights_only"), True):
                wrong.append(f"{where} without weights_only=True")
            if name in ("eval", "exec", "os.system", "os.popen", "pickle.load", "pickle.loads"):
                wrong.append(where)
            if "add_safe_globals" in name or "trust_remote_code" in words:
                wrong.append(where)
            if "shell" in words and not is_constant(words["shell"], False):
                wrong.append(f"{where} through a shell")
    assert wrong == []


def test_the_shipped_pack_leaves_pickles_to_one_reader():
    """Not even with weights_only: what a user's file names is never looked up, by nobody's loader."""
    loaders = re.compile(
        r"torch\.(jit\.|serialization\.)?load|.*load_torch_file|(pickle|_pickle|dill|joblib|numpy|np)\.loads?|.*Unpickler"
    )
    found = [
        f"{path.relative_to(ROOT).as_posix()}: {name}"
        for path in SHIPPED
        for name, _, _ in calls(path)
        if loaders.fullmatch(name)
    ]
    assert found == ["modules/weights/unpickling.py: TensorUnpickler"]
    imports = [
        path.relative_to(ROOT).as_posix()
        for path in SHIPPED
        if any(
            name[0] in {"pickle", "_pickle", "dill", "joblib", "marshal", "shelve"}
            for name, _ in imports_of(path)
        )
        or any(name[:2] in {("torch", "load"), ("torch", "serialization")} for name, _ in imports_of(path))
    ]
    assert imports == ["modules/weights/unpickling.py"]


NETWORKS = {"requests", "urllib", "http", "socket", "aiohttp", "huggingface_hub", "ftplib", "httpx", "httpx2"}


def test_the_shipped_pack_opens_no_connection():
    """One file does, and what leads there: one node, which asks when it runs."""
    the_door = ROOT / "modules" / "download" / "hub.py"

    def forbidden(name):
        if name[0] in NETWORKS:
            return "the pack never goes to the network"

    assert complaints([path for path in SHIPPED if path != the_door], forbidden) == []
    assert {name[:2] for name, _ in imports_of(the_door) if name[0] in NETWORKS - {"huggingface_hub"}} == {
        ("urllib", "parse")
    }
    inside = {
        path.relative_to(ROOT).as_posix()
        for path in SHIPPED
        if path.parent != the_door.parent
        and any("download" in name for name, _ in imports_of(path) if name[:2] == (PACK, "modules"))
    }
    assert inside == {"nodes/pipeline/downloads.py"}


def test_importing_the_pack_does_not_import_what_opens_connections():
    """huggingface_hub is imported inside the functions that use it."""
    tops = [
        statement
        for path in sources("modules/download")
        for statement in parse(path).body
        if isinstance(statement, ast.Import | ast.ImportFrom)
    ]
    assert [ast.unparse(each) for each in tops if "huggingface_hub" in ast.unparse(each)] == []


def test_names_say_what_a_file_is_about():
    assert [path for path in EVERYTHING if path.stem in VAGUE_NAMES] == []


def functions(path):
    for part in ast.walk(parse(path)):
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef):
            yield part


def lines_of(function):
    """Lines from the first statement after the docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return function.end_lineno - body[0].lineno + 1 if body else 0


def test_a_node_is_a_schema_and_a_call():
    runs = [(path.name, f) for path in NODE_FILES for f in functions(path) if f.name == "execute"]
    assert len(runs) >= 13
    assert [(name, lines_of(f)) for name, f in runs if lines_of(f) > EXECUTE_LINES] == []


def test_no_protocol_copies_a_record():
    """The record itself is passed; where a wall is in the way, the wall is in the wrong place."""
    found = []
    for path in SHIPPED:
        for part in ast.walk(parse(path)):
            if isinstance(part, ast.ClassDef) and any(
                ast.unparse(base).endswith("Protocol") for base in part.bases
            ):
                names = [item.name for item in part.body if isinstance(item, ast.FunctionDef)]
                properties = [
                    item.name
                    for item in part.body
                    if isinstance(item, ast.FunctionDef)
                    and any(ast.unparse(mark) == "property" for mark in item.decorator_list)
                ]
                fields = [item for item in part.body if isinstance(item, ast.AnnAssign)]
                if (names and names == properties) or (fields and not names):
                    found.append(f"{path.relative_to(ROOT)}: {part.name}")
    assert found == []


def test_files_and_functions_of_the_pack_stay_small():
    long_files = {
        path.relative_to(ROOT).as_posix(): count
        for path in SHIPPED
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > FILE_LINES
    }
    long_functions = {
        f"{path.relative_to(ROOT).as_posix()}: {f.name}"
        for path in SHIPPED
        for f in functions(path)
        if f.name != "define_schema" and f.end_lineno - f.lineno + 1 > FUNCTION_LINES
    }
    assert long_files == {} and long_functions <= LONG_FUNCTIONS


def test_most_functions_say_their_types():
    """Shares that the pack had before the upper house was rebuilt: 92 % in modules, 84 % in nodes."""
    for folder, share in (("modules", 0.92), ("nodes", 0.84)):
        found = [f for path in sources(folder) for f in functions(path)]
        assert len(found) > 300 and sum(map(is_typed, found)) / len(found) >= share, folder


def is_typed(function):
    """Whether all parameters and the result have types; __init__ has no result."""
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    named += [extra for extra in (arguments.vararg, arguments.kwarg) if extra]
    said = all(one.annotation for one in named if one.arg not in ("self", "cls"))
    return said and (function.returns is not None or function.name == "__init__")


def test_sizes_of_tests_and_tools_stay_readable():
    """Warns, for these are aims: some tables are better whole."""
    for path in EVERYTHING:
        if path not in SHIPPED and len(path.read_text(encoding="utf-8").splitlines()) > FILE_LINES:
            warnings.warn(f"{path.relative_to(ROOT)} has more than {FILE_LINES} lines", stacklevel=1)


def test_every_file_says_what_it_is():
    silent = [path for path in EVERYTHING if not ast.get_docstring(parse(path)) and path.read_text().strip()]
    assert [str(path.relative_to(ROOT)) for path in silent] == []


def test_torch_is_never_asked_for():
    wishes = (ROOT / "requirements.txt").read_text().split()
    assert wishes and not [wish for wish in wishes if re.match(r"torch|diffusers|transformers", wish)]


def test_licence_is_apache():
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text and "Version 2.0, January 2004" in text


@pytest.mark.parametrize("node_id", json.loads((ROOT / "tests" / "node_ids.json").read_text()))
def test_every_node_has_a_help_page(node_id):
    page = (ROOT / "web" / "docs" / f"{node_id}.md").read_text(encoding="utf-8")
    assert page.startswith("# ") and len(page) > 200


def test_importing_the_pack_needs_no_host():
    import sys

    assert "kinetograph" in sys.modules
    assert callable(sys.modules["kinetograph"].comfy_entrypoint)
