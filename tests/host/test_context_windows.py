"""Context Windows on the real host: every window sees its own frames, pictures and prompt, as a run by hand would."""

import types

import pytest
import torch

from kinetograph.modules.sampling.windows import WindowPlan
from kinetograph.tests import tiny
from kinetograph.tests.host.windowing import LOOP, Watched, by_hand, cut, draw, predict, windows
from kinetograph.tests.host.workbench import SVDWorkbench, Workbench, relative, run

# 16 latent frames, as many as numbers in a token: nothing may be cut for its size alone
FRAMES, LATENT = 61, 16
# of 29 frames that share 8: 8 latents that share 2
LENGTH, OVERLAP = 29, 8
PARTS = [list(range(start, start + 8)) for start in (0, 6, 8)]
WEIGHTS = {
    "flat": [[1.0] * 8] * 3,
    "pyramid": [[1.0, 2.0, 3.0, 4.0, 4.0, 3.0, 2.0, 1.0]] * 3,
    "relative": [[max(1 - abs(place - 3.5) / 3.505, 0.01) for place in range(8)]] * 3,
    "overlap-linear": [[1.0] * 7 + [0.0], [0.0] + [1.0] * 6 + [0.0], [0.0] + [1.0] * 7],
}


@pytest.fixture(scope="module")
def bench(comfy_here, base):
    bench = Workbench()
    for variant in ("5B-InP", "5B-Control"):
        tiny.write_pipeline(base / "models" / "CogVideo" / f"tiny-{variant}", variant)
    return bench


@pytest.fixture(scope="module")
def svd(comfy_here):
    return SVDWorkbench()


@pytest.fixture
def prompts(bench):
    return {"positive": bench.text(), "negative": bench.text("")}


def both(positive, negative, **axes):
    """A function of a window: the prompts of a sampler with these values cut to it."""
    cuts = cut(positive, **axes), cut(negative, **axes)
    return lambda window: {"positive": cuts[0](window), "negative": cuts[1](window)}


class TestCogVideoX:
    @pytest.mark.parametrize("fuse", WEIGHTS)
    def test_text_to_video(self, bench, prompts, fuse):
        model, noise = bench.shared()[0], draw(1, 16, LATENT, 8, 8)
        cut_up = windows(bench, model, LENGTH, overlap=OVERLAP, fuse_method=fuse)
        ours = predict(cut_up, noise, **prompts)
        assert relative(ours, by_hand(model, noise, PARTS, WEIGHTS[fuse], 2, both(**prompts))) < 2e-5
        assert relative(ours, predict(model, noise, **prompts)) > 1e-3

    @pytest.mark.parametrize(
        ("variant", "values"),
        [
            ("1.5-5B-I2V", {"concat_latent_image": (2, (1, 16, LATENT, 8, 8))}),
            ("5B-Control", {"kinetograph_control_latents": (2, (1, 16, LATENT, 8, 8))}),
            (
                "5B-InP",
                {
                    "concat_latent_image": (2, (1, 16, LATENT, 8, 8)),
                    "concat_mask": (2, (1, 1, LATENT, 8, 8)),
                },
            ),
        ],
    )
    def test_what_lies_beside_the_noise(self, bench, variant, values):
        """The channels of a window are those of its frames: of a picture, only the first window holds any."""
        model, noise = bench.shared(variant)[0], draw(1, 16, LATENT, 8, 8)
        beside = {
            name: draw(*shape, seed=place).clamp(0, 1 if name == "concat_mask" else 9)
            for place, (name, (_, shape)) in enumerate(values.items())
        }
        if variant == "1.5-5B-I2V":
            beside["concat_latent_image"][:, :, 1:] = 0
        told = {
            side: [[tokens, {**more, **beside}] for tokens, more in bench.text(text)]
            for side, text in (("positive", "a red circle"), ("negative", ""))
        }
        watched = Watched(windows(bench, model, LENGTH, overlap=OVERLAP))
        ours = predict(watched.model, noise, **told)
        theirs = by_hand(model, noise, PARTS, WEIGHTS["flat"], 2, both(**told, **dict.fromkeys(values, 2)))
        assert relative(ours, theirs) < 2e-5 and watched.windows == PARTS
        shown = [bool(call["x"][:, 16:].any()) for call in watched.calls if call["frames"] != PARTS[0]]
        assert any(shown) == (variant != "1.5-5B-I2V")

    def test_windows_of_whole_tokens(self, bench):
        """CogVideoX 1.5 takes two latent frames at once: 13 frames are 4 latents, as the sampler fills them up."""
        model = bench.shared("1.5-5B")[0]
        watched = Watched(windows(bench, model, 13, overlap=-1))
        assert bench.ksampler(watched.model, bench.empty(29), steps=1).shape[2] == 8
        assert watched.windows == [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7]]
        truncated = windows(bench, model, 13, schedule="standard_truncated")
        with pytest.raises(
            ValueError, match="multiple of 2 latent frames, .*leaves one of 3 .*standard_static"
        ):
            bench.ksampler(truncated, bench.empty(45))

    def test_several_clips(self, bench, prompts):
        """Both of a batch in one pass, each as by itself."""
        model, noise = windows(bench, bench.shared()[0], LENGTH), draw(2, 16, 10, 8, 8)
        alone = [predict(model, clip, **prompts) for clip in noise.split(1)]
        assert relative(predict(model, noise, **prompts), torch.cat(alone, dim=1)) < 2e-5


