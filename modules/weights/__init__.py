"""Checkpoint files: open them, know what they are, give their keys our names. No family is named here."""
