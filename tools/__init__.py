"""What `dev.py` and the tests share to set up, start and talk to a real ComfyUI. Standard library only."""
