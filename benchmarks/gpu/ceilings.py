"""What the card itself can do: the bandwidth of a copy, the rate of matrix products, the attention kernel."""

from typing import Any

import torch
import torch.nn.functional as F

from . import measure
from .report import Report


def measure_card() -> dict[str, Any]:
    """Name, memory and versions."""
    if measure.device() == "cpu":
        return {"card": "none", "torch": torch.__version__}
    properties = torch.cuda.get_device_properties(0)
    return {
        "card": properties.name,
        "memory_gib": round(properties.total_memory / measure.GIB, 1),
        "processors": properties.multi_processor_count,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def run(report: Report) -> None:
    """Rows of the card, a large copy, bf16 and fp16 products, and attention over 17 776 tokens of 48 heads."""
    report.add("card", **measure_card())
    size, tokens = (256, 256) if report.tiny else (8192, 17776)
    draw = {"device": measure.device(), "dtype": torch.bfloat16}
    with report.alone():
        source = torch.randn(size, 16 * size, **draw)
        target = torch.empty_like(source)
        took = measure.quick(lambda: target.copy_(source)) / 1000
        report.add("copy", tb_per_second=round(2 * source.nbytes / took / 1e12, 2))
        a, b = source[:, :size].contiguous(), source[:, size : 2 * size].contiguous()
        took = measure.quick(lambda: a @ b) / 1000
        report.add("product", tflops=round(2 * size**3 / took / 1e12, 1))
        q, k, v = (torch.randn(1, 48, tokens, 64, **draw) for _ in range(3))
        took = measure.quick(lambda: F.scaled_dot_product_attention(q, k, v)) / 1000
        report.add("attention", tflops=round(4 * 48 * tokens**2 * 64 / took / 1e12, 1))
