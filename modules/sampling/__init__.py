"""Noise schedules, guidance and samplers: the maths between noise and latents."""
