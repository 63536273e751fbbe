"""What the report shows beside the metrics: plain arrays, checked when they are put together.

Legend: n images, H W pixels of one, Q neighbor queries, k neighbors, m queries of QSACL,
h w cells of an attention map, E experts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

ByteArray = npt.NDArray[np.uint8]
IntArray = npt.NDArray[np.integer[Any]]
FloatArray = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class NeighborSheet:
    """Some images, and for a few of them those whose vectors are nearest."""

    images: Sequence[ByteArray]
    """n of `(3, H, W)` uint8, of any sizes."""
    names: Sequence[str]
    """A name an image."""
    order: IntArray
    """`(Q, 1 + k)` positions in `images`: a query, then its neighbors, nearest first."""
    scores: FloatArray
    """`(Q, k)` cosine similarity of each neighbor."""
    classes: Sequence[str] | None = None
    """A class an image, where they are known; whether they agree is shown by the frames."""

    def __post_init__(self) -> None:
        """Check.

        Raises:
            ValueError: something has another shape, or points at an image that is not there.
        """
        _check_images("NeighborSheet.images", self.images)
        count = len(self.images)
        for field, texts in (("names", self.names), ("classes", self.classes)):
            if texts is not None and len(texts) != count:
                raise ValueError(
                    f"NeighborSheet.{field}: {len(texts)} for {count} images; give one an image"
                )
        order, scores = self.order, self.scores
        _check_shape("NeighborSheet.order", order, ("Q", "1 + k"))
        if not np.issubdtype(order.dtype, np.integer) or order.shape[1] < 2:
            raise ValueError(
                f"NeighborSheet.order: {order.dtype} {order.shape}; expected whole numbers "
                "(Q, 1 + k), each query first and at least one neighbor after it"
            )
        if order.min() < 0 or order.max() >= count:
            raise ValueError(
                f"NeighborSheet.order points at images {order.min()} to {order.max()}; expected "
                f"0 to {count - 1}"
            )
        expected = (order.shape[0], order.shape[1] - 1)
        if scores.shape != expected:
            raise ValueError(
                f"NeighborSheet.scores: shape {scores.shape}; expected {expected}, one a neighbor"
            )


@dataclass(frozen=True)
class AttentionSheet:
    """Where the queries of QSACL look."""

    images: Sequence[ByteArray]
    """n of `(3, H, W)` uint8, of any sizes."""
    attention: FloatArray
    """`(n, m, h, w)`, not negative: each map covers its image; NaN where there is no cell."""

    def __post_init__(self) -> None:
        """Check.

        Raises:
            ValueError: something has another shape, or a share of attention is negative.
        """
        _check_images("AttentionSheet.images", self.images)
        _check_shape("AttentionSheet.attention", self.attention, ("n", "m", "h", "w"))
        if len(self.attention) != len(self.images):
            raise ValueError(
                f"AttentionSheet.attention: {len(self.attention)} maps for {len(self.images)} "
                "images; give one an image"
            )
        _check_shares("AttentionSheet.attention", self.attention)


@dataclass(frozen=True)
class Pictures:
    """What was looked at in the trained model; what is `None` or empty gets no section."""

    neighbors: NeighborSheet | None = None
    """Nearest neighbors of a few labelled images."""
    attention: AttentionSheet | None = None
    """Attention of the queries of QSACL over a few scenes."""
    experts: Mapping[str, FloatArray] | None = None
    """By modality: `(blocks, E)`, the share of a block's tokens that each expert got."""
    profile: Sequence[tuple[str, float]] | None = None
    """Parts of a step, however fine, and the seconds that each takes."""

    def __post_init__(self) -> None:
        """Check.

        Raises:
            ValueError: shares of experts have another shape or are negative, or seconds are.
        """
        for modality, shares in (self.experts or {}).items():
            _check_shape(f"Pictures.experts[{modality!r}]", shares, ("blocks", "E"))
            _check_shares(f"Pictures.experts[{modality!r}]", shares)
        for part, seconds in self.profile or ():
            if not 0 <= seconds < np.inf:
                raise ValueError(f"Pictures.profile: `{part}` takes {seconds} s; expected >= 0")


def _check_images(where: str, images: Sequence[ByteArray]) -> None:
    """Each `(3, H, W)` uint8.

    Raises:
        ValueError: there is none, or one is not.
    """
    if not len(images):
        raise ValueError(f"{where}: no image; expected at least one")
    for place, image in enumerate(images):
        if image.ndim != 3 or image.shape[0] != 3 or not image.size or image.dtype != np.uint8:
            raise ValueError(
                f"{where}[{place}]: {image.dtype} {image.shape}; expected uint8 (3, H, W)"
            )


def _check_shape(where: str, values: npt.NDArray[Any], axes: tuple[str, ...]) -> None:
    """As many axes as named, and something in them.

    Raises:
        ValueError: it is not so.
    """
    if values.ndim != len(axes) or not values.size:
        raise ValueError(f"{where}: shape {values.shape}; expected ({', '.join(axes)}), not empty")


def _check_shares(where: str, shares: FloatArray) -> None:
    """NaN or not negative.

    Raises:
        ValueError: it is not so.
    """
    if np.isinf(shares).any() or (shares < 0).any():
        raise ValueError(f"{where}: holds negative or infinite values; expected shares, >= 0")
