"""Fills a card until so much is free, and watches how little is left: `python ballast.py GIB`, GIB "all" for none.

A process of its own with plain allocations: whoever runs beside it finds a smaller card. Prints the free bytes,
then, once its standard input ends, the fewest it has seen.
"""

import sys
import threading
import time

import torch

GIB, PIECE = 2**30, 2**28


def fill(leave: int) -> list[torch.Tensor]:
    """Allocations that leave so many bytes free."""
    held = []
    while (rest := torch.cuda.mem_get_info()[0] - leave) > 2**21:
        held.append(torch.empty(min(PIECE, rest - rest % 2**21), dtype=torch.uint8, device="cuda"))
    return held


def main(gib: str) -> None:
    torch.cuda.init()
    held = [] if gib == "all" else fill(int(float(gib) * GIB))
    lowest = [torch.cuda.mem_get_info()[0]]
    print(lowest[0], flush=True)
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    while not ended.is_set():
        lowest[0] = min(lowest[0], torch.cuda.mem_get_info()[0])
        time.sleep(0.002)
    print(lowest[0], flush=True)
    del held


if __name__ == "__main__":
    main(sys.argv[1])
