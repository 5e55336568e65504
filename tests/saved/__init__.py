"""Workflows that were saved with an earlier version of the pack, one for every node, and what they gave then.

`graphs/` holds what ComfyUI's page saved, `api/` the same as API prompts. No widget of ours is at its default, so that
one that was moved, renamed or lost cannot hide behind a value that it would have anyway. `layout.json` lists the
inputs and outputs of that version, `frames.json` the results per version of ComfyUI: a hash of the 8-bit frames, and
block means that any computer meets within a level (another CPU rounds otherwise).

`python tools/pack.py kinetograph.tests.saved --help` runs them, and the shipped ones, on any checkout and compares
two checkouts on one computer bit for bit.
"""
