"""Small images enlarged: known values, missing pixels, padding, absent samples."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skysense.models.enlarging import enlarge
from skysense.sample import Sample, Series, collate, undated


def part_of(*images, masks=None):
    """A batch's `hr` of float images `(3, H, W)`; `None` is an absent sample."""
    masks = masks or [None] * len(images)
    samples = []
    for image, mask in zip(images, masks, strict=True):
        if image is None:
            samples.append(
                Sample(
                    {
                        "s1": Series(
                            torch.zeros(1, 2, 4, 4),
                            torch.ones(1, 4, 4).bool(),
                            undated(1),
                            "s1",
                        )
                    }
                )
            )
            continue
        valid = torch.ones(image.shape[1:]).bool() if mask is None else mask
        samples.append(Sample({"hr": Series(image[None], valid[None], undated(1), "rgb8")}))
    return collate(samples).modalities["hr"]


def ramp(height, width):
    """Values that grow along both axes, `(3, H, W)`."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    channels = int(part_of(torch.zeros(3, 4, 4)).pixels.shape[2])
    return torch.stack([10.0 * rows + columns + 100 * k for k in range(3)][:channels])


def test_a_constant_stays_one():
    constant = enlarge(part_of(torch.full((3, 10, 14), 7.0)), 35)
    torch.testing.assert_close(constant.pixels[:, :, :3], torch.full((1, 1, 3, 25, 35), 7.0))


def test_doubling_lies_between_the_pixels():
    doubled = enlarge(part_of(ramp(6, 6)), 12).pixels[0, 0, 0]

    places = torch.arange(12) / 2 - 0.25
    expected = (10 * places[:, None] + places)[1:-1, 1:-1]
    torch.testing.assert_close(doubled[1:-1, 1:-1], expected)


@pytest.mark.parametrize("least", [0, 1, 8, 9])
def test_what_is_large_enough_is_left_alone(least):
    part = part_of(ramp(6, 9), ramp(11, 3))
    assert enlarge(part, least) is part


@given(
    st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), min_size=1, max_size=4),
    st.integers(1, 24),
)
def test_each_image_of_a_padded_batch_is_as_alone(sizes, side):
    images = [ramp(*size) for size in sizes]

    together = enlarge(part_of(*images), side)

    assert together.sizes.max(1).values.tolist() == [max(side, *size) for size in sizes]
    for row, image in enumerate(images):
        alone = enlarge(part_of(image), side)
        h, w = together.sizes[row].tolist()
        assert (h, w) == tuple(alone.pixels.shape[-2:])
        torch.testing.assert_close(together.pixels[row, :, :, :h, :w], alone.pixels[0])
        mask = together.mask[row]
        assert bool(mask[:, :h, :w].all())
        assert int(mask.sum()) == h * w


def test_what_is_missing_has_no_part_in_what_is_known():
    image, mask = torch.full((3, 12, 12), 5.0), torch.ones(12, 12).bool()
    mask[:, :5] = False
    image[:, ~mask] = torch.nan

    for side in (24, 36):
        part = enlarge(part_of(image, masks=[mask]), side)
        known = part.mask[0, 0]
        assert known.float().mean(0).tolist() == [0.0] * (side * 5 // 12) + [1.0] * (
            side - side * 5 // 12
        )
        assert torch.equal(part.pixels[0, 0, :3, known], torch.full((3, int(known.sum())), 5.0))
        assert not part.pixels[0, 0, :, ~known].any()


@given(
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(0, 11),
    st.integers(0, 11),
    st.integers(1, 30),
)
def test_a_lone_measured_pixel_is_not_lost(height, width, row, column, least):
    mask = torch.zeros(height, width).bool()
    mask[row % height, column % width] = True
    image = torch.where(mask, 5.0, torch.nan).expand(3, height, width)

    part = enlarge(part_of(image, masks=[mask]), least)

    known = part.mask[0, 0]
    assert known.any()
    torch.testing.assert_close(part.pixels[0, 0, :3, known], torch.full((3, int(known.sum())), 5.0))


def test_an_absent_sample_stays_absent():
    part = enlarge(part_of(ramp(6, 6), None), 12)

    assert part.sizes.tolist() == [[12, 12], [0, 0]]
    assert not part.mask[1].any()
    assert not part.pixels[1].any()


def test_no_such_side():
    with pytest.raises(ValueError, match="or 0 for none, not -1"):
        enlarge(part_of(ramp(4, 4)), -1)


@pytest.mark.parametrize("pooling", [None, "stages"])
def test_embed_enlarges_images(shared, pooling):
    model = shared("v2_tiny")
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 24, 40), np.uint8)

    asked = model.embed(images, "rgb8", pooling=pooling, least_size=64)

    part = part_of(*(torch.from_numpy(image).float() for image in images))
    enlarged = enlarge(part, 64).pixels[:, 0, :3].numpy()
    as_stored = model.embed(enlarged, "rgb8", pooling=pooling)
    np.testing.assert_allclose(asked, as_stored, atol=1e-5)
    assert np.abs(asked - model.embed(images, "rgb8", pooling=pooling)).max() > 1e-2
