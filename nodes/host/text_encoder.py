"""A T5 encoder as a host CLIP that gives a family exactly the tokens it was trained with."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import comfy.sd
import comfy.sd1_clip
import comfy.supported_models_base
import comfy.text_encoders.sd3_clip
import comfy.text_encoders.t5
import comfy.utils
import folder_paths
import torch
from torch import Tensor

from ...modules.encoders.t5 import T5Config
from .backend import Check, unchecked

NAME = "t5xxl"  # the host's name for it; embeddings and schedules refer to it
PAD, END = 0, 1  # T5's tokens


@dataclass(frozen=True)
class TextRecipe:
    """Sizes and weights of a T5 encoder (HF names), and the tokens a family's transformer expects."""

    sizes: T5Config
    open_weights: Callable[[], dict[str, Tensor]]  # in HF names
    weight_dtype: torch.dtype
    parameters: int
    max_tokens: int  # prompts are cut to it, end token included
    check: Check = unchecked
    pads: bool = True  # up to `max_tokens`
    prepare: Callable[[str], str] = str  # of a text, before it is cut into tokens


def tokenizer_class(recipe: TextRecipe) -> type:
    """The host's T5 tokenizer, cut to the recipe's tokens (226 for CogVideoX, arXiv 2408.06072), and padded or not.

    The host's own `cogvideox` type pads but does not cut; the transformer never saw a longer text. The check is
    asked with every text: it comes before the weights are looked at, through every clone of the CLIP.
    """
    shortest = recipe.max_tokens if recipe.pads else 1

    class ExactT5Tokenizer(comfy.text_encoders.sd3_clip.T5XXLTokenizer):
        def __init__(self, embedding_directory: Any = None, tokenizer_data: Any = None):
            super().__init__(embedding_directory, tokenizer_data or {}, min_length=shortest)

        def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **kwargs: Any) -> Any:
            kwargs["min_length"] = shortest
            batches = super().tokenize_with_weights(text, return_word_ids, **kwargs)
            return [cut_tokens(batch, recipe.max_tokens) for batch in batches]

    class Tokenizer(comfy.sd1_clip.SD1Tokenizer):
        def __init__(self, embedding_directory: Any = None, tokenizer_data: Any = None):
            inner = {"clip_name": NAME, "tokenizer": ExactT5Tokenizer, "name": NAME}
            super().__init__(embedding_directory, tokenizer_data or {}, **inner)

        def tokenize_with_weights(self, text: str, *args: Any, **kwargs: Any) -> Any:
            recipe.check()
            return super().tokenize_with_weights(recipe.prepare(text), *args, **kwargs)

    return Tokenizer


def cut_tokens(batch: list[Any], max_tokens: int) -> list[Any]:
    """The first `max_tokens` tokens, the end token staying last, as transformers truncates."""
    return batch if len(batch) <= max_tokens else batch[: max_tokens - 1] + batch[-1:]


def host_config(sizes: T5Config) -> dict[str, Any]:
    """The host's T5 configuration (comfy/text_encoders/t5_config_xxl.json) at the given sizes."""
    return {
        "d_model": sizes.d_model,
        "num_layers": sizes.num_layers,
        "num_heads": sizes.num_heads,
        "d_kv": sizes.d_kv,
        "d_ff": sizes.d_ff,
        "vocab_size": sizes.vocab_size,
        "is_gated_act": sizes.gated,
        "dense_act_fn": "gelu_pytorch_tanh" if sizes.gated else "relu",
        "model_type": "t5",
    }


def model_class(sizes: T5Config, dtype: torch.dtype, quantization: Any) -> type:
    """The host's T5 at the given sizes, without attention masks: where there is padding, as for CogVideoX, it is seen."""

    class SizedT5(comfy.sd1_clip.SDClipModel):
        def __init__(self, device: Any = "cpu", dtype: Any = None, model_options: Any = None):
            options = {**(model_options or {}), "model_name": NAME}
            if quantization is not None:
                options["quantization_metadata"] = quantization
            super().__init__(
                device=device,
                textmodel_json_config=host_config(sizes),
                dtype=dtype,
                special_tokens={"end": END, "pad": PAD},
                model_class=comfy.text_encoders.t5.T5,
                model_options=options,
            )

    class TextModel(comfy.sd1_clip.SD1ClipModel):
        def __init__(self, device: Any = "cpu", dtype: Any = None, model_options: Any = None):
            super().__init__(
                device=device, dtype=stored, name=NAME, clip_model=SizedT5, model_options=model_options or {}
            )

        def load_sd(self, sd: dict[str, Tensor]) -> Any:
            """The host's loading; ValueError names the first weights that the file lacks."""
            missing, unexpected = super().load_sd(sd)
            if missing:
                raise ValueError(
                    f"The text encoder lacks {len(missing)} of its weights, the first: {', '.join(missing[:5])}. "
                    "Use a T5 v1.1 encoder such as t5xxl_fp16.safetensors."
                )
            return missing, unexpected

    stored = dtype  # T5 stays as stored and is cast at use: bf16 weights overflow in fp16
    return TextModel


def load_clip(recipe: TextRecipe) -> comfy.sd.CLIP:
    """A CLIP for the host's CLIPTextEncode from a T5 encoder of any size, quantised ones included.

    Raises ValueError naming the first weights that the file lacks.
    """
    weights, _ = comfy.utils.convert_old_quants(recipe.open_weights(), "", metadata={})
    found = comfy.text_encoders.sd3_clip.t5_xxl_detect(weights)
    model = model_class(recipe.sizes, recipe.weight_dtype, found.get("t5_quantization_metadata"))
    tokenizer = tokenizer_class(recipe)
    target = comfy.supported_models_base.ClipTarget(tokenizer, model)
    # handed in, since layers of quantised weights are none before them, and the host may move them at once
    places = folder_paths.get_folder_paths("embeddings")
    clip = comfy.sd.CLIP(target, places, parameters=recipe.parameters, state_dict=[weights])
    clip.patcher.cached_patcher_init = (_load_clip_patcher, (recipe,))
    return clip


def _load_clip_patcher(recipe: TextRecipe, disable_dynamic: bool = False) -> Any:
    patcher = load_clip(recipe).patcher
    return patcher.clone(disable_dynamic=True) if disable_dynamic and patcher.is_dynamic() else patcher
