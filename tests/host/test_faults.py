"""What must not pass as success, on the real host: each row of the fault table that is not about video files.

Wherever it can be told from headers and numbers, the prompt is refused when it is posted.
"""

import re
import shutil
import threading
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from kinetograph.tests import tiny
from kinetograph.tests.host.graphs import loader, node, text_to_video, with_frames

TINY = "CogVideo/tiny-5B"
PARTS = {"text_encoder": TINY, "vae": TINY}
HTML = b"<!DOCTYPE html><html><body>404 Not Found</body></html>" + b" " * 400
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 11144559592\n"


@pytest.fixture
def pipeline(base):
    return base / "models" / "CogVideo" / "tiny-5B"


@pytest.fixture
def shelf(base):
    """The diffusion_models folder, empty again after the test."""
    folder = base / "models" / "diffusion_models"
    folder.mkdir(exist_ok=True)
    before = set(folder.iterdir())
    yield folder
    for path in set(folder.iterdir()) - before:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def said_by(result, key):
    """What the server said about one node when it refused the prompt."""
    assert result.status == "refused", result.status
    return "\n".join(error["details"] for error in result.node_errors[key]["errors"])


def load_only(**choices):
    """A prompt that loads a checkpoint and does the least with it."""
    graph = text_to_video(frames=9, steps=1)
    graph["loader"] = loader(**choices)
    return with_frames(graph)


def assert_speaks_to_users(words, base):
    """No path of the machine, no advice to unpickle, no bare exception name."""
    assert str(base) not in words
    assert "weights_only" not in words and "Traceback" not in words
    assert not re.search(r"\b(KeyError|TypeError|AttributeError|mat1 and mat2)\b", words)


