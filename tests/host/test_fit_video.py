"""Fit Video on the real host: which frames, who decodes them, and what other nodes make of its VIDEO."""

import itertools
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from PIL import Image

from kinetograph.benchmarks.memory import peak_live_bytes
from kinetograph.tests.films import numbers, run_ffmpeg, shots, write
from kinetograph.tests.host.workbench import SVDWorkbench, Workbench, run

RATE = 8000
SOUND = np.random.default_rng(0).uniform(-1, 1, (2, 3 * RATE)).astype(np.float32)
CHOICES = {
    "start": 0.0,
    "frame_rate": 0.0,
    "every_nth": 1,
    "num_frames": 9,
    "width": 48,
    "height": 32,
    "fit": "exact",
}


@pytest.fixture(scope="module")
def bench(comfy_here):
    return Workbench()


@pytest.fixture(scope="module")
def film(base):
    """60 frames, 3 seconds, with sound, in ComfyUI's input folder."""
    (base / "input").mkdir(exist_ok=True)
    return write(base / "input" / "film.mkv", shots(60), 20, sound=(SOUND, RATE, Fraction(0)))


def load(path, **window):
    from comfy_api.latest import InputImpl

    return InputImpl.VideoFromFile(str(path), **window)


def fit(bench, video, **changes):
    return run(bench.ours["FitVideo"], video=video, **{**CHOICES, **changes})


def streamed(video, **changes):
    """The VIDEO of Fit Video when nobody takes its IMAGE."""
    from kinetograph.nodes.pipeline import media

    wish = media.Wish(*{**CHOICES, **changes}.values())
    images, sound, video, *_ = media.fit_video(video, wish, None, False, False, "test")
    assert images is None and sound is None
    return video


def on_meta(shared, full_size):
    """A host VAE of the same kind around an autoencoder of full size whose tensors hold no data."""
    vae = object.__new__(type(shared))
    vae.__dict__ = {**shared.__dict__, "first_stage_model": full_size}
    vae.device = vae.output_device = torch.device("meta")
    vae.vae_dtype = torch.bfloat16
    vae.reserve = lambda bytes_needed: None
    return vae


def as_bytes(images):
    return (images * 255).round().to(torch.uint8).numpy()


@pytest.mark.parametrize(
    ("changes", "taken", "rate"),
    [
        ({}, range(9), 20),
        ({"start": 1.0, "num_frames": 5}, range(20, 25), 20),
        ({"every_nth": 3}, range(0, 27, 3), 20 / 3),
        # Fun: every max(1, int(20 // 8))-th
        ({"every_nth": 0}, range(0, 18, 2), 10),
        ({"frame_rate": 10.0}, range(0, 18, 2), 10),
        ({"frame_rate": 40.0, "num_frames": 5}, [0, 0, 1, 1, 2], 40),
        # 57 of 60 fold; so do 21 of the 24 that are left
        ({"num_frames": 0}, range(57), 20),
        ({"num_frames": 81, "start": 1.8}, range(36, 57), 20),
        # of two counts that fold the nearer, of two that are as near the lower
        ({"num_frames": 8}, range(9), 20),
        ({"num_frames": 7}, range(5), 20),
    ],
)
def test_which_frames(bench, film, changes, taken, rate):
    images, audio, video, count, told_rate, report = fit(bench, load(film), **changes)
    assert numbers(as_bytes(images)) == list(taken) and count == len(taken) == video.get_frame_count()
    assert told_rate == pytest.approx(rate) and video.get_frame_rate() == Fraction(rate).limit_denominator(9)
    assert report.startswith(f"{len(taken)} frames from {changes.get('start', 0):.2f} s on")
    begin, samples = round(changes.get("start", 0) * RATE), round(len(taken) / rate * RATE)
    heard = audio["waveform"][0].numpy()
    assert heard.shape == (2, samples) and audio["sample_rate"] == RATE
    assert np.array_equal(heard, SOUND[:, begin : begin + samples])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_frames": 50}, ["50 were set", "nearest that folds 4 frames into one is 49"]),
        ({"num_frames": 81}, ["81 were set", "the video has 60 from there on", "next lower", "is 57"]),
        ({"num_frames": 0, "frame_rate": 40.0}, ["all were wanted", "Frames are repeated"]),
        ({"fit": "crop", "width": 32}, ["48x32 became 32x32", "cuts 33.3 % of its width"]),
        ({"width": 0, "height": 0}, ["48x32 became 48x32"]),
    ],
)
def test_the_report_tells_what_changed(bench, film, changes, words):
    *_, report = fit(bench, load(film), **changes)
    assert all(word in report for word in words), report


def test_sizes_of_zero_keep_the_shape(bench, film):
    for wish, size in (((0, 0), (48, 32)), ((0, 64), (96, 64)), ((96, 0), (96, 64)), ((0, 48), (64, 48))):
        video = fit(bench, load(film), width=wish[0], height=wish[1], fit="crop")[2]
        assert video.get_dimensions() == size


