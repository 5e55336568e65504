"""A seeded share of each campaign: what `python -m tests.campaigns all` does at length, for every commit.

Files, prompts and the soak use the server of the session; what harms a server has one of its own, on the same
output folder.
"""

import shutil
import subprocess
import sys

import pytest

from kinetograph.tests.campaigns import cancels, files, kills, neighbours, prompts, soak
from kinetograph.tests.campaigns.ground import Ground, write_models
from kinetograph.tests.campaigns.outcome import Outcome
from kinetograph.tools.commands import ROOT

SEED = 7
COUNTS = {"files": 50, "prompts": 50, "soak": 12, "cancels": 6, "neighbours": 1, "kills": 1}
PATIENCE = 30.0  # seconds: on a busy computer a hang is told from slowness by its length
# MB a prompt: in so few prompts a clip of 60 MB may stay at the end; one kept by each prompt would show
LEAK = 40.0

pytestmark = [
    pytest.mark.newest,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc, signals and bash"),
]


@pytest.fixture(scope="module")
def lent(host, base, server):
    write_models(base)
    return Ground(host, base, lent=server)


@pytest.fixture(scope="module")
def own(host, base, lent, tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    shutil.copytree(base / "models" / "CogVideo" / "tiny-5B", folder / "models" / "CogVideo" / "tiny-5B")
    ground = Ground(host, folder, output=base / "output")
    yield ground
    ground.close()


def check(outcome):
    """All goals hold, and something was counted."""
    assert outcome.good and outcome.goals[0].got >= outcome.count > 0, outcome.to_text()


def test_files(lent):
    check(files.run(COUNTS["files"], SEED, lent, patience=PATIENCE))


def test_prompts(lent):
    check(prompts.run(COUNTS["prompts"], SEED, lent))


def test_soak(lent):
    check(soak.run(COUNTS["soak"], SEED, lent, mb_a_prompt=LEAK))


def test_cancels(own):
    check(cancels.run(COUNTS["cancels"], SEED, own, p95=PATIENCE, worst=PATIENCE))


def test_neighbours(own, lent):
    check(neighbours.run(COUNTS["neighbours"], SEED, own, lent, restarts=False))


def test_kills(own):
    check(kills.run(COUNTS["kills"], SEED, own))


def test_a_missed_goal_is_told():
    outcome = Outcome("any", 1, 0)
    assert not outcome.good, "nothing was counted"
    outcome.hold("counted", 1, ">=", 1)
    assert outcome.good
    outcome.faults.add("fault", "case 1", "words")
    outcome.none_of("fault", "another")
    assert not outcome.good
    assert "MISSED" in outcome.to_text() and "case 1: words" in outcome.to_text()
    assert outcome.to_json()["faults"] == {"fault": 1}
    outcome.hold("no number", float("nan"), "<=", 1)
    assert not outcome.goals[-1].holds


def test_the_script_tells_what_there_is():
    command = [sys.executable, "-m", "tests.campaigns", "--help"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert told.returncode == 0
    assert all(name in told.stdout for name in ("files", "prompts", "cancels", "kills", "soak", "neighbours"))
