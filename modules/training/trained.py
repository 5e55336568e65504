"""What of a subject gets gradients: whole weights of its network, or low-rank paths beside its layers."""

from torch import nn

from . import checkpointing, parts
from .low_rank import LowRank
from .recipe import Recipe
from .subject import Subject


def trained_of(subject: Subject, recipe: Recipe) -> dict[str, nn.Parameter]:
    """The parameters of a recipe's part by name, in fp32, wherever they act put in place; all else is frozen.

    Of a LoRA they are its halves, `<layer>.lora_down` and `<layer>.lora_up`. ValueError where the network has nothing of
    the part.
    """
    network = subject.network.requires_grad_(False)
    modules = dict(network.named_modules())
    if recipe.machine.checkpointing:
        checkpointing.checkpoint_blocks(subject.blocks)
    if layers := parts.lora_modules(recipe.part, modules):
        choice = {name: modules[name] for name in layers}
        low = LowRank(choice, recipe.part.rank, recipe.part.alpha, recipe.steps.seed)
        low.attach()
        return low.parameters()
    weights = dict(network.named_parameters())
    names = parts.whole_names(recipe.part.name, weights)
    for name in names:
        weights[name].data = weights[name].data.float().clone()
        weights[name].requires_grad_(True)
    return {name: weights[name] for name in names}
