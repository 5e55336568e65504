"""The steps of `python -m benchmarks.gpu`, as far as they show without a card."""

import subprocess
import sys
import time

import pytest

from kinetograph.benchmarks.gpu import __main__ as command
from kinetograph.benchmarks.gpu import slabs, steps
from kinetograph.benchmarks.gpu.report import Report, read_rows
from kinetograph.modules.layers import slabs as kit


@pytest.mark.parametrize("budget", slabs.POWERS)
def test_budgets_that_are_swept_exist(budget):
    assert isinstance(getattr(kit, budget), kit.Budget)


def test_a_constant_changes_for_everyone_and_comes_back():
    usual, other = kit.UNET, kit.Budget(7, 7)
    with pytest.raises(ZeroDivisionError), slabs.changed(kit, "UNET", other):
        assert kit.UNET is other
        raise ZeroDivisionError
    assert kit.UNET is usual
    with pytest.raises(AttributeError), slabs.changed(kit, "NO_SUCH_CONSTANT", other):
        pass


def test_a_study_that_fails_stops_no_other(tmp_path, monkeypatch):
    def broken(report, title):
        raise RuntimeError("out of memory")

    def good(report, title):
        return lambda: report.add(title, seconds=1)

    monkeypatch.setattr(slabs, "STUDIES", {"first": good, "broken": broken, "last": good})
    slabs.run(Report(tmp_path, "slabs"))
    rows = read_rows(tmp_path)
    assert [(line["name"], "failed" in line) for line in rows] == [
        ("first", False),
        ("broken", True),
        ("last", False),
    ]


def test_a_step_ends_at_its_limit_and_the_others_go_on(tmp_path, monkeypatch):
    naps = {"long": 60, "short": 0.1}

    def start(step, folder, tiny):
        program = f"import time; time.sleep({naps[step]})"
        return subprocess.Popen([sys.executable, "-c", program], start_new_session=True)

    monkeypatch.setattr(command, "start", start)
    monkeypatch.setattr(command, "LIMITS", {"long": 1.0})
    began = time.monotonic()
    late = command.run_phase(list(naps), tmp_path, False, began + 50)
    assert late == ["long"] and time.monotonic() - began < 20


def test_every_step_has_a_phase_of_its_own():
    assert sorted(step for phase in steps.PHASES for step in phase) == sorted(steps.STEPS)
    assert set(steps.LIMITS) <= set(steps.STEPS)
