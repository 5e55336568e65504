"""The errors that writing a video raises."""


class VideoError(ValueError):
    """A video cannot be written as asked; the text says what came, what fits and what to do."""

    # The host shows an error with its module, whose name is the path of the pack.
    __module__ = "kinetograph"


class DiskFull(VideoError):
    """There is no room for the video."""

    # The host shows an error with its module, whose name is the path of the pack.
    __module__ = "kinetograph"
