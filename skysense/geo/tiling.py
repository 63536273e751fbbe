"""Cut a scene into overlapping tiles that start on multiples of a unit.

The unit is the number of pixels after which window attention and patch merging repeat, so that a
place falls into the same attention window in whichever tile it is seen.
"""

import math
from dataclasses import dataclass

from skysense.geo.grid import Window


@dataclass(frozen=True)
class Tiling:
    """Tile positions of a scene.

    Worked example: 1000 pixels, tiles of 512 that overlap by 64, unit 64: the stride is 448, the
    starts are 0 and 448, and the last tile ends at 960, so a third starts at 896.
    """

    shape: tuple[int, int]
    """Pixels of the scene, `(H, W)`."""
    tile: int
    """Side of a tile in pixels, a multiple of `unit`."""
    overlap: int
    """Pixels that neighbouring tiles share, a multiple of `unit`."""
    unit: int = 1
    """All tiles start at multiples of it."""

    def __post_init__(self) -> None:
        """Check sizes.

        Raises:
            ValueError: tile and overlap are not multiples of the unit, or leave no stride.
        """
        if self.tile < 1:
            raise ValueError(f"a tile has at least one pixel, got {self.tile}")
        if self.tile % self.unit or self.overlap % self.unit:
            raise ValueError(
                f"tile {self.tile} and overlap {self.overlap} must be multiples of {self.unit}"
            )
        if not 0 <= self.overlap <= self.tile // 2:
            raise ValueError(
                f"overlap {self.overlap} must lie between 0 and half a tile ({self.tile // 2})"
            )

    @property
    def stride(self) -> int:
        """Pixels from one tile's start to the next."""
        return self.tile - self.overlap

    def starts(self, axis: int) -> list[int]:
        """First pixels of the tiles along an axis (0 rows, 1 columns)."""
        length = self.shape[axis]
        last = max(0, -(-(length - self.tile) // self.stride))
        return [i * self.stride for i in range(last + 1)]

    @property
    def count(self) -> int:
        """Number of tiles."""
        return len(self.starts(0)) * len(self.starts(1))

    def rows(self, whole: bool = False) -> list[list[Window]]:
        """All tiles, a list a row of tiles.

        Args:
            whole: the last tiles stick out of the scene; else they are cut to it.
        """
        height, width = (math.inf, math.inf) if whole else self.shape
        return [
            [
                Window(r, c, int(min(self.tile, height - r)), int(min(self.tile, width - c)))
                for c in self.starts(1)
            ]
            for r in self.starts(0)
        ]
