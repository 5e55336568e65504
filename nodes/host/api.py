"""ComfyUI's node API, in one place: restricted to what 0.16.3 and 0.30 share."""

from comfy_api.latest import ComfyExtension, Input, InputImpl, Types, io, ui

__all__ = ["ComfyExtension", "Input", "InputImpl", "Types", "io", "ui"]
