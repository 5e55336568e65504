"""The errors that writing a video raises."""


class VideoError(ValueError):
    """A video cannot be written as asked; the text says what came, what fits and what to do."""


class DiskFull(VideoError):
    """There is no room for the video."""