class TestSVD:
    def test_pictures_and_features_of_each_frame(self, svd):
        """Also of the second clip of a batch: no window reaches over from one into the other."""
        model, latent, noise = svd.svd()[0], svd.empty(7), draw(7, 4, 8, 8)
        positive, negative = svd.condition(latent, svd.picture(7), noise_aug_strength=0.0)
        parts = [[0, 1, 2, 3], [2, 3, 4, 5], [3, 4, 5, 6]]
        weights = [[1.0, 1.0, 1.0, 0.0], [0.0, 1.0, 1.0, 0.0], [0.0, 1.0, 1.0, 1.0]]
        cut_up = windows(svd, model, 4, overlap=2, fuse_method="overlap-linear")
        ours = predict(cut_up, noise, positive=positive, negative=negative)
        hand = both(positive, negative, concat_latent_image=0, tokens=0)
        assert relative(ours, by_hand(model, noise, parts, weights, 0, hand)) < 2e-5
        more = torch.cat([noise, draw(7, 4, 8, 8, seed=8)])
        twice = predict(cut_up, more, positive=positive, negative=negative)
        assert relative(twice[:, :7], ours) < 1e-5
        second = predict(cut_up, more[7:], positive=positive, negative=negative)
        assert relative(twice[:, 7:], second) < 1e-5

    def test_the_hosts_own_model(self, svd):
        """Its clips are told by the latent alone: Video Sampler tells the windows."""
        from kinetograph.tests.host.svd_parts import make_host_svd

        model, latent = make_host_svd(), svd.empty(5, clips=2)
        image = {"concat_latent_image": draw(5, 4, 8, 8)}
        told = dict.fromkeys(("positive", "negative"), [[draw(5, 1, 16), image]])
        watched = Watched(windows(svd, model, 3, overlap=1))
        out = svd.sampler(watched.model, latent, steps=1, **told)
        assert out.isfinite().all()
        assert watched.windows == [[0, 1, 2], [2, 3, 4], [5, 6, 7], [7, 8, 9]]
        assert {call["num_video_frames"] for call in watched.calls} == {3}


