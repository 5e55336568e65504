"""The steps of `python -m benchmarks.gpu`, as far as they show without a card."""

import subprocess
import sys
import time

import pytest
import torch

from kinetograph.benchmarks import ours
from kinetograph.benchmarks.gpu import __main__ as command
from kinetograph.benchmarks.gpu import slabs, steps, trainings
from kinetograph.benchmarks.gpu.report import Report, read_rows
from kinetograph.benchmarks.memory import peak_live_bytes
from kinetograph.benchmarks.training_memory import JOBS
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


def test_a_sweep_reaches_the_network_and_changes_no_result(tmp_path, monkeypatch):
    """Under a small budget a decoder holds less, counted storage by storage, and gives the same."""
    config = ours.config("svd", "vae", channels=(32, 32), num_res_blocks=1)
    network = ours.network("svd", "vae", config, torch.float32, "cpu")
    ours.draw(network)
    z = ours.noise(0, torch.float32, "cpu", 4, 4, 16, 16)
    pictures, peaks = [], []

    def beside(candidates, rounds):
        with torch.inference_mode():
            peaks.append(peak_live_bytes(lambda: pictures.append(candidates["ours"]())))
        return {"ours": {}}

    monkeypatch.setattr(slabs.measure, "beside", beside)
    monkeypatch.setitem(slabs.POWERS, "IMAGE_VAE", (9, 28))
    slabs.sweep(Report(tmp_path, "slabs"), "decoder", "IMAGE_VAE", lambda: network.decode(z))
    small, usual, large = peaks
    assert small < 0.8 * large and usual <= large
    for picture in pictures[1:]:
        torch.testing.assert_close(picture, pictures[0], rtol=1e-5, atol=1e-5 * float(picture.abs().max()))
    assert [line["usual"] for line in read_rows(tmp_path)] == [False, True, False]


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


def test_every_training_has_a_step():
    chosen = [arguments for _, function, arguments in steps.TRAININGS.values() if function == "run"]
    found = [
        name
        for name, job in JOBS.items()
        for family, part in chosen
        if job.family == family and part in (job.part, job.variant)
    ]
    assert sorted(found) == sorted(JOBS)
    assert trainings.PEERS.keys() <= JOBS.keys()


def test_a_training_is_measured_beside_what_was_foreseen(tmp_path, monkeypatch):
    name = "SVD LoRA r64 over time, 512x320, 14 frames"
    monkeypatch.setattr(trainings, "JOBS", {name: JOBS[name]})
    monkeypatch.setattr(trainings, "TINY", (64, 64, 2))
    trainings.run(Report(tmp_path, "training svd", tiny=True), "svd", "lora")
    (row,) = read_rows(tmp_path)
    assert row["finite"] and row["seconds"] > 0 and row["trained"] > 0
    assert row["foreseen_gib"] == pytest.approx(4.51, abs=0.05)
