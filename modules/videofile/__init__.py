"""Frames to a finished video file: formats, the encoder, and proof that the file is right."""
