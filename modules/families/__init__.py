"""The video-diffusion systems this project knows. A new one is one folder and one line here."""

from .animatediff import FAMILY as ANIMATEDIFF
from .animatediff import MODULES, SPARSE
from .beside import BESIDE
from .cogvideox import FAMILY as COGVIDEOX
from .easyanimate import FAMILY as EASYANIMATE
from .easyanimate import GRID_MODULES
from .family import AddOn, Family, Release
from .pixart import FAMILY as PIXART
from .svd import EXVIDEO
from .svd import FAMILY as SVD

FAMILIES: tuple[Family, ...] = (COGVIDEOX, SVD, ANIMATEDIFF, PIXART, EASYANIMATE)
# weights that go into a network of these, or beside it
ADD_ONS: tuple[AddOn, ...] = (EXVIDEO, MODULES, SPARSE, GRID_MODULES)
# every published file on record
RELEASES: tuple[Release, ...] = (*(row for family in FAMILIES for row in family.releases), *BESIDE)
# those that may be asked for by their names
DOWNLOADS: dict[str, Release] = {row.name: row for row in RELEASES if row.folder}
