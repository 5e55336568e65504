"""Trainings inside a graph."""

from ..modules.training.recipe import Steps
from .checks import check_known, checked, guarded
from .host import results
from .host.api import io
from .pipeline import training_runs
from .pipeline.training_examples import Encoders

USUAL = Steps()
# AdamW's rates as published, one for each part: AnimateDiff, ExVideo, CogVideoX-Fun, EasyAnimate
RATES = {"exvideo": 1e-5, "temporal": 1e-5, "whole": 2e-5}


class TrainVideoModel(io.ComfyNode):
    """Trains a part of a video model on clips; the MODEL stays as it is, and a stopped run goes on."""

    @classmethod
    @guarded
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="KinetographTrainVideoModel",
            display_name="Train Video Model",
            category="kinetograph/training",
            description="Train a LoRA, a MotionLoRA, motion modules or ExVideo's layers on clips. The model stays as it is. "
            "Cancel keeps what was learned: the same name goes on from there.",
            search_aliases=[
                "train lora",
                "finetune",
                "motion lora",
                "video lora",
                "post-tuning",
                "motiondirector",
            ],
            is_output_node=True,
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="CogVideoX, SVD or PixArt of this pack's loaders, SD1.5 or SDXL, with motion modules or without. "
                    "LoRAs in front of it are merged into a copy.",
                ),
                io.Vae.Input("vae", tooltip="VAE of that model's loader."),
                io.String.Input("data", force_input=True, tooltip="Data set of Training Data."),
                io.Clip.Input("clip", optional=True, tooltip="Text encoder; SVD needs none."),
                io.ClipVision.Input(
                    "clip_vision", optional=True, tooltip="Image encoder of the SVD checkpoint."
                ),
                _part(),
                io.String.Input(
                    "name",
                    default="my_training",
                    tooltip="Name of the run, a folder below output/training: a run of this name goes on where it stopped.",
                ),
                io.Int.Input(
                    "steps",
                    default=1000,
                    min=1,
                    max=10_000_000,
                    tooltip="Updates in all. More than an earlier run of this name had: it goes on to there.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**31 - 1,
                    tooltip="Decides cuts, order, noise and first weights.",
                ),
                _learning(),
                _machine(),
                _samples(),
            ],
            outputs=[
                io.Custom("LORA_MODEL").Output(
                    "lora",
                    display_name="lora",
                    tooltip="The LoRA for ComfyUI's Save LoRA and Load LoRA Model; of the parts lora and domain_adapter alone.",
                ),
                io.Custom("LOSS_MAP").Output(
                    "loss", display_name="loss", tooltip="Losses of all steps, for ComfyUI's Plot Loss Graph."
                ),
                io.Int.Output("steps", display_name="steps", tooltip="Steps that the run has made in all."),
                io.String.Output(
                    "run", display_name="run", tooltip="Name of the finished run, for Save Trained."
                ),
                io.String.Output(
                    "report",
                    display_name="report",
                    tooltip="What was trained, how the loss fell, what was left out.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(
        cls, name=None, learning=None, machine=None, *, part=None, samples=None
    ) -> bool | str:
        """Refuse unknown choices, names that are none, and an optimizer whose package is not there."""
        try:
            check_known("part", part, training_runs.PARTS)
            check_known("learning", learning, training_runs.OPTIMIZERS)
            check_known("machine", machine, training_runs.MACHINES)
            check_known("samples", samples, training_runs.SAMPLES)
        except ValueError as error:
            return str(error)
        return training_runs.name_problem(name) or training_runs.learning_problem(learning, machine) or True

    @classmethod
    def fingerprint_inputs(cls, **_) -> int:
        """Train again when the result that was reported is gone."""
        return results.times_gone()

    @classmethod
    @checked
    def execute(
        cls,
        model,
        vae,
        data,
        part,
        name,
        steps,
        seed,
        learning,
        machine,
        samples,
        clip=None,
        clip_vision=None,
    ) -> io.NodeOutput:
        choices = training_runs.Choices(part, name, steps, seed, learning, machine, samples)
        return training_runs.train(model, Encoders(vae, clip, clip_vision), data, choices)


def _lora_inputs() -> list[io.Input]:
    """What a LoRA of any model has beside its rate."""
    return [
        _rank(64),
        io.Float.Input(
            "alpha",
            default=64.0,
            min=0.01,
            max=4096.0,
            step=0.01,
            tooltip="Strength: the LoRA acts times alpha / rank.",
        ),
        io.Combo.Input(
            "layers",
            options=["attention", "all", "temporal", "temporal_self"],
            default="attention",
            tooltip="Linear layers with a LoRA: those of the attentions; all; SVD: of attentions over time alone.",
        ),
        io.Combo.Input(
            "dialect", options=["kohya", "PEFT"], default="kohya", tooltip="How the file names layers."
        ),
    ]


def _part() -> io.DynamicCombo.Input:
    layers = io.Combo.Input(
        "layers",
        options=["attention", "all"],
        default="attention",
        tooltip="attention: as AnimateDiff's MotionLoRAs; all: as MotionDirector's, feed-forward layers, too.",
    )
    own = {"lora": _lora_inputs(), "motion_lora": [_rank(64), layers], "domain_adapter": [_rank(128)]}
    return io.DynamicCombo.Input(
        "part",
        options=[
            io.DynamicCombo.Option(name, [_rate(name), *own.get(name, [])]) for name in training_runs.PARTS
        ],
        tooltip="What is trained. motion_lora, motion_module and domain_adapter: AnimateDiff (motion_module: EasyAnimate, too); "
        "exvideo and temporal: SVD.",
    )


def _rank(default: int) -> io.Int.Input:
    return io.Int.Input("rank", default=default, min=1, max=1024, tooltip="Rank of the LoRA.")


def _rate(part: str) -> io.Float.Input:
    return io.Float.Input(
        "lr",
        default=RATES.get(part, 1e-4),
        min=1e-8,
        max=1.0,
        step=1e-7,
        tooltip="Learning rate, as published for AdamW; Lion takes a tenth.",
    )


def _float(name: str, high: float, step: float, tooltip: str) -> io.Float.Input:
    return io.Float.Input(name, default=getattr(USUAL, name), min=0.0, max=high, step=step, tooltip=tooltip)


def _learning() -> io.DynamicCombo.Input:
    shared = [
        io.Int.Input("batch", default=1, min=1, max=4096, tooltip="Clips of one update."),
        _float("weight_decay", 1.0, 1e-4, "Pull towards zero."),
        io.Combo.Input(
            "schedule",
            options=["constant", "hold", "cosine"],
            default=USUAL.schedule,
            tooltip="Course of the rate: constant; falling over the last part; falling as a cosine.",
        ),
        io.Int.Input("warm_up", default=0, min=0, max=100_000, tooltip="Steps in which the rate rises."),
        _float("clip", 100.0, 0.01, "Norm that gradients are cut to; 0: any."),
        _float(
            "ema", 0.99999, 1e-5, "Decay of the running mean of the weights, which is then saved; 0: none."
        ),
        io.Combo.Input(
            "loss",
            options=list(training_runs.LOSSES),
            default=training_runs.LOSSES[0],
            tooltip="published: as models of this kind were trained; min_snr: noise levels weighed by min-SNR-5.",
        ),
        io.Float.Input(
            "motion_sub",
            default=0.0,
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip="CogVideoX-Fun: share of the loss on the difference between frames (0.25 there).",
        ),
    ]
    return io.DynamicCombo.Input(
        "learning",
        options=[io.DynamicCombo.Option(name, shared) for name in training_runs.OPTIMIZERS],
        tooltip="The optimizer. adamw8bit needs bitsandbytes and a GPU.",
    )


def _machine() -> io.DynamicCombo.Input:
    save = io.Int.Input("save_every", default=500, min=1, max=1_000_000, tooltip="Steps between two states.")
    by_hand = [
        io.Combo.Input(
            "precision",
            options=["auto", "fp32", "bf16", "fp16"],
            default="auto",
            tooltip="Of the frozen weights and of products; what is trained is always fp32.",
        ),
        io.Boolean.Input(
            "checkpointing",
            default=True,
            tooltip="Compute blocks anew in the backward pass: far less memory.",
        ),
        io.Int.Input(
            "at_once", default=1, min=1, max=64, tooltip="Clips that go through the network at the same time."
        ),
    ]
    return io.DynamicCombo.Input(
        "machine",
        options=[
            io.DynamicCombo.Option(name, [save, *(by_hand if name == training_runs.BY_HAND else [])])
            for name in training_runs.MACHINES
        ],
        tooltip="How it fits the graphics memory. A size: that of the card, whose settings the report names.",
    )


def _samples() -> io.DynamicCombo.Input:
    parts = [
        io.Int.Input("every", default=100, min=1, max=1_000_000, tooltip="Steps between two samples."),
        io.Int.Input("steps", default=20, min=1, max=1000, tooltip="Sampling steps of a sample."),
        io.Float.Input("cfg", default=6.0, min=0.0, max=100.0, step=0.1, tooltip="Guidance of a sample."),
        io.String.Input(
            "prompt", default="", tooltip="What a sample shows; empty: the first clip's caption."
        ),
    ]
    return io.DynamicCombo.Input(
        "samples",
        options=[
            io.DynamicCombo.Option(training_runs.OFF, []),
            io.DynamicCombo.Option(training_runs.ON, parts),
        ],
        tooltip="Clips sampled on the way, shown on the node and kept beside the run.",
    )


NODES = [TrainVideoModel]