def test_crop_keeps_the_middle_and_stretch_all(bench, film):
    cropped, stretched = (
        fit(bench, load(film), width=32, height=32, fit=how)[0][0].numpy() for how in ("crop", "stretch")
    )
    whole = shots(1)[0].astype(np.float32) / 255
    assert np.abs(cropped - whole[:, 8:40]).max() < 1e-6
    squeezed = np.asarray(Image.fromarray(shots(1)[0]).resize((32, 32), Image.Resampling.BICUBIC)) / 255
    assert np.abs(stretched - squeezed).max() < 0.02


def test_the_same_out_of_memory_and_out_of_another_fit_video(bench, film):
    """A VIDEO that another node made, and one of Fit Video itself."""
    from comfy_api.latest import InputImpl, Types

    images, sound, first, *_ = fit(bench, load(film), num_frames=57)
    held = InputImpl.VideoFromComponents(
        Types.VideoComponents(images=images, audio=sound, frame_rate=Fraction(20))
    )
    # also at a rate at which frames lie between those of the film
    for video, changes in itertools.product((held, first), ({"every_nth": 2}, {"frame_rate": 15.0})):
        changes |= {"start": 0.5, "num_frames": 9}
        wanted, wanted_sound, *_ = fit(bench, load(film), **changes)
        got, got_sound, *_ = fit(bench, video, **changes)
        assert torch.equal(got, wanted)
        assert torch.equal(got_sound["waveform"], wanted_sound["waveform"])


def test_a_trimmed_video_is_what_the_host_says_it_is(bench, film):
    trimmed = load(film, start_time=1.0, duration=1.0)
    theirs = trimmed.get_components().images
    ours = fit(bench, trimmed, num_frames=0)[0]
    assert (
        numbers(as_bytes(ours)) == list(range(20, 37)) == numbers(as_bytes(theirs))[:17] and len(theirs) == 20
    )
    from_the_end = fit(bench, load(film, start_time=-1.0), num_frames=0)[0]
    assert numbers(as_bytes(from_the_end)) == list(range(40, 57))


class TestItsVideo:
    """What the host's interface for a VIDEO promises, without a frame being held."""

    @pytest.fixture(params=[True, False], ids=["streamed", "held"])
    def video(self, bench, film, request):
        return (
            streamed(load(film), num_frames=17) if request.param else fit(bench, load(film), num_frames=17)[2]
        )

    def test_says_what_it_is(self, video):
        from comfy_api.latest import Input

        assert isinstance(video, Input.Video)
        assert (video.get_dimensions(), video.get_frame_count(), video.get_duration()) == ((48, 32), 17, 0.85)
        assert "mp4" in video.get_container_format()

    def test_its_parts(self, video):
        parts = video.get_components()
        assert numbers(as_bytes(parts.images)) == list(range(17)) and parts.frame_rate == 20
        assert torch.equal(parts.audio["waveform"][0], torch.from_numpy(SOUND[:, : 17 * RATE // 20]))

    @pytest.mark.parametrize(
        ("window", "taken"),
        [
            ((0.25, 0.2), range(5, 9)),
            ((-0.2, 0), range(13, 17)),
            ((0.5, 9), range(10, 17)),
            ((0, None), range(17)),
        ],
    )
    def test_trimmed(self, video, window, taken):
        parts = video.as_trimmed(*window, strict_duration=False).get_components()
        assert numbers(as_bytes(parts.images)) == list(taken)
        begin, samples = taken[0] * RATE // 20, len(taken) * RATE // 20
        heard = parts.audio["waveform"][0].numpy()
        assert np.array_equal(heard, SOUND[:, begin : begin + samples])

    def test_nothing_is_left(self, video):
        assert video.as_trimmed(2.0, 1.0) is None
        assert video.as_trimmed(0.5, 1.0, strict_duration=True) is None

    def test_a_file_of_it(self, video):
        """Its frames through the host's own writer, which has all of them and the sound."""
        with av.open(video.get_stream_source()) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
            assert container.streams.audio
        assert len(frames) == 17 and np.abs(frames[9].astype(int) - shots(10)[9]).mean() < 12


def test_a_phone_video_is_upright(bench, film, tmp_path):
    turned = tmp_path / "turned.mp4"
    write(tmp_path / "flat.mp4", shots(9))
    run_ffmpeg("-display_rotation", 90, "-i", tmp_path / "flat.mp4", "-c", "copy", turned)
    images, *_, report = fit(bench, load(turned), width=32, height=48)
    assert images.shape == (9, 48, 32, 3) and report.endswith("32x48 became 32x48.")
    # turned to the left: what was the right end of the first row comes first
    assert as_bytes(images)[0, 0, 0, 0] == shots(1)[0, 0, -1, 0]


def test_no_sound(bench, tmp_path):
    _, audio, video, *_ = fit(bench, load(write(tmp_path / "a.mp4", shots(9))))
    assert audio is None and video.get_components().audio is None


class TestRefused:
    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"start": 4.0}, "3.00 s long.*no frame at start = 4 s"),
            ({"width": 50}, "width must be a multiple of 16.*use 48 or 64"),
            ({"width": 64}, "The image is 48x32, the clip 64x32"),
            ({"frame_rate": float("nan")}, "frame_rate must be a number from 0 to 240: got NaN"),
        ],
    )
    def test_choices(self, bench, film, changes, words):
        with pytest.raises(ValueError, match=words):
            fit(bench, load(film), **changes)

    def test_a_file_that_is_no_video(self, bench, tmp_path):
        (tmp_path / "a.mp4").write_bytes(b"no video at all" * 100)
        with pytest.raises(ValueError, match="a.mp4 is damaged, or not in a format"):
            fit(bench, load(tmp_path / "a.mp4"))

    def test_an_image_in_its_place(self, bench):
        with pytest.raises(ValueError, match="video must be a VIDEO, over a link: got Tensor"):
            fit(bench, torch.zeros(1, 8, 8, 3))

    def test_what_a_model_does_not_take(self, bench, film):
        """The tiny 2B has learned positions for 49 frames."""
        model = bench.shared("5B")[0]
        with pytest.raises(ValueError, match="multiple of 16"):
            fit(bench, load(film), model=model, height=40, fit="crop")

    def test_more_than_memory(self, bench, film, monkeypatch):
        from kinetograph.nodes.pipeline import media

        monkeypatch.setattr(media, "machine_memory", lambda: 10**4)
        with pytest.raises(
            ValueError, match="9 frames of 48x32 are 0.0 GB as an IMAGE.*leave IMAGE unconnected"
        ):
            fit(bench, load(film))


