"""README's node table is the schemas' own words, and every shipped workflow names only known nodes."""

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.newest

ROOT = Path(__file__).resolve().parents[2]
IDS = json.loads((ROOT / "tests" / "node_ids.json").read_text())
HEAD = "| Node | Takes | Gives | What it does |\n|---|---|---|---|"


def sockets(names):
    return ", ".join(dict.fromkeys(names))


def row(name, info):
    """One line of the table: link to the help page, sockets taken, sockets given, description."""
    inputs = {**info["input"]["required"], **info["input"].get("optional", {})}
    kinds = [kind for kind, *_ in inputs.values() if isinstance(kind, str)]
    taken = [
        kind
        for kind in kinds
        if kind.isupper() and kind not in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
    ]
    taken = [kind for kind in taken if not kind.startswith("COMFY_")]
    cells = [f"[{info['display_name']}](web/docs/{name}.md)", sockets(taken), sockets(info["output"])]
    return f"| {' | '.join([*cells, info['description']])} |"


def test_node_table_is_that_of_the_schemas(client):
    everything = client.get_json("/object_info")
    table = "\n".join([HEAD, *(row(name, everything[name]) for name in IDS)])
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert table in readme, f"README.md should hold this table:\n\n{table}\n"
