"""PixArt Loader and EasyAnimate v1's motion module among the host's own nodes."""

from fractions import Fraction

import pytest
import torch

from kinetograph.benchmarks.memory import peak_live_bytes
from kinetograph.tests.host.pixart_bench import FOLDER, MODULE, SIZED, WORDS, PixArtBench, part_of
from kinetograph.tests.host.windowing import by_hand, draw, predict, windows
from kinetograph.tests.host.workbench import relative, run
from kinetograph.tests.tiny_pixart import FRAMES, SIZE

__all__ = ["FOLDER", "MODULE", "PixArtBench"]
# "ddim" is the host's word for euler without a mask
CHOSEN = ("dpmpp_2m", "euler_ancestral", "ddim", "uni_pc")
WINDOWS = [list(range(start, start + 4)) for start in (0, 2, 4, 6)]


@pytest.fixture(scope="module")
def bench(comfy_here, base):
    return PixArtBench()


@pytest.fixture(scope="module")
def still(bench):
    """PixArt alone; nobody may leave a trace on it."""
    return bench.parts()[0]


@pytest.fixture(scope="module")
def moving(bench, still):
    return bench.move(still)


@pytest.fixture(scope="module")
def clip(bench, moving):
    """What KSampler makes of two steps."""
    return bench.ksampler(moving, bench.empty())


def test_makes_pictures_and_clips(bench, still, clip):
    pictures = bench.ksampler(still, bench.empty())
    assert clip.isfinite().all() and relative(clip, pictures) > 1e-3
    frames = run(bench.host.VAEDecode, vae=bench.parts()[2], samples={"samples": clip})[0]
    assert frames.shape == (FRAMES, SIZE, SIZE, 3)
    chunks = {"latent": {"samples": clip, "num_frames": FRAMES}, "chunk": 4, "overlap": 0}
    assert relative(run(bench.ours["VAEDecodeChunked"], vae=bench.parts()[2], **chunks)[0], frames) <= 1e-5


def test_the_sampler_is_the_one_that_was_chosen(bench, moving):
    """KSampler and Video Sampler agree bit for bit on each; an older node for EasyAnimate put its own in the place."""
    made = {}
    for name in CHOSEN:
        made[name] = bench.ksampler(moving, bench.empty(), steps=3, sampler_name=name)
        ours = bench.sampler(moving, bench.empty(), steps=3, sampler_name=name)
        assert torch.equal(ours, made[name]), name
    for number, name in enumerate(CHOSEN):
        assert all(relative(made[name], made[other]) > 1e-3 for other in CHOSEN[:number]), name


def test_a_prompt_is_followed(bench, moving, clip):
    other = bench.ksampler(moving, bench.empty(), **bench.prompts(words="a blue square moving up"))
    assert relative(other, clip) > 1e-3


def test_frames_of_a_clip_know_of_one_another(bench, still, moving):
    """Of frame 0: another last frame changes it through the motion modules, and not without them."""
    noise = draw(FRAMES, 4, SIZE // 8, SIZE // 8)
    changed = torch.cat([noise[:-1], -noise[-1:]])
    for model, differs in ((still, False), (moving, True)):
        first, second = (
            bench.ksampler(model, {"samples": x}, steps=1, denoise=0.5)[0] for x in (noise, changed)
        )
        assert (relative(first, second) > 1e-3) is differs


def test_clips_of_a_batch_are_each_as_alone(bench, still, moving):
    batch = bench.empty(clips=2)
    alone = torch.cat([bench.ksampler(moving, part_of(batch, number)) for number in range(2)])
    several = bench.move(still, num_frames=FRAMES)
    together = bench.ksampler(several, batch)
    assert relative(together, alone) <= 1e-4
    # Video Sampler reads it off the latent, whatever the node says
    assert torch.equal(bench.sampler(moving, batch), together)
    assert torch.equal(bench.sampler(bench.move(still, num_frames=2), batch), together)
    assert relative(bench.ksampler(moving, batch), alone) > 1e-2


def test_guidance_in_two_calls_is_as_in_one(bench, moving, clip):
    """The host calls a network once for each conditioning where memory is short, or prompts are of two lengths."""
    from comfy.patcher_extension import WrappersMP

    def apart(executor, model, conds, x, *args):
        return [executor(model, [cond], x, *args)[0] for cond in conds]

    split = moving.clone()
    split.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, "test", apart)
    assert relative(bench.ksampler(split, bench.empty()), clip) <= 1e-4
    alike = bench.prompts()
    alike["negative"] = bench.prompts(words=WORDS.replace("Red", "Blue"))["positive"]
    assert alike["negative"][0][0].shape == alike["positive"][0][0].shape
    together = bench.ksampler(moving, bench.empty(), **alike)
    assert relative(bench.ksampler(split, bench.empty(), **alike), together) <= 1e-4


