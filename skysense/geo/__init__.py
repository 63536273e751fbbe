"""Grids, tiling and blending: numpy arithmetic on small immutable values, without torch."""

from skysense.geo.blending import RowBlender, ramp
from skysense.geo.grid import Bounds, Grid, Transform, Window, enclosing, intersect
from skysense.geo.tiling import Tiling

__all__ = [
    "Bounds",
    "Grid",
    "RowBlender",
    "Tiling",
    "Transform",
    "Window",
    "enclosing",
    "intersect",
    "ramp",
]
