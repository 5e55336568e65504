"""The published motion module of EasyAnimate v1; what else it published is PixArt, and stands there.

No public record tells its exact size or its SHA-256: README of the tag v1 says 4.1 GB.
"""

from ..family import Release
from ..pixart.releases import EASYANIMATE

RELEASES: tuple[Release, ...] = (
    Release(
        name="EasyAnimate v1",
        repository=EASYANIMATE,
        file="Motion_Module/easyanimate_v1_mm.safetensors",
        kind="motion_module",
        variant="v1 motion module",
        # trained at 80 frames, 12 a second
        size=(512, 512, 80),
        folder="Motion_Module",
        needs=("PixArt-alpha 512",),
        licence="Apache-2.0",
        gigabytes=4.1,
    ),
)
