"""A training from its recipe to its file: what is wrong is said first, then clips are encoded, then the loop runs."""

import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...modules.sampling.previews import beneath, filmstrip
from ...modules.training import memory, presets, sampling, state
from ...modules.training.cache import Cache
from ...modules.training.configuration import check, plain
from ...modules.training.data.formats import read_items
from ...modules.training.data.plan import Plan, plan_cuts
from ...modules.training.levels import check_levels
from ...modules.training.loop import Progress, Training, run
from ...modules.training.loss import check_loss
from ...modules.training.processes import Alone, Processes
from ...modules.training.recipe import Recipe
from ...modules.training.subject import Example
from ...modules.training.trained import trained_of
from ..host import progress
from ..host import training as host
from ..host.description import VideoModel, describe
from . import subjects, training_examples, training_files, training_processes
from .subjects import NODE
from .training_examples import Encoders

LOG = "log.jsonl"
RECIPE = "recipe.json"
SAMPLES = "samples"


@dataclass(frozen=True)
class Job:
    """A recipe with what it is trained on and where everything goes."""

    recipe: Recipe
    model: Any
    encoders: Encoders
    # of the data set
    data: Path
    # of the run: its state, log, samples and result
    folder: Path
    # of encoded clips, which other runs of the same data share
    cache: Path
    say: Callable[[str], None] = progress.tell
    # steps of a run, and pictures of clips sampled on the way
    watch: Callable[[Progress, Any], None] = lambda step, picture: None


@dataclass(frozen=True)
class Outcome:
    """What a training left behind."""

    file: Path
    # of each update of this run
    losses: list[float]
    step: int
    # by the host's names, where a LoRA was trained; empty else
    lora: Mapping[str, Tensor]
    report: str


@dataclass
class _Course:
    """A training that goes on, and what is written of it."""

    job: Job
    training: Training
    said: VideoModel
    # of the data set, for the file
    facts: Mapping[str, Any]
    # what was left out of it
    report: str
    # features of the prompts to sample with
    prompts: tuple[Tensor, ...] = ()
    losses: list[float] = field(default_factory=list)
    # whether all processes stand behind one step: who stops a shared training does so in all of them there
    together: bool = True

    def after(self, step: Progress) -> None:
        """Log, save, show, and let Cancel through; what was learned until then is saved."""
        recipe = self.job.recipe
        self.losses.append(step.loss)
        if self.is_first:
            with (self.job.folder / LOG).open("a", encoding="utf-8") as log:
                log.write(json.dumps(asdict(step)) + "\n")
        if step.step % recipe.machine.save_every == 0:
            self._write()
        every = recipe.evaluation.every
        picture = self.sample(step.step) if every and step.step % every == 0 else None
        self.together = True
        self.job.watch(step, picture)
        self.together = step.step == recipe.steps.total

    @property
    def is_first(self) -> bool:
        """Whether this process writes."""
        return self.training.processes.rank == 0

    def save(self) -> None:
        """Write the state, unless that takes processes of which one may have failed amid a step."""
        if self.training.done and (self.together or self.training.is_whole):
            self._write()

    def _write(self) -> None:
        kept = self.training.state()
        if self.is_first:
            state.save(self.job.folder, kept)

    def sample(self, step: int) -> Any:
        """A strip of a clip for each prompt, sampled with the weights of now; beside the log, too."""
        course = self.training
        with course.autocast(), course.average.swapped() if course.average else nullcontext():
            strips = [self._strip(example) for example in self._shown()]
        picture = beneath(strips)
        if self.is_first:
            folder = self.job.folder / SAMPLES
            folder.mkdir(exist_ok=True)
            picture.save(folder / f"step-{step:06d}.png")
        return picture

    def _shown(self) -> list[Example]:
        """The data's first clip as it is told, or as each prompt tells it."""
        first, prompts = self.training.examples[0], self.prompts
        return [replace(first, context=prompt) for prompt in prompts] if prompts else [first]

    def _strip(self, example: Example) -> Any:
        course, recipe = self.training, self.job.recipe
        place = (course.processes.device, course.dtype)
        empty, wish, seed = course.examples.empty, recipe.evaluation, recipe.steps.seed
        latents = sampling.sample(course.subject, example, empty, wish, seed, *place)
        z_cthw = latents.movedim(1, 0) if self.said.grid.frames_on_batch else latents
        space = self.said.latents
        return filmstrip(z_cthw.float().cpu() * space.scale, space.rgb_factors, space.rgb_bias)


def train(job: Job, processes: Processes | None = None) -> Outcome:
    """Run a job to its end, going on where an earlier run of the same name stopped.

    ValueError for data, parts and settings that cannot be, before anything is encoded. When it is interrupted, or ends
    in an error after its first step, its state is saved.
    """
    said = describe(job.model, NODE)
    processes = processes or Alone(host.device())
    plan = prepare(job, said, processes)
    with host.gradients():
        course = begin(job, said, plan, processes)
        clips = len(course.training.examples)
        if processes.device.type != "cpu":
            job.say(_memory(course))
        job.say(
            f"{course.training.subject.label}: {_counted(course.training.trained)} to train, {clips} clips"
        )
        try:
            run(course.training, course.after)
        finally:
            course.save()
        return _finish(job, course)


