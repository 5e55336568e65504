"""A planned cut, decoded: frames at their size, with what belongs to them."""

from dataclasses import dataclass

from torch import Tensor

from ...conditioning.sizes import Fits
from ...grid import LatentGrid
from ..recipe import Data
from .camera import canvas, move_camera
from .footage import open_control, open_item
from .items import Footage, Item
from .masks import item_mask
from .motion import motion_score
from .plan import Planned, plan_cut
from .resize import fit_frames, flip


@dataclass(frozen=True)
class Cut:
    """A clip, or a picture as a clip of one frame, ready to be encoded."""

    # (f, h, w, 3) fp32 in 0..1
    frames: Tensor
    caption: str
    # None: a picture
    fps: float | None
    # how much it moves, see `motion.py`
    motion: float
    # of the clip to follow, as `frames`
    control: Tensor | None = None
    # (f, h, w), 1 where the clip is made anew
    mask: Tensor | None = None


def cut(planned: Planned) -> Cut:
    """Decode what was planned; BadItem where the file breaks off."""
    frames = _shaped(open_item(planned.item), planned)
    num_frames, height, width, _ = frames.shape
    key = planned.item.index, planned.variant, planned.seed
    return Cut(
        frames,
        planned.item.text or "",
        planned.fps,
        motion_score(frames),
        _shaped(open_control(planned.item), planned) if planned.item.control else None,
        item_mask(num_frames, height, width, *key) if planned.masked else None,
    )


def cut_item(
    item: Item,
    data: Data,
    grid: LatentGrid,
    variant: int = 0,
    seed: int = 0,
    fits: Fits = lambda latent_frames: True,
) -> Cut:
    """One cut of one item, planned and decoded; BadItem where it cannot be made."""
    return cut(plan_cut(item, open_item(item), data, grid, variant, seed, fits))


def _shaped(footage: Footage, planned: Planned) -> Tensor:
    size = canvas(planned.width, planned.height) if planned.camera else (planned.width, planned.height)
    shots = footage.read(planned.frames)
    frames_fhwc = fit_frames(shots, len(planned.frames), *size, planned.across, planned.down)
    if planned.camera:
        frames_fhwc = move_camera(frames_fhwc, planned.camera, planned.width, planned.height)
    return flip(frames_fhwc) if planned.flipped else frames_fhwc
