"""Campaigns: seeded attacks on a real ComfyUI with this pack, counted. `python -m tests.campaigns NAME`."""
