"""Pure PyTorch: models, weights, sampling maths, decoding and video files. Never imports ComfyUI."""
