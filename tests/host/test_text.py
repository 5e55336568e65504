"""Prompts as the host encodes them with our CLIP: transformers' T5, padded, cut and without a mask."""

from pathlib import Path

import pytest
import torch

from kinetograph.tests import tiny
from kinetograph.tests.host.workbench import Workbench, relative

SHORT = "a red circle moving left"
LONG = " ".join(["a red circle moving left and a blue square standing still"] * 20)


@pytest.fixture(scope="module")
def bench(comfy_here):
    return Workbench()


@pytest.fixture(scope="module")
def reference(comfy_here):
    """Token ids and features of a prompt by transformers."""
    from comfy.text_encoders import sd3_clip
    from transformers import T5TokenizerFast

    tokenizer = T5TokenizerFast.from_pretrained(str(Path(sd3_clip.__file__).parent / "t5_tokenizer"))
    encoder = tiny.text_encoder()

    @torch.inference_mode()
    def encode(prompt):
        how = {"padding": "max_length", "max_length": tiny.TEXT_TOKENS, "truncation": True}
        ids = tokenizer(prompt, return_tensors="pt", **how).input_ids
        return ids[0].tolist(), encoder(ids)[0]

    return encode


def tokens_of(bench, prompt):
    (batch,) = bench.shared()[1].tokenize(prompt)["t5xxl"]
    return [token for token, *_ in batch]


@pytest.mark.parametrize("prompt", ["", SHORT, LONG], ids=["empty", "short", "long"])
def test_prompts_are_those_of_transformers(bench, reference, prompt):
    ids, features = reference(prompt)
    assert tokens_of(bench, prompt) == ids
    ((ours, options),) = bench.text(prompt)
    assert ours.shape == (1, tiny.TEXT_TOKENS, tiny.TEXT_WIDTH)
    assert relative(ours, features) < 1e-5
    assert "attention_mask" not in options


def test_long_prompts_end_with_the_end_token(bench):
    ids = tokens_of(bench, LONG)
    assert len(ids) == tiny.TEXT_TOKENS and ids[-1] == 1 and 0 not in ids
    assert tokens_of(bench, SHORT).count(1) == 1


@pytest.mark.parametrize(
    "prompt", ["a (red:1.4) circle", "((a)) (b:0.5", f"({LONG}:1.2)", "embedding:none such"]
)
def test_weights_and_embeddings_in_prompts(bench, prompt):
    ((ours, _),) = bench.text(prompt)
    assert ours.shape == (1, tiny.TEXT_TOKENS, tiny.TEXT_WIDTH) and ours.isfinite().all()


def test_weights_pull(bench):
    plain, weighted = (bench.text(prompt)[0][0] for prompt in ("a red circle", "a (red:1.4) circle"))
    assert relative(weighted, plain) > 1e-3


def test_prompts_leave_no_trace(bench):
    before = bench.text(SHORT)[0][0]
    bench.text(f"({LONG}:1.3)")
    assert torch.equal(bench.text(SHORT)[0][0], before)