def test_strength(bench, still, clip):
    plain = bench.ksampler(still, bench.empty())
    made = {s: bench.ksampler(bench.move(still, strength=s), bench.empty()) for s in (0.0, 0.5, 1.0)}
    assert torch.equal(made[0.0], plain) and torch.equal(made[1.0], clip)
    assert min(relative(made[0.5], made[other]) for other in (0.0, 1.0)) > 1e-2


SCHEDULES = {
    "as trained": ("linear", 0.0001, 0.02),
    "sqrt_linear (AnimateDiff)": ("linear", 0.00085, 0.012),
    "linear (AnimateDiff-SDXL)": ("scaled_linear", 0.00085, 0.020),
    "linear (HotshotXL/default)": ("scaled_linear", 0.00085, 0.012),
    "use existing": ("linear", 0.0001, 0.02),
}


def test_words_of_the_schedule_are_those_of_diffusers(bench, still, moving, clip):
    from diffusers import DDIMScheduler

    for word, (kind, start, end) in SCHEDULES.items():
        model = bench.move(still, beta_schedule=word)
        sampling = model.get_model_object("model_sampling")
        alphas = DDIMScheduler(beta_start=start, beta_end=end, beta_schedule=kind).alphas_cumprod.double()
        assert relative(sampling.sigmas.double(), ((1 - alphas) / alphas).sqrt()) <= 1e-5
    other = bench.move(still, beta_schedule="sqrt_linear (AnimateDiff)")
    assert relative(bench.ksampler(other, bench.empty()), clip) > 1e-2
    assert torch.equal(bench.ksampler(moving, bench.empty()), clip)


def test_1024_is_told_the_size_of_the_picture(bench):
    """By ComfyUI's node for PixArt, else that of the latent; beside the module, too."""
    from comfy_extras.nodes_pixart import CLIPTextEncodePixArtAlpha as Encode

    model, clip, _ = bench.parts(SIZED)
    moving = bench.move(model)

    def told(width, height):
        sizes = {"clip": clip, "width": width, "height": height}
        return {
            side: run(Encode, text=text, **sizes)[0] for side, text in (("positive", WORDS), ("negative", ""))
        }

    latent = bench.empty(width=96)
    own = bench.ksampler(moving, latent, **bench.prompts(clip))
    assert torch.equal(bench.ksampler(moving, latent, **told(96, SIZE)), own)
    made = [own, *(bench.ksampler(moving, latent, **told(*size)) for size in ((1024, SIZE), (96, 1024)))]
    assert all(relative(made[i], made[j]) > 1e-2 for i, j in ((0, 1), (0, 2), (1, 2)))
    # 512 has no such weights
    small = bench.move(bench.parts()[0])
    assert torch.equal(
        bench.ksampler(small, latent, **told(1024, 512)),
        bench.ksampler(small, latent, **bench.prompts(clip)),
    )


