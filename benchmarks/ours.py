"""Our own networks, built through the families' records: where the classes behind them live does not matter.

That makes two checkouts comparable in one process, each under a package name of its own.
"""

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any, get_type_hints

import torch
from torch import Tensor, nn

PACK = __name__.split(".")[0]


def import_pack(root: Path) -> str:
    """The package name, its own, of the pack at a folder, imported by file location as ComfyUI does.

    FileNotFoundError where none lies.
    """
    name = f"{PACK}_at_{seed_of(str(root.resolve()))}"
    if name in sys.modules:
        return name
    spec = importlib.util.spec_from_file_location(
        name, root / "__init__.py", submodule_search_locations=[str(root)]
    )
    if spec is None or spec.loader is None or not (root / "__init__.py").exists():
        raise FileNotFoundError(f"{root} holds no checkout of this pack.")
    pack = importlib.util.module_from_spec(spec)
    sys.modules[name] = pack
    spec.loader.exec_module(pack)
    return name


def part(family: str, kind: str, pack: str = PACK) -> Any:
    """The record of one kind of checkpoint, such as ("svd", "vae")."""
    families = importlib.import_module(f"{pack}.modules.families").FAMILIES
    return next(known for known in families if known.id == family).parts[kind]


def config(family: str, kind: str, pack: str = PACK, **sizes: Any) -> Any:
    """The configuration that such a checkpoint has; sizes that are not named are those of the published ones."""
    return get_type_hints(part(family, kind, pack).read_config)["return"](**sizes)


def network(
    family: str, kind: str, config: Any, dtype: torch.dtype, device: str, pack: str = PACK
) -> nn.Module:
    """A network of a configuration, for inference and without values: to be drawn, or assigned.

    TypeError for one with buffers, which would have no values either.
    """
    model = part(family, kind, pack).build(config, dtype=dtype, device="meta")
    if next(model.buffers(), None) is not None:
        raise TypeError(f"{type(model).__name__} has buffers: their values are to be made, not left empty.")
    if device != "meta":
        empty = {key: torch.empty_like(value, device=device) for key, value in model.state_dict().items()}
        model.load_state_dict(empty, assign=True)
    return model.eval().requires_grad_(False)


def draw(model: nn.Module, spread: float | None = None) -> None:
    """Random weights, none of them at its first value; nothing on the meta device.

    Weights of one axis belong to norms and lie about 1. The deviation is `spread`, or without it what keeps
    numbers near 1: 0.3 on one axis, else one over the root of the inputs. Neither the order of the weights nor
    the presence of others changes one.
    """
    for key, parameter in model.named_parameters():
        if parameter.is_meta:
            continue
        generator = torch.Generator(parameter.device).manual_seed(seed_of(key))
        deviation = spread or (0.3 if parameter.dim() < 2 else parameter[0].numel() ** -0.5)
        about = float(parameter.dim() == 1 and key.endswith("weight"))
        parameter.data.normal_(about, deviation, generator=generator)


def seed_of(key: str) -> int:
    """A number that a key has in every process."""
    return int.from_bytes(key.encode(), "big") % (2**61 - 1)


def noise(seed: int, dtype: torch.dtype, device: str, *shape: int) -> Tensor:
    """Random numbers, or on the meta device none."""
    if device == "meta":
        return torch.empty(shape, dtype=dtype, device=device)
    generator = torch.Generator(device).manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=dtype, device=device)
