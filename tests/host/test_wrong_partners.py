"""LATENTs and models of another kind: every LATENT into every VAE, families that are not the model's, huge clips."""

import pytest
import torch

from kinetograph.tests import tiny
from kinetograph.tests.host import svd_parts as parts
from kinetograph.tests.host.test_latents import decode, svd, to_video
from kinetograph.tests.host.test_svd_adoption import image_model
from kinetograph.tests.host.workbench import SVDWorkbench, run


@pytest.fixture(scope="module")
def bench(comfy_here):
    return SVDWorkbench()


SHAPES = [(1, 16, 3, 4, 4), (1, 4, 3, 4, 4), (1, 48, 3, 4, 4), (3, 16, 4, 4), (3, 4, 4, 4), (3, 3, 4, 4)]
SHAPES += [(1, 64, 100), (3, 4)]
TAKES = {
    "ours, video": (r"\(batch, 16, frames, height, width\)", (1, 16, 3, 4, 4), 9),
    "ours, frames": (r"\(frames, 4, height, width\)", (3, 4, 4, 4), 3),
    "host, video": (r"\(batch, 16, frames, height, width\)", (1, 16, 3, 4, 4), 9),
    "host, pictures": (r"\(frames, 4, height, width\)", (3, 4, 4, 4), 3),
    "host, pixels": (r"\(frames, 3, height, width\)", (3, 3, 4, 4), 3),
}


@pytest.fixture(scope="module")
def vaes(bench):
    """One VAE of each kind in `TAKES`."""
    import comfy.sd
    from comfy.taesd.taehv import TAEHV

    video = tiny.randomise(TAEHV(latent_channels=16), 6).state_dict()
    made = [bench.shared()[2], bench.svd()[2], comfy.sd.VAE(sd=video)]
    made += [parts.make_vae(parts.make_image_vae()), comfy.sd.VAE(sd={"pixel_space_vae": torch.tensor(1.0)})]
    return dict(zip(TAKES, made, strict=True))


class TestWrongPartners:
    """Every LATENT into every VAE: decoded where axes and channels are the VAE's, refused with both elsewhere."""

    @pytest.mark.parametrize("name", TAKES)
    def test_decoders(self, bench, vaes, name):
        wanted, right, frames = TAKES[name]
        assert right in SHAPES
        for shape in SHAPES:
            latent = {"samples": torch.zeros(shape)}
            if shape == right:
                assert len(decode(bench, vaes[name], latent)[0]) == frames
                continue
            got = ", ".join(map(str, shape))
            for way, node_name in ((decode, r"VAE Decode \(Chunked\)"), (to_video, "VAE Decode To Video")):
                with pytest.raises(ValueError, match=rf"{node_name} .*{wanted}: got \({got}\)"):
                    way(bench, vaes[name], latent)

    @pytest.mark.parametrize(
        "name", [name for name in TAKES if "frames" not in name and "pictures" not in name]
    )
    def test_conditioning_of_svd(self, bench, vaes, name):
        wanted = TAKES[name][0]
        with pytest.raises(ValueError, match=rf"SVD Conditioning .*{wanted}: got \(3, 4, 8, 8\)"):
            bench.condition(svd(), vae=vaes[name])
        pins = {"images": bench.picture(), "frames": "0", "fit": "crop"}
        with pytest.raises(ValueError, match=rf"Pin Frames .*{wanted}: got \(3, 4, 8, 8\)"):
            run(bench.ours["PinFrames"], latent=svd(), vae=vaes[name], **pins)

    @pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape != (1, 16, 3, 4, 4)])
    def test_the_first_frame_of_cogvideox(self, bench, vaes, shape):
        text = bench.text()
        chosen = {"positive": text, "negative": text, "vae": vaes["ours, video"], "image": bench.picture()}
        chosen |= {"fit": "crop", "posterior": {"posterior": "mean"}, "latent_gain": 1.0}
        got = ", ".join(map(str, shape))
        with pytest.raises(ValueError, match=rf"Image To Video Conditioning .*\(batch, 16, .*got \({got}\)"):
            run(bench.ours["ImageToVideoConditioning"], latent={"samples": torch.zeros(shape)}, **chosen)

    def test_a_vae_of_sound_and_one_without_weights(self, bench):
        import comfy.sd

        vae = comfy.sd.VAE(sd={"pixel_space_vae": torch.tensor(1.0)})
        vae.output_channels = 2
        with pytest.raises(ValueError, match="something else than pictures"):
            decode(bench, vae, {"samples": torch.zeros(1, 3, 8, 8)})
        with pytest.raises(ValueError, match=r"VAE Decode \(Chunked\) has no weights"):
            decode(bench, comfy.sd.VAE(sd={}), svd())

    def test_several_tensors_in_one(self, bench):
        nested = pytest.importorskip("comfy.nested_tensor").NestedTensor([torch.zeros(1, 16, 3, 4, 4)] * 2)
        with pytest.raises(ValueError, match="several tensors in one"):
            decode(bench, bench.shared()[2], {"samples": nested})


class TestVideoLatent:
    def make(self, bench, family, model=None, **changes):
        asked = {"width": 64, "height": 64, "num_frames": 9, "batch_size": 1, **changes}
        return run(bench.ours["VideoLatent"], family=family, model=model, **asked)[0]

    @pytest.mark.parametrize("num_frames", [9, 0])
    def test_a_family_that_is_not_the_models_is_refused(self, bench, num_frames):
        own = {"cogvideox": bench.shared()[0], "svd": bench.svd()[0]}
        for family, other in (("cogvideox", "svd"), ("svd", "cogvideox")):
            assert self.make(bench, family, own[family], num_frames=num_frames)["samples"].numel()
            words = f"latents for {family}, but the connected model is .*: choose {other} here"
            with pytest.raises(ValueError, match=words):
                self.make(bench, family, own[other], num_frames=num_frames)

    def test_models_of_the_host_count_too(self, bench):
        theirs = parts.make_host_svd()
        assert self.make(bench, "svd", theirs)["samples"].shape == (9, 4, 8, 8)
        with pytest.raises(ValueError, match="connected model is SVD_img2vid: choose svd here"):
            self.make(bench, "cogvideox", theirs)
        with pytest.raises(ValueError, match="connected model is BaseModel: connect a model of that family"):
            self.make(bench, "svd", image_model())

    def test_more_than_the_machine_can_hold_is_refused_with_its_size(self, bench, monkeypatch):
        import comfy.model_management

        largest = {"width": 4096, "height": 4096, "num_frames": 8193}
        posted = bench.ours["VideoLatent"].validate_inputs

        def with_memory(size):
            monkeypatch.setattr(comfy.model_management, "get_total_memory", lambda *_: int(size))

        with_memory(64e9)
        said = posted(family="cogvideox", **largest)
        assert "1 x 8193 frames of 4096x4096 are 34.4 GB of latents" in said and "has 64.0 GB" in said
        with_memory(70e9)
        assert posted(family="cogvideox", **largest) is True
        with pytest.raises(ValueError, match="64 x 8193 frames of 4096x4096 are 2200.1 GB"):
            self.make(bench, "cogvideox", **largest, batch_size=64)