class TestSchedules:
    @pytest.mark.parametrize("sampler_name", ["euler", "heun"])
    def test_windows_move_with_the_steps(self, bench, sampler_name):
        """A second look at the same step, as Heun takes, is one of the next noise level."""
        watched = Watched(windows(bench, bench.shared()[0], LENGTH, **{**LOOP, "overlap": OVERLAP}))
        bench.ksampler(watched.model, bench.empty(FRAMES), steps=3, sampler_name=sampler_name)
        lists = [WindowPlan("looped_uniform", 8, 2, 1, True).windows(LATENT, step) for step in range(3)]
        steps = {"euler": [0, 1, 2], "heun": [0, 1, 1, 2, 2]}[sampler_name]
        assert watched.windows == [window for step in steps for window in lists[step]]
        assert lists[1][1] == [14, 15, 0, 1, 2, 3, 4, 5]

    @pytest.mark.parametrize(
        "schedule", ["standard_uniform", "looped_uniform", "standard_truncated", "batched"]
    )
    def test_every_schedule(self, bench, schedule):
        """With strides that bring a frame into one window twice. A second run is the first, bit for bit."""
        model = windows(bench, bench.shared()[0], 13, schedule=schedule, stride=3, fuse_method="relative")
        out = bench.ksampler(model, bench.empty(41), steps=2)
        assert out.isfinite().all() and out.std() > 0.01
        assert torch.equal(bench.ksampler(model, bench.empty(41), steps=2), out)

    def test_levels_between_two_steps(self, bench):
        """Of samplers that ask at levels of their own: the step above, whatever ran before."""
        handler = windows(bench, bench.shared()[0], LENGTH).model_options["context_handler"]
        options = {"transformer_options": {"sample_sigmas": torch.tensor([10.0, 5.0, 1.0, 0.0])}}
        found = []
        for sigma in (2.0, 10.0, 7.0, 5.0, 0.5, 12.0):
            handler.set_step(torch.tensor([sigma]), options)
            found.append(handler._step)
        assert found == [1, 0, 0, 1, 2, 0]

    def test_a_frame_twice_in_a_window(self, bench, prompts):
        """A pace of 4 comes around a loop of 8: both of its predictions count."""
        model, noise = bench.shared()[0], draw(1, 16, 8, 8, 8)
        parts = [[0, 1, 2], [3, 4, 5], [6, 7, 0], [0, 2, 4], [6, 0, 2], [0, 4, 0]]
        chosen = {**LOOP, "overlap": 0, "stride": 3, "closed_loop": False}
        ours = predict(windows(bench, model, 9, **chosen), noise, **prompts)
        theirs = by_hand(model, noise, parts, [[1.0, 2.0, 1.0]] * 6, 2, both(**prompts))
        assert relative(ours, theirs) < 2e-5

    def test_a_clip_of_one_window_is_as_ever(self, bench):
        model, latent = bench.shared()[0], bench.empty(9)
        assert torch.equal(bench.ksampler(windows(bench, model, 0), latent), bench.ksampler(model, latent))

    def test_through_all_samplers(self, bench, prompts):
        from comfy_extras import nodes_custom_sampler as custom

        model, latent = windows(bench, bench.shared()[0], LENGTH, freenoise=True), bench.empty(45)
        theirs = bench.ksampler(model, latent)
        assert torch.equal(bench.sampler(model, latent, preview=True), theirs)
        (noise,) = run(custom.RandomNoise, noise_seed=7)
        (guider,) = run(custom.CFGGuider, model=model, cfg=6.0, **prompts)
        (sampler,) = run(custom.KSamplerSelect, sampler_name="euler")
        (sigmas,) = run(custom.BasicScheduler, model=model, scheduler="simple", steps=3, denoise=1.0)
        parts = {"noise": noise, "guider": guider, "sampler": sampler, "sigmas": sigmas}
        out = run(custom.SamplerCustomAdvanced, latent_image=latent, **parts)[0]["samples"]
        assert torch.equal(out, theirs)


