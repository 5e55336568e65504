"""Stable Video Diffusion (arXiv 2311.15127) and its extension to 128 frames, ExVideo (arXiv 2406.14130)."""
