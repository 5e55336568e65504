"""The benchmarks' own rules: what is a miss, what is a tie, who runs beside whom, with which weights."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from kinetograph.benchmarks import __main__ as command
from kinetograph.benchmarks import cases, checkouts, harness, memory, ours, peers, report, vram
from kinetograph.modules.families import FAMILIES

BENCHMARKS = Path(command.__file__).parent
GOAL = {"case": "svd_vae", "metric": "CPU s", "ratio": 0.8}


def row(ratio, peer="diffusers", threads=1, **changes):
    """A finished row whose every round has this ratio to one peer."""
    theirs = [1.0, 2.0, 1.5, 1.2, 1.1]
    samples = {"ours": [ratio * second for second in theirs], peer: theirs}
    chosen = {"case": "svd_vae", "threads": threads, **changes}
    return harness.Row("chunk 4", "CPU s", samples, **chosen).as_dict()


def results(*rows, failed=()):
    return {"machine": {}, "rows": list(rows), "failed": dict.fromkeys(failed, "why")}


class TestGoals:
    @pytest.mark.parametrize("over", [1.0001, 1.01, 1.049, 1.5])
    def test_a_figure_over_its_goal_is_a_miss_by_however_little(self, over):
        text, good = report.check(results(row(0.8 * over)), [GOAL])
        assert text.startswith("MISSED") and not good

    @pytest.mark.parametrize("figure", [0.5, 0.25])
    def test_a_figure_at_or_below_its_goal_is_met(self, figure):
        text, good = report.check(results(row(figure)), [GOAL | {"ratio": 0.5}])
        assert text.startswith("met ") and good

    def test_a_tie_with_the_peer_is_named_and_changes_nothing(self):
        goal = GOAL | {"ratio": 0.97}
        below, good = report.check(results(row(0.96)), [goal])
        above, bad = report.check(results(row(0.98)), [goal])
        assert "a tie" in below and below.startswith("met") and good
        assert "a tie" in above and above.startswith("MISSED") and not bad

    def test_a_noisy_row_is_held_like_any_other(self):
        noisy = harness.Row("chunk 4", "CPU s", {"ours": [0.5, 0.9, 1.4], "host": [1.0] * 3}, case="svd_vae")
        assert noisy.spread > 0.4
        text, good = report.check(results(noisy.as_dict()), [GOAL])
        assert text.startswith("MISSED") and not good

    def test_every_number_of_threads_counts(self):
        text, good = report.check(results(row(0.7, threads=1), row(0.9, threads=2)), [GOAL])
        lines = text.splitlines()
        assert lines[0].startswith("met") and "1 thread |" in lines[0]
        assert lines[1].startswith("MISSED") and "2 threads |" in lines[1]
        assert not good

    def test_the_best_peer_is_the_one_to_beat(self):
        samples = {"ours": [0.7], "diffusers": [1.0], "diffusers, chunked feed-forward": [0.6]}
        figures = harness.Row("25 frames", "peak GiB", samples, case="svd_vae").as_dict()
        text, good = report.check(results(figures), [GOAL | {"metric": "peak GiB"}])
        assert text.startswith("MISSED") and "1.167" in text and not good

    def test_what_changes_the_picture_fulfils_no_goal(self):
        text, good = report.check(results(row(0.5, exact=False)), [GOAL])
        assert text.startswith("not measured") and good

    def test_a_case_that_broke_is_a_failure(self):
        text, good = report.check(results(row(0.5), failed=["cog_dit, times, threads 2"]), [GOAL])
        assert "FAILED" in text and not good

    def test_goals_have_no_exceptions(self):
        goals = report.read_goals(BENCHMARKS / "goals.toml")
        assert len(goals) > 15
        for goal in goals:
            assert set(goal) <= {"case", "metric", "size", "ratio", "most", "of", "stretch"}, goal
            assert goal["case"] in cases.NAMES and ("ratio" in goal) != ("most" in goal)
            assert goal.get("stretch", 0) <= goal.get("ratio", goal.get("most"))


class TestVerdicts:
    @pytest.mark.parametrize(
        "ratio, word", [(0.949, "better"), (0.951, "tie"), (1.049, "tie"), (1.051, "worse")]
    )
    def test_a_tie_is_five_per_cent(self, ratio, word):
        assert row(ratio)["verdict"] == word

    def test_noise_makes_no_tie(self):
        samples = {"ours": [0.5, 0.85, 1.2], "diffusers": [1.0] * 3}
        assert harness.Row("", "CPU s", samples).verdict == "better"

    def test_modes_that_change_the_picture_stand_apart(self):
        tiled = row(1.4, "diffusers, tiled", exact=False, psnr={"diffusers, tiled": 31.25})
        exact, apart = report.table(results(tiled, row(0.7))).split("Modes that change the picture")
        assert "0.700 of diffusers" in exact and "tiled" not in exact
        assert "1.400 of diffusers, tiled" in apart and "31.2 dB" in apart


class TestRounds:
    def candidates(self, calls):
        return {name: lambda name=name: calls.append(name) for name in ("ours", "a", "b")}

    @pytest.mark.parametrize("threads, metrics", [(1, ["CPU s"]), (2, ["CPU s", "wall s"])])
    def test_the_order_is_flipped_each_round(self, threads, metrics):
        calls = []
        setting = harness.Setting(threads=threads, max_rounds=6)
        rows = list(harness.time_rows("size", self.candidates(calls), setting, {"a": 0.0}, {"c": "away"}))
        assert [figures.metric for figures in rows] == metrics
        assert calls[:3] == ["ours", "a", "b"]  # to warm up
        rounds = [calls[start : start + 3] for start in range(3, len(calls), 3)]
        assert rounds[:4] == [["ours", "a", "b"], ["b", "a", "ours"]] * 2
        for figures in rows:
            assert {len(samples) for samples in figures.samples.values()} == {len(rounds)}
            assert figures.threads == threads and figures.absent == {"c": "away"}

    def test_cpu_time_counts_work_and_not_waiting(self):
        import time

        setting = harness.Setting(threads=2, max_rounds=1)
        works = {"ours": lambda: time.sleep(0.02)}
        cpu, wall = harness.time_rows("size", works, setting)
        assert cpu.samples["ours"][0] < 0.01 and 0.02 <= wall.samples["ours"][0] < 5

    def test_every_timed_case_runs_with_each_number_of_threads(self):
        parts = {
            name: list(command.passes(BENCHMARKS / "cases" / f"{name}.py", "cpu", [1, 2]))
            for name in cases.NAMES
        }
        timed = {name for name, found in parts.items() if ("times", 1) in found}
        assert timed == set(cases.NAMES) - {"flatness"}
        assert all(("times", 2) in parts[name] for name in timed)
        assert all(("counts", 2) not in found and found for found in parts.values())


def test_psnr_is_that_of_colours_from_minus_one_to_one():
    first, second = (np.random.default_rng(seed).uniform(-1, 1, (3, 4, 5)) for seed in (0, 1))
    expected = 20 * np.log10(2 / np.sqrt(np.mean((first - second) ** 2)))
    found = harness.psnr(torch.from_numpy(first), torch.from_numpy(second))
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("tokens", [64, 512])
def test_attention_on_meta_tensors_holds_what_a_kernel_holds(tokens):
    """PyTorch's own account of its CPU kernel is the oracle."""

    def peak(device):
        x_bld = torch.empty(2, tokens, 256, dtype=torch.bfloat16, device=device)

        def attend():
            q_bhld = (x_bld + 1).unflatten(2, (4, 64)).transpose(1, 2)
            return F.scaled_dot_product_attention(q_bhld, q_bhld, q_bhld).transpose(1, 2).reshape(x_bld.shape)

        return memory.peak_live_bytes(attend) / x_bld.nbytes

    with torch.inference_mode():
        on_meta = peak("meta")
        with FakeTensorMode():
            assert on_meta == peak("cpu") == 2


