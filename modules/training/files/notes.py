"""What a file says of the training that made it, in its metadata: ours, and the words of kohya's files."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from safetensors.torch import save
from torch import Tensor

from ..recipe import Recipe

OURS = "kinetograph_training"


@dataclass(frozen=True)
class Notes:
    """A training, as far as it is told to whoever opens its file."""

    recipe: Recipe
    # updates that were made
    step: int
    # hash of the data set, and how many items it has
    data: str
    num_items: int
    # that of products: "fp32", "bf16", "fp16"
    precision: str = "fp32"
    # of the model, as people know it
    base: str = ""
    # what else belongs to the weights, each under its own name: ExVideo's motion_quantiles, latent_scale
    more: Mapping[str, Any] = field(default_factory=dict)

    def metadata(self) -> dict[str, str]:
        """Texts for a safetensors file."""
        told = {
            "name": self.recipe.name,
            "step": self.step,
            "data": self.data,
            "num_items": self.num_items,
            "precision": self.precision,
            "base": self.base,
            "recipe": asdict(self.recipe),
        }
        more = {key: json.dumps(value) for key, value in self.more.items()}
        return {"format": "pt", **more, OURS: json.dumps(told)}

    def kohya(self) -> dict[str, str]:
        """The words of kohya-ss/sd-scripts (train_network.py), which programs show beside a LoRA."""
        part, steps, data = self.recipe.part, self.recipe.steps, self.recipe.data
        told = {
            "ss_network_dim": part.rank,
            "ss_network_alpha": part.alpha,
            "ss_network_module": "networks.lora",
            "ss_base_model_version": self.base,
            "ss_learning_rate": steps.lr,
            "ss_optimizer": steps.optimizer,
            "ss_steps": self.step,
            "ss_seed": steps.seed,
            "ss_mixed_precision": {"fp32": "no"}.get(self.precision, self.precision),
            "ss_num_train_images": self.num_items,
            "ss_resolution": f"({data.width}, {data.height})",
            "ss_output_name": self.recipe.name,
        }
        return {key: str(value) for key, value in told.items()}


def model_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of a file's numbers without its header, by which programs know a LoRA whatever is said of it."""
    file = memoryview(save(dict(tensors)))
    return hashlib.sha256(file[8 + int.from_bytes(file[:8], "little") :]).hexdigest()
