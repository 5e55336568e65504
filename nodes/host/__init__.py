"""The only code of this pack that imports ComfyUI."""