class TestWeights:
    SIZES = {"channels": (32, 32), "num_res_blocks": 1}

    def vae(self):
        return ours.network("svd", "vae", ours.config("svd", "vae", **self.SIZES), torch.float32, "cpu")

    def test_every_weight_is_drawn_and_the_same_in_every_model(self):
        first, second = self.vae(), self.vae()
        ours.draw(first)
        for parameter in reversed(list(second.parameters())):
            parameter.data.zero_()
        ours.draw(second)
        for key, value in first.state_dict().items():
            assert value.unique().numel() > 1 or value.numel() == 1, key
            assert value.count_nonzero() == value.numel(), key
            assert torch.equal(value, second.state_dict()[key]), key

    def test_peers_hold_the_very_tensors(self):
        class Peer(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(3, 3)
                self.register_buffer("table", torch.arange(4.0), persistent=False)

        class Plain(nn.Linear):
            devices = []

            def __init__(self):
                super().__init__(3, 3)
                self.devices.append(self.weight.device.type)

        weights = {"weight": torch.randn(3, 3), "bias": torch.randn(3)}
        plain = peers.place(Plain, weights, torch.float32, "cpu")
        assert plain.weight.data_ptr() == weights["weight"].data_ptr() and Plain.devices == ["meta"]
        named = {f"layer.{key}": value for key, value in weights.items()}
        peer = peers.place(Peer, named, torch.float32, "cpu")
        assert peer.layer.bias.data_ptr() == weights["bias"].data_ptr()
        assert torch.equal(peer.table, torch.arange(4.0))


class TestCheckouts:
    SUBJECT = replace(
        checkouts.SVD_VAE,
        timed=(checkouts.Run("small", (2, 4, 4), TestWeights.SIZES),),
        counted=(checkouts.Run("small", (2, 8, 8), TestWeights.SIZES),),
    )
    DECODER, DECODING = Path("modules/families/svd/vae.py"), "return self.decoder(z_nchw)"

    @pytest.fixture
    def other(self, tmp_path, monkeypatch):
        """A copy of this checkout, and how its decoder beside this one fares after a change in it."""
        shutil.copy(BENCHMARKS.parent / "__init__.py", tmp_path)
        shutil.copytree(BENCHMARKS.parent / "modules", tmp_path / "modules")
        monkeypatch.setitem(checkouts.SUBJECTS, "svd_vae", self.SUBJECT)
        setting = harness.Setting(case="svd_vae", old=str(tmp_path), max_rounds=1)

        def beside(part, change=("", "")):
            file = tmp_path / self.DECODER
            text = file.read_text()
            assert change[0] in text
            file.write_text(text.replace(*change, 1))
            rows = list(getattr(checkouts, part)(setting))
            return rows, report.comparison(results(*(figures.as_dict() for figures in rows)))

        return beside

    def test_the_same_code_gives_the_same_and_holds_the_same(self, other):
        (times,), _ = other("times")
        (counts,), (text, good) = other("counts")
        assert times.parity == {"old": 0.0} and set(times.samples) == {"ours", "old"}
        assert counts.samples["ours"] == counts.samples["old"] != [0.0]
        assert text.startswith("equal") and good

    def test_each_network_is_built_from_its_own_checkout(self, other, tmp_path):
        pair = checkouts._pair(self.SUBJECT, self.SUBJECT.timed[0], tmp_path, torch.float32, "cpu")
        for part in (lambda network: network, lambda network: network.config):
            rooms = [type(part(network)).__module__.split(".") for network in pair.values()]
            assert rooms[0][0] == "kinetograph" != rooms[1][0] and rooms[0][1:] == rooms[1][1:]
        weights = [network.decoder.conv_in.weight for network in pair.values()]
        assert weights[0].data_ptr() == weights[1].data_ptr()

    def test_a_byte_more_than_before_is_seen(self, other):
        peak = "return [z_nchw.new_empty(1), self.decoder(z_nchw)][1]"
        (counts,), (text, good) = other("counts", (self.DECODING, peak))
        assert counts.samples["old"][0] == counts.samples["ours"][0] + 2 and good and "lower" in text
        swapped = replace(counts, samples={"ours": counts.samples["old"], "old": counts.samples["ours"]})
        text, good = report.comparison(results(swapped.as_dict()))
        assert text.startswith("HIGHER") and not good

    def test_another_picture_is_refused(self, other):
        with pytest.raises(AssertionError, match="old differs from ours"):
            other("times", (self.DECODING, "return 1.001 * self.decoder(z_nchw)"))

    @pytest.mark.parametrize(
        "median, minima, word, fine",
        [
            (1.06, 1.06, "SLOWER", False),
            (1.06, 1.04, "tie", True),
            (1.04, 1.04, "tie", True),
            (0.9, 0.9, "faster", True),
        ],
    )
    def test_slower_is_beyond_five_per_cent_by_both_measures(self, median, minima, word, fine):
        figures = row(1.0, "old") | {"ratio": median, "ratio_of_minima": minima}
        text, good = report.comparison(results(figures))
        assert text.startswith(word) and good is fine

    def test_a_broken_case_is_no_tie(self):
        assert not report.comparison(results(failed=["svd_vae, counts"]))[1]

    def test_no_checkout_is_no_checkout(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="no checkout"):
            ours.import_pack(tmp_path / "nothing")


class TestMemoryOfACard:
    FIGURES = json.loads((vram.RESULTS / "vram.json").read_text())

    def test_every_network_to_choose_has_a_figure_that_says_where_it_is_from(self):
        names = [row.name for family in FAMILIES for row in family.releases if row.size]
        assert list(self.FIGURES) == names and len(names) > 20
        assert {name for name, row in self.FIGURES.items() if row["measured"]} == set(vram.MEASURED)

    @pytest.mark.parametrize("name", ["CogVideoX 2B", "AnimateDiff v3"])
    def test_a_prediction_is_made_again(self, name):
        (found,) = [(row, family) for family in FAMILIES for row in family.releases if row.name == name]
        assert round(vram.estimate(*found), 1) == self.FIGURES[name]["gib"]