class TestUnreadableCheckpoints:
    """Row 6: the file is named, what it really is, and what to do."""

    def damage(self, pipeline):
        whole = tiny.weights_of(pipeline / "transformer").read_bytes()
        return {
            "truncated": (whole[: len(whole) * 6 // 10], r"(?i)incomplete|truncated|cut|shorter|missing"),
            "stump": (whole[:12], r"(?i)incomplete|truncated|cut|short|damaged|header"),
            "empty": (b"", r"(?i)empty|0 bytes"),
            "page": (HTML, r"(?i)html|web page"),
            "pointer": (LFS, r"(?i)lfs"),
            "noise": (bytes(range(256)) * 40, r"(?i)not a safetensors|damaged"),
        }

    @pytest.mark.parametrize("kind", ["truncated", "stump", "empty", "page", "pointer", "noise"])
    def test_model_file(self, client, base, shelf, pipeline, kind):
        content, reason = self.damage(pipeline)[kind]
        (shelf / f"{kind}.safetensors").write_bytes(content)
        result = client.run(load_only(model=f"{kind}.safetensors", **PARTS))
        words = said_by(result, "loader")
        assert f"{kind}.safetensors" in words and re.search(reason, words), words
        assert_speaks_to_users(words, base)

    @pytest.mark.parametrize("part", ["text_encoder", "vae", "transformer"])
    def test_part_of_a_folder(self, client, base, pipeline, part):
        folder = pipeline.with_name("tiny-damaged")
        shutil.copytree(pipeline, folder)
        try:
            weights = tiny.weights_of(folder / part)
            weights.write_bytes(weights.read_bytes()[:-1000])
            words = said_by(client.run(load_only(model=f"CogVideo/{folder.name}")), "loader")
            assert weights.name in words
            assert_speaks_to_users(words, base)
        finally:
            shutil.rmtree(folder)

    def test_wrong_kind_of_file(self, client, base, shelf, pipeline):
        shutil.copy(tiny.weights_of(pipeline / "vae"), shelf / "a-vae.safetensors")
        words = said_by(client.run(load_only(model="a-vae.safetensors", **PARTS)), "loader")
        assert "a-vae.safetensors" in words and "VAE" in words.upper()
        assert_speaks_to_users(words, base)

    def test_file_gone_since_the_list_was_read(self, client):
        words = said_by(client.run(load_only(model="gone.safetensors", **PARTS)), "loader")
        assert "gone.safetensors" in words


class TestIncompleteCheckpoints:
    """Row 9: every key is used or named; nothing runs on weights that were never loaded."""

    def test_each_key_in_turn(self, client, base, shelf, pipeline):
        weights = load_file(tiny.weights_of(pipeline / "transformer"))
        for key in weights:
            save_file({k: v for k, v in weights.items() if k != key}, shelf / "lacking.safetensors")
            words = said_by(client.run(load_only(model="lacking.safetensors", **PARTS)), "loader")
            assert "lacking.safetensors" in words, (key, words)
            assert_speaks_to_users(words, base)

    def test_missing_keys_are_counted_and_named(self, client, shelf, pipeline):
        weights = load_file(tiny.weights_of(pipeline / "transformer"))
        gone = [f"transformer_blocks.1.attn1.{name}.weight" for name in ("to_q", "to_k", "to_v")]
        gone += [f"transformer_blocks.1.norm{i}.linear.weight" for i in (1, 2)] + ["norm_final.weight"]
        save_file({k: v for k, v in weights.items() if k not in gone}, shelf / "lacking.safetensors")
        words = said_by(client.run(load_only(model="lacking.safetensors", **PARTS)), "loader")
        assert "6 missing" in words and "CogVideoX" in words
        assert sum(key in words for key in gone) == 5, words

    def test_unknown_keys_are_named(self, client, shelf, pipeline):
        weights = load_file(tiny.weights_of(pipeline / "transformer"))
        save_file({**weights, "mystery.weight": torch.zeros(2)}, shelf / "more.safetensors")
        assert "mystery.weight" in said_by(client.run(load_only(model="more.safetensors", **PARTS)), "loader")

    def test_misshapen_weights_are_named(self, client, shelf, pipeline):
        weights = load_file(tiny.weights_of(pipeline / "transformer"))
        key = "transformer_blocks.1.ff.net.2.bias"
        save_file({**weights, key: torch.zeros(5)}, shelf / "bent.safetensors")
        assert key in said_by(client.run(load_only(model="bent.safetensors", **PARTS)), "loader")

    @pytest.mark.parametrize("part", ["vae", "text_encoder"])
    def test_other_parts_as_well(self, client, base, pipeline, part):
        folder = pipeline.with_name("tiny-lacking")
        shutil.copytree(pipeline, folder)
        try:
            path = tiny.weights_of(folder / part)
            weights = load_file(path)
            gone = sorted(weights)[len(weights) // 2]
            save_file({k: v for k, v in weights.items() if k != gone}, path)
            words = said_by(client.run(load_only(model=f"CogVideo/{folder.name}")), "loader")
            assert gone in words
            assert_speaks_to_users(words, base)
        finally:
            shutil.rmtree(folder)


class TestNotFinite:
    """Row 11: a NaN stops the run where it appears, and the message names its cause."""

    def poison(self, path, key):
        weights = load_file(path)
        weights[key].view(-1)[0] = float("nan")
        save_file(weights, path)

    def test_in_the_transformer(self, client, shelf, pipeline):
        key = "transformer_blocks.1.ff.net.2.weight"
        shutil.copy(tiny.weights_of(pipeline / "transformer"), shelf / "poisoned.safetensors")
        self.poison(shelf / "poisoned.safetensors", key)
        result = client.run(load_only(model="poisoned.safetensors", **PARTS))
        assert result.status == "error" and result.error["node_id"] == "sampler"
        assert key in result.message and "step 1 of 1" in result.message

    def test_in_the_vae(self, client, pipeline):
        folder = pipeline.with_name("tiny-poisoned")
        shutil.copytree(pipeline, folder)
        try:
            self.poison(tiny.weights_of(folder / "vae"), "decoder.conv_out.conv.weight")
            graph = load_only(model=f"CogVideo/{folder.name}")
            graph["decode"] = node(
                "KinetographVAEDecodeChunked", vae=["loader", 2], latent=["sampler", 0], chunk=0, overlap=1
            )
            result = client.run(graph)
            assert result.status == "error" and result.error["node_id"] == "decode"
            assert re.search(r"(?i)nan|finite", result.message) and "float32" in result.message
        finally:
            shutil.rmtree(folder)


class TestSizesAndCounts:
    """Row 12: refused when posted, naming the nearest that fit."""

    @pytest.mark.parametrize("frames", [2, 3, 4, 6, 7, 8, 10, 11, 12, 47, 48, 50, 80, 162])
    def test_frames(self, client, frames):
        words = said_by(client.run(with_frames(text_to_video(frames=frames))), "latent")
        below = (frames - 1) // 4 * 4 + 1
        assert str(frames) in words
        assert re.search(rf"\b{below}\b", words) or re.search(rf"\b{below + 4}\b", words), words

    @pytest.mark.parametrize("side", ["width", "height"])
    @pytest.mark.parametrize("pixels", [63, 65, 72, 100])
    def test_pixels(self, client, side, pixels):
        graph = with_frames(text_to_video())
        graph["latent"]["inputs"][side] = pixels
        words = said_by(client.run(graph), "latent")
        below = pixels // 16 * 16
        assert str(pixels) in words and str(below) in words and str(below + 16) in words, words

    @pytest.mark.parametrize("value", [-1, 2**40, "many", None, [], 9.5])
    def test_nonsense(self, client, value):
        graph = with_frames(text_to_video())
        graph["latent"]["inputs"]["num_frames"] = value
        result = client.run(graph)
        assert result.status != "success" or len(result.files()) == 9  # the host itself rounds 9.5 to 9

    @pytest.mark.parametrize(
        "key, name, value",
        [
            ("latent", "width", 2**20),
            ("latent", "height", -16),
            ("latent", "num_frames", 2**20 + 1),
            ("latent", "family", "mochi"),
            ("sampler", "denoise", float("nan")),
            ("sampler", "denoise", 0.0),
            ("sampler", "guidance", "strong"),
        ],
    )
    def test_named_inputs_keep_their_bounds(self, client, key, name, value):
        """The host checks no bound and no list of an input that validate_inputs names: we do."""
        graph = with_frames(text_to_video())
        graph[key]["inputs"][name] = value
        words = said_by(client.run(graph), key)
        assert name in words, words

    @pytest.mark.parametrize("cfg", [float("inf"), -1.0, 1e9])
    def test_guidance_out_of_bounds(self, client, cfg):
        graph = with_frames(text_to_video(**{"guidance.cfg": cfg}))
        assert client.run(graph).status == "refused"

    def test_guidance_that_is_no_number(self, client):
        """Also inside a DynamicCombo the bounds are such that NaN does not pass them."""
        result = client.run(with_frames(text_to_video(**{"guidance.cfg": float("nan")})))
        assert result.status == "refused"
        assert "nan" in result.message and "guidance" in result.message


class TestWrongPartners:
    """Row 14: objects of another family are refused with both numbers, not converted and not crashed upon."""

    def test_latent_of_another_family(self, client, base):
        graph = with_frames(text_to_video())
        graph["latent"] = node("EmptyLatentImage", width=64, height=64, batch_size=9)
        result = client.run(graph)
        assert result.status == "error" and result.error["node_id"] == "sampler"
        assert re.search(r"\b16\b", result.message) and re.search(r"\b4\b", result.message), result.message
        assert_speaks_to_users(result.message, base)

    def test_image_latent_in_the_decoder(self, client, base):
        graph = with_frames(text_to_video())
        empty = node("EmptyLatentImage", width=64, height=64, batch_size=1)
        chosen = {"vae": ["loader", 2], "latent": ["empty", 0], "chunk": 0, "overlap": 1}
        graph = {
            "loader": graph["loader"],
            "empty": empty,
            "decode": node("KinetographVAEDecodeChunked", **chosen),
        }
        graph["save"] = node("SaveImage", images=["decode", 0], filename_prefix="x")
        result = client.run(graph)
        assert result.status == "error" and result.error["node_id"] == "decode"
        assert re.search(r"\b16\b", result.message), result.message
        assert_speaks_to_users(result.message, base)

    def test_text_of_another_width(self, client, base, pipeline, monkeypatch):
        monkeypatch.setitem(tiny.TEXT_ENCODER, "d_model", 24)
        folder = base / "models" / "text_encoders" / "wide"
        tiny.text_encoder().save_pretrained(folder)
        try:
            graph = load_only(model=TINY, text_encoder="wide", vae=TINY)
            result = client.run(graph)
            assert result.status in ("refused", "error")
            assert re.search(r"\b24\b", result.message) and re.search(r"\b16\b", result.message), (
                result.message
            )
            assert_speaks_to_users(result.message, base)
        finally:
            shutil.rmtree(folder)

    def test_image_to_video_checkpoint_without_image(self, client, base):
        result = client.run(with_frames(text_to_video("5B-I2V", frames=17)))
        if result.status != "success":
            assert re.search(r"(?i)image", result.message), result.message
            assert_speaks_to_users(result.message, base)

    def test_image_for_a_text_to_video_checkpoint(self, client, base):
        graph = with_frames(text_to_video("5B"))
        graph["image"] = node("EmptyImage", width=64, height=64, batch_size=1, color=255)
        graph["start"] = node(
            "KinetographImageToVideoConditioning",
            positive=["positive", 0],
            negative=["negative", 0],
            vae=["loader", 2],
            image=["image", 0],
            latent=["latent", 0],
            fit="crop",
            posterior="mean",
            latent_gain=1.0,
        )
        graph["sampler"]["inputs"].update(positive=["start", 0], negative=["start", 1])
        result = client.run(graph)
        assert result.status == "error" and re.search(r"(?i)image", result.message), result.message
        assert_speaks_to_users(result.message, base)


class TestInterrupt:
    """Row 5: prompt, clean, and without a trace in the next run."""

    @pytest.mark.parametrize("kind", ["KinetographVideoSampler", "KSampler"])
    def test_while_sampling(self, client, kind):
        long = with_frames(text_to_video(frames=17, steps=1000, seed=5))
        if kind == "KSampler":
            inputs = long["sampler"]["inputs"]
            kept = ("model", "positive", "negative", "seed", "steps", "scheduler", "denoise")
            long["sampler"] = node(kind, latent_image=["latent", 0], cfg=6.0, sampler_name="ddim")
            long["sampler"]["inputs"].update({name: inputs[name] for name in kept})
        asked = []

        def stop_at_first_step(event, data):
            if event == "progress" and not asked:
                asked.append(time.monotonic())
                threading.Thread(target=client.interrupt).start()

        before = client.run(with_frames(text_to_video(seed=7)))
        pictures = [client.view(file) for file in before.files()]
        result = client.run(long, stop_at_first_step)
        assert result.status == "interrupted" and result.outputs == {}
        assert time.monotonic() - asked[0] < 3.0
        again = client.run(with_frames(text_to_video(seed=7)))
        assert again.status == "success"
        assert_same_pictures(pictures, [client.view(file) for file in again.files()])


BAD_NAMES = [
    "",
    "../up",
    "a/../../b",
    "/absolute",
    "C:\\x",
    "line\nbreak",
    "-option",
    ".hidden",
    "CON",
]
BAD_NAMES += [
    "nul.mp4",
    "a//b",
    "trailing.",
    "trailing ",
    "a:b",
    "tab\there",
    "x" * 121,
    "\ud800",
    "null\0byte",
]


class TestNamesOfResults:
    """Row 19: refused when posted, before minutes of sampling, and nothing is written."""

    @pytest.mark.parametrize("kind", ["KinetographVideoCombine", "KinetographVAEDecodeToVideo"])
    @pytest.mark.parametrize("name", BAD_NAMES)
    def test_bad_prefix(self, client, base, kind, name):
        result = client.run(self.graph(kind, filename_prefix=name))
        words = said_by(result, "save")
        assert "filename_prefix" in words and "use" in words, words
        assert_speaks_to_users(words, base)

    @pytest.mark.parametrize("name", ["kinetograph/clip", "été 01", "a.b-c_d", "x" * 100, "back\\slash"])
    def test_good_prefix(self, client, base, name):
        result = client.run(self.graph("KinetographVideoCombine", filename_prefix=name))
        assert result.status == "success", result.message
        (file,) = [file for file in result.files() if file["filename"].endswith(".mp4")]
        assert f"{file['subfolder']}/{file['filename']}".lstrip("/").startswith(name.replace("\\", "/"))
        assert client.view(file)

    def test_link_out_of_the_output_folder(self, client, base, tmp_path):
        link = base / "output" / "elsewhere"
        link.symlink_to(tmp_path)
        try:
            result = client.run(self.graph("KinetographVideoCombine", filename_prefix="elsewhere/clip"))
            assert "filename_prefix" in said_by(result, "save")
            assert list(tmp_path.iterdir()) == []
        finally:
            link.unlink()

    def graph(self, kind, **changes):
        common = {"frame_rate": 8.0, "loop_count": 0, "format": "video/h264-mp4", "save_output": True}
        common.update({"format.crf": 19, "format.pix_fmt": "yuv420p"})
        common.update(save_metadata=True, trim_to_audio=False, **changes)
        if kind == "KinetographVideoCombine":
            frames = node("EmptyImage", width=32, height=32, batch_size=2, color=255)
            return {"frames": frames, "save": node(kind, images=["frames", 0], pingpong=False, **common)}
        return {**text_to_video(), "save": node(kind, vae=["loader", 2], latent=["sampler", 0], **common)}


def assert_same_pictures(first, second):
    """Equal pixels; the files also hold the prompt, which may differ."""
    import io

    from PIL import Image, ImageChops

    assert len(first) == len(second) > 0
    for one, other in zip(first, second, strict=True):
        difference = ImageChops.difference(Image.open(io.BytesIO(one)), Image.open(io.BytesIO(other)))
        assert difference.getbbox() is None
