"""Data of a training: items in the users' formats, and the clips that are cut from them."""
