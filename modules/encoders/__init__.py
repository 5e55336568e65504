"""Text and image encoders that the host builds; here they are recognised, sized and renamed."""
