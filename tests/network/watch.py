"""Sees to it that the processes which tests start reach nothing but this machine."""

import json
import os
from pathlib import Path

import pytest

PLACE = str(Path(__file__).parent)


def variables(folder):
    """What the environment of a process holds, so that the guard in it writes into `folder`."""
    paths = [PLACE, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    return {"KINETOGRAPH_NETWORK": str(folder), "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}


def records(folder, name):
    """The lines of a list, `watched` or `refused`."""
    path = Path(folder) / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def check(folder):
    """Fail when a process that `folder` is about tried to leave this machine."""
    tried = [
        f"{record['event']} {record['where']} of {record['command']}\n{''.join(record['stack'])}"
        for record in records(folder, "refused")
    ]
    if tried:
        pytest.fail("These processes tried to reach the network:\n\n" + "\n".join(tried), pytrace=False)


@pytest.fixture(scope="session", autouse=True)
def network(tmp_path_factory):
    """Watch every Python process that this session starts; fail at its end when one tried to leave."""
    folder = tmp_path_factory.mktemp("network")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables(folder).items():
            patch.setenv(name, value)
        yield folder
    check(folder)