def test_context_windows_of_both(bench, moving):
    """Each window is what the model makes of its frames alone."""
    from comfy_extras.nodes_context_windows import ContextWindowsManualNode

    noise, told = draw(10, 4, SIZE // 8, SIZE // 8), bench.prompts()
    expected = by_hand(moving, noise, WINDOWS, [[1.0] * 4] * 4, 0, lambda window: told)
    assert relative(predict(windows(bench, moving, 4, overlap=2), noise, **told), expected) <= 2e-5
    chosen = {"context_length": 4, "context_overlap": 2, "context_schedule": "standard_static", "dim": 0}
    chosen |= {"context_stride": 1, "closed_loop": False, "fuse_method": "flat", "freenoise": False}
    chosen |= {"cond_retain_index_list": "", "split_conds_to_windows": False, "latent_retain_index_list": ""}
    host = run(ContextWindowsManualNode, model=moving, causal_window_fix=False, **chosen)[0]
    assert relative(predict(host, noise, **told), expected) <= 2e-5
    assert relative(predict(moving, noise, **told), expected) > 1e-2


def test_a_latent_of_the_models_own_size(bench, still, moving):
    asked = {"family": "from the model", "width": 0, "height": 0, "num_frames": 0, "batch_size": 1}
    for model, frames in ((still, 1), (moving, 80)):
        latent = run(bench.ours["VideoLatent"], model=model, **asked)[0]
        assert latent["samples"].shape == (frames, 4, 64, 64) and latent["num_frames"] == frames


def test_what_is_known_of_a_clip_stays(bench, still, moving, clip):
    vae, picture = bench.parts()[2], torch.rand(2, SIZE, SIZE, 3, generator=torch.manual_seed(4))
    told = {"model": moving, "vae": vae, "latent": bench.empty(), "fit": "exact", **bench.prompts()}
    mode = {"mode": "mask resized", "image_noise": "as trained", "seed": 0}
    begin = run(bench.ours["InpaintConditioning"], start_images=picture, mode=mode, **told)[2]
    made = bench.sampler(moving, begin)
    assert relative(made[:2], vae.encode(picture)) <= 1e-5
    # the others know of it through the motion module alone
    assert relative(made[2:], clip[2:]) > 1e-4
    alone = bench.sampler(still, begin)[2:]
    assert torch.equal(alone, bench.sampler(still, bench.empty())[2:])
    nothing = run(bench.ours["InpaintConditioning"], mode=mode, **told)[2]
    assert torch.equal(bench.sampler(moving, nothing), clip)


def test_a_clip_of_ones_own(bench, moving):
    """Fit Video, VAE Encode (Chunked), a denoise below 1: the less, the nearer to what it was."""
    from comfy_api.latest import InputImpl, Types

    film = torch.rand(9, 48, 96, 3, generator=torch.manual_seed(5))
    video = InputImpl.VideoFromComponents(Types.VideoComponents(images=film, frame_rate=Fraction(8)))
    chosen = {"start": 0.0, "frame_rate": 0.0, "every_nth": 1, "num_frames": 4, "fit": "crop"}
    frames = run(bench.ours["FitVideo"], video=video, model=moving, width=96, height=64, **chosen)[0]
    assert frames.shape == (4, 64, 96, 3)
    vae, mean = bench.parts()[2], {"posterior": "mean"}
    latent = run(bench.ours["VAEEncodeChunked"], vae=vae, images=frames, posterior=mean)[0]
    assert latent["num_frames"] == 4 and relative(latent["samples"], vae.encode(frames)) <= 1e-5
    parts = run(bench.ours["VAEEncodeChunked"], vae=vae, images=video, posterior=mean)[0]
    assert relative(parts["samples"], vae.encode(film)) <= 1e-5
    far, near = (
        relative(bench.sampler(moving, latent, steps=4, denoise=d), latent["samples"]) for d in (1.0, 0.25)
    )
    assert near < far / 2


def test_frames_are_decoded_to_a_file_a_few_at_a_time(bench):
    """Four and sixteen times as many frames take no more memory, but for the latents."""
    from kinetograph.nodes.pipeline.decoding import open_clips

    vae = bench.parts()[2]

    def peak(frames):
        latent = bench.empty(frames)

        def decode():
            return sum(len(piece) for piece in open_clips(vae, latent, "test", chunk=4, overlap=0).frames())

        counted = []
        with torch.inference_mode():
            bytes_at_once = peak_live_bytes(lambda: counted.append(decode()))
        assert counted == [frames]
        return bytes_at_once - latent["samples"].nbytes

    few = peak(5)
    assert few > 0 and max(peak(20), peak(80)) <= 1.05 * few
