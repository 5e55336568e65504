"""The video-diffusion systems this project knows. A new one is one folder and one line here."""

from .animatediff import FAMILY as ANIMATEDIFF
from .animatediff import MODULES, SPARSE
from .cogvideox import FAMILY as COGVIDEOX
from .family import AddOn, Family
from .svd import EXVIDEO
from .svd import FAMILY as SVD

FAMILIES: tuple[Family, ...] = (COGVIDEOX, SVD, ANIMATEDIFF)
# weights that go into a network of these, or beside it
ADD_ONS: tuple[AddOn, ...] = (EXVIDEO, MODULES, SPARSE)
