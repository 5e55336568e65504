"""Pocket Stable Video Diffusion: a picture of one shape comes to life at the speed that is asked for."""
