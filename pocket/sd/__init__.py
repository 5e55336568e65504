"""The pocket SD: an SD1.5 of one shape on a dark ground, an AnimateDiff motion module and two MotionLoRAs for it."""
