"""Pictures refuse what has another shape, and say what they expected."""

import re

import numpy as np
import pytest

from skysense.pretrain.report import Pictures


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": []}, "NeighborSheet.images: no image"),
        ({"names": ["a"]}, "NeighborSheet.names: 1 for 4 images"),
        ({"classes": ["a"] * 5}, "NeighborSheet.classes: 5 for 4 images"),
        ({"order": np.zeros(3, int)}, "NeighborSheet.order: shape (3,); expected (Q, 1 + k)"),
        ({"order": np.zeros((0, 3), int)}, "NeighborSheet.order: shape (0, 3)"),
        ({"order": np.zeros((2, 3))}, "NeighborSheet.order: float64 (2, 3); expected whole"),
        ({"order": np.zeros((2, 1), int)}, "at least one neighbor"),
        ({"order": np.array([[0, 4, 1]])}, "points at images 0 to 4; expected 0 to 3"),
        ({"order": np.array([[0, -1, 1]])}, "points at images -1 to 1; expected 0 to 3"),
        ({"scores": np.zeros((2, 3))}, "NeighborSheet.scores: shape (2, 3); expected (2, 2)"),
    ],
)
def test_neighbors_refuse(neighbors, changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        neighbors(**changes)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((3, 4), np.uint8), "images[1]: uint8 (3, 4); expected uint8 (3, H, W)"),
        (np.zeros((4, 4, 3), np.uint8), "images[1]: uint8 (4, 4, 3)"),
        (np.zeros((3, 0, 3), np.uint8), "images[1]: uint8 (3, 0, 3)"),
        (np.zeros((3, 4, 4), np.float32), "images[1]: float32 (3, 4, 4)"),
    ],
)
def test_images_are_bytes_in_color(neighbors, attention, images, image, message):
    with pytest.raises(ValueError, match=re.escape(f"AttentionSheet.{message}")):
        attention(images=[*images(1), image])
    with pytest.raises(ValueError, match=re.escape(f"NeighborSheet.{message}")):
        neighbors(images=[*images(1), image, *images(2)])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((2, 2, 2)), "shape (2, 2, 2); expected (n, m, h, w)"),
        (np.zeros((3, 2, 2, 2)), "3 maps for 2 images"),
        (np.full((2, 2, 2, 2), -1.0), "negative or infinite"),
        (np.full((2, 2, 2, 2), np.inf), "negative or infinite"),
    ],
)
def test_attention_refuses(attention, values, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        attention(attention=values)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"experts": {"s2": np.zeros(4)}}, "experts['s2']: shape (4,); expected (blocks, E)"),
        ({"experts": {"s2": np.full((1, 2), -0.1)}}, "experts['s2']: holds negative"),
        ({"profile": [("mm", -1.0)]}, "`mm` takes -1.0 s"),
        ({"profile": [("mm", float("nan"))]}, "`mm` takes nan s"),
    ],
)
def test_pictures_refuse(given, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Pictures(**given)
