"""What a training is told: the records that a configuration file, a node and the trainer share.

Defaults that a release was trained with stand in the configurations (`configs/training`), with their source.
"""

from dataclasses import dataclass, field
from typing import Literal

PartName = Literal[
    "whole",  # every weight of the network
    "motion_module",  # AnimateDiff's stage 2, EasyAnimate's t2v
    "motion_lora",  # AnimateDiff's stage 3: LoRA of the attentions inside motion modules
    "domain_adapter",  # AnimateDiff's stage 1 as in the paper: LoRA of the spatial attentions, dropped at use
    "lora",  # of the network's linear layers
    "exvideo",  # the temporal branches of SVD, with positions and convolution
    "temporal",  # SVD's own temporal branches
]
Format = Literal["auto", "webvid", "normal", "diffusers", "captions", "paths"]


@dataclass(frozen=True)
class Files:
    """Names of files in ComfyUI's model folders; empty: none, or what came with the diffusion model."""

    diffusion_model: str
    text_encoder: str = ""
    vae: str = ""
    image_encoder: str = ""
    # to train on, or to put a LoRA on; empty where the motion module starts anew
    motion_module: str = ""
    # merged at `adapter_alpha` while all else is trained
    domain_adapter: str = ""


@dataclass(frozen=True)
class PartChoice:
    """What is trained, and how much of it."""

    name: PartName
    # of a LoRA
    rank: int = 64
    alpha: float = 64.0
    # which linear layers get one: "attention" (q, k, v, out), "all"; "temporal": SVD's attentions over time,
    # "temporal_self": those of them to other frames, for what attends to the picture's one token is a linear map
    layers: Literal["attention", "all", "temporal", "temporal_self"] = "attention"
    # how a LoRA file is written
    dialect: Literal["kohya", "PEFT"] = "kohya"


@dataclass(frozen=True)
class Data:
    """Where clips and captions lie, and what is made of them."""

    folder: str
    format: Format = "auto"
    # pixels; with `buckets` of about this area and the clip's own aspect
    width: int = 512
    height: int = 512
    # pixel frames of a clip; 1: pictures
    frames: int = 16
    # every so many frames of the file; with `fps` the stride comes from the file's own rate
    stride: int = 1
    fps: float = 0.0
    buckets: bool = False
    # CogVideoX-Fun: tokens of a sample stay those of a clip of this size; 0: off
    token_size: int = 0
    # of pictures beside clips, with `token_size`; 0: as the clips
    image_size: int = 0
    # a video counts so many times among pictures
    video_repeat: int = 1
    # part of the file that clips are taken from
    start: float = 0.0
    end: float = 1.0
    # where in it: anywhere, or always at its beginning
    begin: Literal["random", "first"] = "random"
    crop: Literal["centre", "random"] = "centre"
    flip: bool = False
    # EasyAnimate's and Fun's shorter clips
    random_frames: Literal["none", "easyanimate", "fun"] = "none"
    # a camera movement laid over each clip, such as "pan_left"; empty: none
    camera: str = ""
    # CogVideoX-Fun's inpaint masks
    masks: Literal["none", "fun"] = "none"
    # different cuts of one item that are encoded and kept
    variants: int = 1
    # part of the captions left out, for guidance
    dropout: float = 0.1
    # part of SVD's pictures left out, latents and tokens each and both
    image_dropout: float = 0.0
    # noise on the picture that a clip starts from, of ln sigma N(-3, 0.5) (SVD, arXiv 2311.15127; CogVideoX-I2V)
    image_noise: bool = True
    # what SVD is told of every clip instead of its own; 0: its own
    told_fps: float = 0.0
    told_bucket: float = 0.0


@dataclass(frozen=True)
class Levels:
    """How the noise level of a clip is drawn."""

    kind: Literal["timesteps", "karras", "log_normal"] = "timesteps"
    # t = least + (1 - u ** power) * (1000 - least): above 1 more of high noise
    power: float = 1.0
    least: int = 0
    # of ln sigma
    mean: float = 0.7
    spread: float = 1.6


@dataclass(frozen=True)
class Loss:
    """What is asked of the network, as a mean over each clip and then over clips."""

    # the process's own target; that and PixArt's learned range; ExVideo's and EDM's denoised clip
    kind: Literal["target", "learned_range", "denoised"] = "target"
    # of a clip by its level: none; min-SNR; of `denoised`: EDM's, its root (ExVideo), none
    # "bounded": (sigma^2 + 1) up to `most_weight` on epsilon
    weight: Literal["none", "min_snr", "edm", "root_edm", "bounded"] = "none"
    most_weight: float = 20.0
    snr_gamma: float = 5.0
    # ExVideo asks for 1.01 times the clip
    target_scale: float = 1.0
    # share of the difference between neighbouring latent frames (CogVideoX-Fun's motion_sub_loss)
    motion_sub: float = 0.0
    # MotionDirector's loss against a random frame
    debias: bool = False
    # EasyAnimate's snr_loss
    x0_below_250: bool = False


@dataclass(frozen=True)
class Steps:
    """The optimiser and its course."""

    # adamw, adamw8bit, lion, muon, or the dotted name of a class
    optimizer: str = "adamw"
    lr: float = 1e-4
    weight_decay: float = 0.01
    beta_1: float = 0.9
    beta_2: float = 0.999
    eps: float = 1e-8
    # norm of the gradients; 0: no limit; "fun": its rule around `clip`
    clip: float = 1.0
    clip_rule: Literal["constant", "fun"] = "constant"
    schedule: Literal["constant", "hold", "cosine"] = "constant"
    warm_up: int = 0
    # clips of one update, over all processes
    batch: int = 1
    # clips that go through the network at once, on each
    at_once: int = 1
    total: int = 1000
    # decay of the running mean of the weights, which is what is saved; 0: none
    ema: float = 0.0
    seed: int = 0


@dataclass(frozen=True)
class Machine:
    """How the training fits the machine."""

    # auto: bf16 on a GPU that has it, fp16 on one that has not, fp32 on a CPU
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    checkpointing: bool = True
    save_every: int = 500
    # how many processes share: gradients, or also weights (FSDP2)
    sharing: Literal["gradients", "weights"] = "gradients"


@dataclass(frozen=True)
class Evaluation:
    """Clips that are sampled on the way."""

    every: int = 0
    # empty: the caption, or the picture, of the data's first clip
    prompts: tuple[str, ...] = ()
    steps: int = 20
    cfg: float = 6.0


@dataclass(frozen=True)
class Recipe:
    """One training."""

    # of what is written
    name: str
    model: Files
    part: PartChoice
    data: Data
    levels: Levels = field(default_factory=Levels)
    loss: Loss = field(default_factory=Loss)
    steps: Steps = field(default_factory=Steps)
    machine: Machine = field(default_factory=Machine)
    evaluation: Evaluation = field(default_factory=Evaluation)