class TestPrompts:
    def followed(self, watched, prompts):
        """(frames of a window, which prompt) of every positive pass."""
        found = []
        for call in watched.calls:
            rows = call["context"].shape[0] // len(call["entries"])
            for place, entry in enumerate(call["entries"]):
                tokens = call["context"][place * rows : place * rows + 1]
                which = [number for number, each in enumerate(prompts) if torch.equal(tokens, each[0][0])]
                if entry == 0:
                    found.append((call["frames"][0], *which))
                else:
                    assert which == []
        return found

    def test_in_the_order_of_the_clip(self, bench):
        """Each window has one; the text of the sampler's positive prompt is in none."""
        prompts = [bench.text(f"{colour} circle") for colour in ("a red", "a blue")]
        watched = Watched(windows(bench, bench.shared()[0], 13, prompts, overlap=8))
        bench.ksampler(watched.model, bench.empty(29), steps=1, cfg=2.0)
        assert self.followed(watched, prompts) == [(0, 0), (2, 0), (4, 1)]

    def test_around_a_loop(self, bench):
        prompts = [bench.text(f"{colour} circle") for colour in ("a red", "a blue", "a green")]
        looped = {**LOOP, "overlap": OVERLAP}
        watched = Watched(windows(bench, bench.shared()[0], 17, prompts, **looped))
        bench.ksampler(watched.model, bench.empty(45), steps=2, cfg=2.0)
        # 12 latents: middles 2, 5, 8, 11, and 8, 11, 2, 5
        assert self.followed(watched, prompts) == [
            (0, 0), (3, 1), (6, 2), (9, 2), (6, 2), (9, 2), (0, 0), (3, 1),
        ]  # fmt: skip

    def test_the_rest_of_the_positive_stays(self, bench):
        """A picture beside the noise, in the windows of every prompt."""
        model, noise = bench.shared("1.5-5B-I2V")[0], draw(1, 16, LATENT, 8, 8)
        beside = {"concat_latent_image": draw(1, 16, LATENT, 8, 8, seed=1)}
        colours = [bench.text(f"{colour} circle") for colour in ("a red", "a blue", "a green")]
        told = {
            "positive": [[bench.text("nothing")[0][0], beside]],
            "negative": [[bench.text("")[0][0], beside]],
        }
        ours = predict(windows(bench, model, LENGTH, colours, overlap=OVERLAP), noise, **told)
        hands = both(**told, concat_latent_image=2)

        def with_its_prompt(window):
            made = hands(window)
            made["positive"][0][0] = colours[PARTS.index(window)][0][0]
            return made

        theirs = by_hand(model, noise, PARTS, WEIGHTS["flat"], 2, with_its_prompt)
        assert relative(ours, theirs) < 2e-5

    def test_a_picture_for_each_part_of_svd(self, svd):
        """What a prompt carries counts: SVD has a picture in its place."""
        model, noise = svd.svd()[0], draw(5, 4, 8, 8)
        made = [svd.condition(svd.empty(5), svd.picture(seed=seed)) for seed in (0, 1)]
        positive, negative = made[0]
        cut_up = windows(svd, model, 3, [both[0] for both in made], overlap=1)
        ours = predict(cut_up, noise, positive=positive, negative=negative)

        def of_its_part(window):
            return {
                "positive": cut(made[window[0] // 2][0])(window),
                "negative": cut(negative)(window),
            }

        theirs = by_hand(model, noise, [[0, 1, 2], [2, 3, 4]], [[1.0] * 3] * 2, 0, of_its_part)
        assert relative(ours, theirs) < 2e-5


class TestFreeNoise:
    def test_the_hosts_order(self, bench, prompts):
        """The same as with noise that the host's own function shuffled."""
        import comfy.context_windows

        noise = draw(1, 16, LATENT, 8, 8)
        free = windows(bench, bench.shared()[0], LENGTH, freenoise=True, overlap=OVERLAP)
        plain = windows(bench, bench.shared()[0], LENGTH, overlap=OVERLAP)
        shuffled = comfy.context_windows.apply_freenoise(noise.clone(), 2, 8, 2, 7)
        ours = predict(free, noise, **prompts)
        assert torch.equal(ours, predict(plain, shuffled, **prompts))
        assert not torch.equal(ours, predict(plain, noise, **prompts))

    def test_a_clip_taken_out_of_a_batch(self, svd):
        """By its batch index it has the noise that it had among the others."""
        model = windows(svd, svd.svd()[0], 3, freenoise=True, overlap=1)
        latent = svd.empty(5, clips=2)
        told = dict(zip(("positive", "negative"), svd.condition(svd.empty(5)), strict=True))
        whole = svd.ksampler(model, latent, steps=1, **told)
        (second,) = run(svd.host.LatentFromBatch, samples=latent, batch_index=5, length=5)
        assert relative(svd.ksampler(model, second, steps=1, **told), whole[5:]) < 1e-5


class TestTheHostsLists:
    """The spec's rules are the host's, but where its own frames leave the clip or a frame is left out."""

    def test_lists(self, comfy_here):
        from comfy.context_windows import CONTEXT_MAPPING

        compared, beyond, filled = 0, 0, 0
        for schedule, theirs in CONTEXT_MAPPING.items():
            for frames in (9, 17, 18, 24, 33, 40, 64, 100):
                for length, overlap in ((2, 0), (5, 1), (8, 2), (8, 4), (12, 3), (16, 4), (16, 12)):
                    if frames <= length or (schedule == "batched" and overlap):
                        continue
                    for stride, closed, step in [
                        (stride, closed, step)
                        for stride in (1, 2, 3)
                        for closed in (False, True)
                        for step in (0, 1, 2, 3, 7, 12)
                    ]:
                        handler = types.SimpleNamespace(
                            context_length=length, context_overlap=overlap, context_stride=stride,
                            closed_loop=closed, _step=step,
                        )  # fmt: skip
                        plan = WindowPlan(schedule, length, overlap, stride, closed)
                        ours = plan.windows(frames, step)
                        host = [[int(frame) for frame in window] for window in theirs(frames, handler, {})]
                        compared += 1
                        if any(frame >= frames for window in host for frame in window):
                            beyond += 1
                        elif set().union(*host) != set(range(frames)):
                            filled += 1
                            assert ours[: len(host)] == host
                        elif schedule == "standard_uniform" and closed:
                            continue
                        else:
                            assert ours == host, plan
        assert compared > 2268 and beyond and filled

    def test_weights(self, comfy_here):
        """But "relative", which the host counts by frame numbers: the same where none passes the end of a loop."""
        from comfy.context_windows import FUSE_MAPPING

        for fuse in ("flat", "pyramid", "overlap-linear"):
            for length, overlap in ((5, 2), (8, 4), (16, 4)):
                # 0.16.3 asks it, 0.30 the arguments
                handler = types.SimpleNamespace(context_overlap=overlap)
                for start in (0, 7, 40 - length):
                    frames = list(range(start, start + length))
                    host = FUSE_MAPPING[fuse](
                        length, full_length=40, idxs=frames, context_overlap=overlap, handler=handler
                    )
                    ours = WindowPlan("standard_static", length, overlap, fuse=fuse).weights(frames, 40)
                    assert ours == pytest.approx(torch.as_tensor(host).tolist(), abs=2e-6)


class TestWhatDoesNotFit:
    """Refused before the network is called: what came, what is allowed, what to do."""

    @pytest.mark.parametrize(
        ("length", "schedule", "message"),
        [
            (16, {}, "length: .*got length=16, use 13 or 17"),
            (17, {"overlap": 3}, "folds 4 frames .*overlap=3, use 0 or 4"),
            (
                13,
                {"overlap": 16},
                "share fewer frames than they have: got overlap=16 of length=13",
            ),
        ],
    )
    def test_lengths(self, bench, length, schedule, message):
        with pytest.raises(ValueError, match=message):
            windows(bench, bench.shared()[0], length, **schedule)

    def test_at_the_post(self, bench):
        kind = bench.ours["ContextWindows"]
        ask = {"model": None, "prompts": {}}
        said = kind.validate_inputs(**ask, length=16, schedule={"schedule": "standard_static", "overlap": 16})
        assert "overlap=16 of length=16" in said
        assert "schedule must be one of" in kind.validate_inputs(**ask, length=16, schedule={"schedule": "x"})
        assert kind.validate_inputs(**ask, length=0, schedule={"schedule": "batched"}) is True
        assert kind.validate_inputs(
            **ask, length=None, schedule={"schedule": "standard_static", "overlap": None}
        )

    def test_beyond_the_positions(self, bench):
        with pytest.raises(
            ValueError, match="5B-I2V .*at most 17 frames, and so are its windows: got length=21, use 17"
        ):
            windows(bench, bench.shared("5B-I2V")[0], 21)
        model = windows(bench, bench.shared("5B-I2V")[0], 0)
        beside = {"concat_latent_image": torch.zeros(1, 16, 9, 8, 8)}
        both = {side: [[bench.text()[0][0], beside]] for side in ("positive", "negative")}
        assert bench.ksampler(model, bench.empty(33), steps=1, **both).shape[2] == 9

    @pytest.mark.parametrize(
        ("frames", "changes", "message"),
        [
            (9, LOOP, "closed loop needs a clip longer than one window: got 3 latent frames, a window has 5"),
            (
                29,
                {"prompts": 4},
                "got 4, a clip of 8 latent frames has 2 windows of 5, so that prompt 2 would",
            ),
            (9, {"prompts": 2}, "got 2, a clip of 3 latent frames has 1 window of 3"),
        ],
    )
    def test_clips(self, bench, frames, changes, message):
        count = changes.get("prompts", 0)
        told = {**changes, "prompts": [bench.text(f"{number} circles") for number in range(count)]}
        watched = Watched(windows(bench, bench.shared()[0], 17, **told))
        with pytest.raises(ValueError, match=message):
            bench.ksampler(watched.model, bench.empty(frames))
        assert watched.calls == []

    def test_prompts_that_cannot_be_put_in(self, bench):
        model = windows(bench, bench.shared()[0], 17, [bench.text()])
        with pytest.raises(ValueError, match="positive conditioning is one: got 2 combined"):
            bench.ksampler(model, bench.empty(29), positive=bench.text() + bench.text("b"))
        import comfy.hooks

        hooked = [[tokens, {**more, "hooks": comfy.hooks.HookGroup()}] for tokens, more in bench.text()]
        with pytest.raises(ValueError, match="Prompt 1 of Context Windows has hooks"):
            bench.ksampler(windows(bench, bench.shared()[0], 17, [hooked]), bench.empty(29))

    def test_two_nodes(self, bench):
        from comfy_extras.nodes_context_windows import ContextWindowsManualNode as Manual

        model = windows(bench, bench.shared()[0], 17)
        with pytest.raises(ValueError, match="has context windows already: keep one"):
            windows(bench, model, 17)
        chosen = {
            "context_length": 5,
            "context_overlap": 1,
            "context_stride": 1,
            "dim": 2,
            "freenoise": False,
        }
        chosen |= {"context_schedule": "standard_static", "closed_loop": False, "fuse_method": "flat"}
        theirs = run(Manual, model=model, **chosen, causal_window_fix=False)[0]
        with pytest.raises(ValueError, match="own context windows over those of Context Windows"):
            bench.ksampler(theirs, bench.empty(29))


class TestState:
    def test_after_cancel(self, bench):
        """It stops before the next window, and the MODEL is as it was."""
        import comfy.model_management as management

        latent, model = bench.empty(45), windows(bench, bench.shared()[0], 17, freenoise=True)
        before = bench.ksampler(model, latent)
        watched = Watched(windows(bench, bench.shared()[0], 17, freenoise=True))

        def stop(executor, *args, **kwargs):
            management.interrupt_current_processing(True)
            return executor(*args, **kwargs)

        from comfy.patcher_extension import WrappersMP

        watched.model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "test_stop", stop)
        with pytest.raises(management.InterruptProcessingException):
            bench.ksampler(watched.model, latent)
        assert watched.windows == [[0, 1, 2, 3, 4]]
        assert torch.equal(bench.ksampler(model, latent), before)

    def test_names_of_runs(self, bench):
        """Video Continue keeps segments under a name of the MODEL: it tells windows apart, and a run leaves it."""
        from kinetograph.nodes.host.digests import digest_model

        model, text = bench.shared()[0], [bench.text("a red circle")]
        made = {
            digest_model(windows(bench, model, 17, *changes, **parts))
            for changes, parts in [((), {}), ((text,), {}), (((), True), {}), ((), {"overlap": 8})]
        }
        assert len(made | {digest_model(model)}) == 5
        one = windows(bench, model, 17)
        bench.ksampler(one, bench.empty(29), steps=2)
        assert digest_model(one) in made

    def test_memory_is_that_of_a_window(self, bench, monkeypatch):
        """The host is asked for as much as one window takes."""
        import comfy.sampler_helpers

        asked = []
        own = comfy.sampler_helpers._prepare_sampling

        def note(model, noise_shape, *args, **kwargs):
            asked.append(list(noise_shape))
            return own(model, noise_shape, *args, **kwargs)

        monkeypatch.setattr(comfy.sampler_helpers, "_prepare_sampling", note)
        bench.ksampler(windows(bench, bench.shared()[0], 17), bench.empty(45), steps=1)
        assert asked == [[1, 16, 5, 8, 8]]
