"""Which of the files that were given a scene takes, so that others cannot stop it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from skysense.data.acquisitions import Layer
from skysense.data.products import Found, find_masks, inspect_found
from skysense.data.products.choice import DateRange, bbox_window
from skysense.data.rasters import RasterFile, parse_date
from skysense.geo import Bounds
from skysense.sensors import find_bands


@dataclass(frozen=True)
class Chosen:
    """A layer of an opened scene, and what it was asked for."""

    layer: Layer
    """What is left of one modality."""
    names: Sequence[str] | None = None
    """Band names that were given instead of what the files say."""
    dates: DateRange | None = None
    """Days that were asked for; `None` for all."""
    bbox: Bounds | None = None
    """Ground that was asked for, in degrees; `None` for all."""

    @cached_property
    def _read(self) -> frozenset[Path]:
        """The files that are read."""
        files = (file for date in self.layer.acquisitions for file in date.files)
        return frozenset(file.path for file in files if isinstance(file, RasterFile))

    def __contains__(self, found: Found) -> bool:
        """Whether a fault of a file concerns the scene.

        It does where the file is read, and where it has no band that is read though it lies on the
        days and the ground that were asked for: the fault may be why. A file with bands that is
        not read was left out for its day, ground or clouds, or is there in finer pixels.
        """
        if found.path in self._read:
            return True
        try:
            file = inspect_found(found, self.names)
        except ValueError:  # its ground is not known
            return self._asks_for(_date(found))
        if not self._asks_for(file.date) or self._has_part(file):
            return False
        return self.bbox is None or bbox_window(file.grid, self.bbox) is not None

    def _asks_for(self, date: np.datetime64) -> bool:
        """Whether a day is among those that were asked for, which no unknown one is."""
        return self.dates is None or date in self.dates

    def _has_part(self, file: RasterFile) -> bool:
        """Whether a file has a band or a mask that an acquisition could take."""
        try:
            return bool(find_masks(file.names) or find_bands(self.layer.card, file.names))
        except ValueError:  # twice the same
            return True


def _date(found: Found) -> np.datetime64:
    """The day by name of a file that cannot be opened."""
    if found.product is not None and not np.isnat(found.product.date):
        return found.product.date
    dates = (parse_date(text) for text in (found.path.stem, found.path.absolute().parent.name))
    return next((date for date in dates if not np.isnat(date)), np.datetime64("NaT", "D"))