class TestEncodedFromAVideo:
    @pytest.mark.parametrize("posterior", [{"posterior": "sample", "seed": 5}, {"posterior": "mean"}])
    @pytest.mark.parametrize("family", ["cogvideox", "svd"])
    def test_latents_are_those_of_the_frames(self, bench, film, family, posterior):
        """Bit for bit, out of a file, out of Fit Video, and out of memory; the draw is that of the whole clip."""
        from kinetograph.modules.conditioning.first_frame import sample_posterior

        vae = bench.shared()[2] if family == "cogvideox" else SVDWorkbench().svd()[2]
        images, _, video, *_ = fit(bench, load(film), width=64, height=64, fit="stretch", num_frames=17)
        stream = streamed(load(film), width=64, height=64, fit="stretch", num_frames=17)
        with torch.inference_mode():
            mean, log_variance = vae.encode_moments(images)
            wanted = sample_posterior(mean, log_variance, posterior.get("seed"))
        for source in (images, video, stream):
            (latent,) = run(bench.ours["VAEEncodeChunked"], vae=vae, images=source, posterior=posterior)
            assert torch.equal(latent["samples"], wanted) and latent["num_frames"] == 17

    def test_a_file_as_it_is(self, bench, film):
        """Load Video straight into the encoder: the pixels that were written into the file."""
        written = torch.from_numpy(shots(17)).float() / 255
        ours, wanted = (
            run(
                bench.ours["VAEEncodeChunked"],
                vae=bench.shared()[2],
                images=source,
                posterior={"posterior": "mean"},
            )[0]["samples"]
            for source in (load(film, duration=0.85), written)
        )
        assert torch.equal(ours, wanted)

    def test_a_count_that_does_not_fold(self, bench, film):
        with pytest.raises(ValueError, match="num_frames=60, use 57 or 61"):
            run(
                bench.ours["VAEEncodeChunked"],
                vae=bench.shared()[2],
                images=load(film),
                posterior={"posterior": "mean"},
            )

    @pytest.mark.newest
    def test_memory_does_not_grow_with_the_clip(self, bench):
        """The full-size autoencoder on tensors without data, through the node's own code, result included."""
        from kinetograph.modules.families.cogvideox import vae as cog
        from kinetograph.nodes.host.footage import FrameSource, StreamedVideo
        from kinetograph.nodes.pipeline.encoding import encode_clip

        full_size = cog.CogVideoXVAE(cog.VAEConfig(), dtype=torch.bfloat16, device="meta")
        vae = on_meta(bench.shared()[2], full_size)

        def peak(count):
            def read(first, number):
                return (torch.empty(32, 64, 3) for _ in range(number))

            video = StreamedVideo(FrameSource(count, 32, 64, Fraction(8), read))
            with torch.inference_mode():
                return peak_live_bytes(lambda: encode_clip(vae, video, 0, "test"))

        short, long = peak(49), peak(513)
        assert short > 10**7 and long <= 1.02 * short
