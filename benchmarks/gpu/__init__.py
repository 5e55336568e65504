"""What only an NVIDIA card can tell: `python -m benchmarks.gpu --folder OUT`.

Pictures made on the card beside those of a CPU, through the real ComfyUI in every way in which it keeps weights;
time and peak memory of full-size models with random weights beside diffusers; whole runs on a card with 8 GiB.

A step is a process of its own that writes its rows to OUT/rows.jsonl as it goes, so that an early end loses
nothing. Steps start together to share the wait for imports; whoever takes times has the card to himself.
"""