def foresee(job: Job) -> str:
    """What a job would hold at once, as a sentence, without a step of it: its clips are encoded for that."""
    said, processes = describe(job.model, NODE), Alone(host.device())
    with host.gradients():
        return _memory(begin(job, said, prepare(job, said, processes), processes))


def prepare(job: Job, said: VideoModel, processes: Processes) -> Plan:
    """The cuts of the data set and what was left out of it; ValueError for everything that can be known to fail."""
    recipe = job.recipe
    check(recipe)
    if said.noise is not None:
        check_loss(said.noise, recipe.loss)
        check_levels(said.noise, recipe.levels)
    subjects.check_part(job.model, recipe)
    training_processes.check(recipe, processes)
    training_examples.check_encoders(said, job.encoders)
    dataset = read_items(job.data, recipe.data.format)
    needs_text = job.encoders.clip is not None
    bar = progress.steps(len(dataset.items))
    return plan_cuts(
        dataset, recipe.data, said.grid, recipe.steps.seed, needs_text, said.frame_rule.fits, bar.advance
    )


def begin(job: Job, said: VideoModel, plan: Plan, processes: Processes) -> _Course:
    """Encode what is not yet, build what is trained, and take over an earlier run's state."""
    recipe = job.recipe
    with torch.no_grad():
        cache = Cache(job.cache)
        training_processes.encode(said, job.encoders, plan, cache, recipe, processes)
        examples, report = training_examples.encode(
            said, job.encoders, plan, recipe.data, cache, recipe.evaluation.prompts
        )
    words = "\n".join(report.sentences())
    job.say(words)
    host.free_memory()
    dtype = host.training_dtype(recipe.machine.precision)
    subject = subjects.subject_of(job.model, recipe, dtype)
    trained = trained_of(subject, recipe)
    training_processes.check_weights(trained, len(examples), processes)
    trained = training_processes.spread(subject, trained, recipe, processes, dtype)
    training = Training(subject, trained, examples, recipe, processes, dtype)
    training_files.check_room(job.folder, training, recipe)
    earlier = state.load(job.folder)
    if earlier is not None:
        _check_same(earlier, recipe, job.folder)
    training_processes.go_on(training, earlier, job.folder)
    course = _Course(job, training, said, examples.facts, words, examples.prompts)
    if course.is_first:
        job.folder.mkdir(parents=True, exist_ok=True)
        state.place(job.folder / RECIPE, lambda path: path.write_text(json.dumps(plain(recipe), indent=2)))
        cut_log(job.folder / LOG, training.done)
    return course


def cut_log(log: Path, step: int) -> None:
    """Leave the steps up to one: a run that was killed wrote later ones, which are made again, perhaps half a line."""
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True) if log.exists() else []
    kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= step]
    if kept != lines:
        state.place(log, lambda path: path.write_text("".join(kept), encoding="utf-8"))


def _check_same(earlier: state.State, recipe: Recipe, folder: Path) -> None:
    """ValueError where an earlier run of this name trained something else."""
    told = json.loads((folder / RECIPE).read_text(encoding="utf-8")) if (folder / RECIPE).exists() else None
    now = json.loads(json.dumps(plain(recipe)))
    # more steps, other samples and another rhythm of saving go on with the same training
    for one in filter(None, (told, now)):
        one["steps"].pop("total"), one.pop("evaluation"), one.pop("machine")
    if told is not None and told != now:
        changed = [key for key in now if told.get(key) != now[key]]
        raise ValueError(
            f"{folder} holds a run of this name with another {', '.join(changed)} (step {earlier.step}). Give this one a name "
            "of its own, or delete the folder."
        )


def _finish(job: Job, course: _Course) -> Outcome:
    """The result's file, once the last step is done."""
    training = course.training
    result, network = training.result(), training.network_state()
    file = job.folder / f"{job.recipe.name}.safetensors"
    if course.is_first:
        training_files.save(file, training, job.recipe, result, network, course.facts)
    training.processes.wait()
    lora = training_files.host_lora(job.recipe, result)
    return Outcome(file, course.losses, training.done, lora, course.report)


def _memory(course: _Course) -> str:
    """What the training will hold, and whether the device has it: counted on fake tensors, nothing is computed.

    That takes as long as some steps on a CPU, where it is told only to who asks.
    """
    training = course.training
    predicted = memory.of_training(training, [training.examples[0]])
    return presets.check_fits(predicted, host.device_memory(), training.recipe)


def _counted(trained: Mapping[str, nn.Parameter]) -> str:
    count = sum(parameter.numel() for parameter in trained.values())
    return f"{count / 1e6:.2f} million numbers in {len(trained)} tensors"
