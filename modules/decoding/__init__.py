"""Latents to frames, a few at a time, whatever decodes them."""
