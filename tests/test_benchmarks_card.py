"""The steps of `python -m benchmarks.gpu`, as far as they show without a card."""

import subprocess
import sys
import time

import pytest

from kinetograph.benchmarks.gpu import __main__ as command
from kinetograph.benchmarks.gpu import slabs, steps
from kinetograph.benchmarks.gpu.report import Report, read_rows


@pytest.mark.parametrize("family, constant", [*slabs.POWERS, ("cogvideox", "storage_order")])
def test_constants_that_are_swept_exist(family, constant):
    from kinetograph.modules.families import FAMILIES

    assert FAMILIES and slabs.holders(family, constant)


def test_a_constant_changes_for_everyone_and_comes_back():
    places = slabs.holders("svd", "ELEMENTS")
    usual = [place.ELEMENTS for place in places]
    with pytest.raises(ZeroDivisionError), slabs.changed(places, "ELEMENTS", 7):
        assert {place.ELEMENTS for place in places} == {7}
        raise ZeroDivisionError
    assert [place.ELEMENTS for place in places] == usual
    with pytest.raises(LookupError):
        slabs.holders("svd", "NO_SUCH_CONSTANT")


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
