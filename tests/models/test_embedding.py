"""Arrays in, vectors out: what comes is checked, what is missing is masked."""

import dataclasses

import numpy as np
import pytest
import torch

from skysense.models.embedding import to_batch, to_series
from skysense.models.encoder import UntrainedModelWarning
from skysense.sample import Sample, Series, collate, undated
from skysense.sensors import SENSORS


@pytest.fixture(scope="module")
def model(shared):
    return shared("v2_tiny")


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (5, 3, 24, 40), np.uint8)


def test_vectors(model, images):
    vectors = model.embed(images, sensor="rgb8")

    assert vectors.shape == (5, 64)
    assert vectors.dtype == np.float32
    assert np.isfinite(vectors).all()
    assert np.abs(vectors - vectors[0]).max(1)[1:].min() > 1e-2


def test_it_is_the_pooled_vector_of_a_batch(model, images, run):
    series = Series(
        torch.from_numpy(images[:1]).float(), torch.ones(1, 24, 40).bool(), undated(1), "rgb8"
    )

    expected = run(model, Sample({"hr": series})).pooled.numpy()

    np.testing.assert_allclose(model.embed(images[:1], "rgb8"), expected, atol=1e-5)


@pytest.mark.parametrize(
    "convert",
    [
        list,
        tuple,
        torch.from_numpy,
        lambda x: [torch.from_numpy(i) for i in x],
        lambda x: torch.from_numpy(x).float().requires_grad_(),
        lambda x: x.astype(np.float64),
        lambda x: x.astype(np.int64),
        lambda x: torch.from_numpy(x).bfloat16(),
        lambda x: np.asfortranarray(x),
        lambda x: x.tolist(),
    ],
    ids=["list", "tuple", "torch", "torch list", "grad", "f8", "i8", "bf16", "fortran", "nested"],
)
def test_all_kinds_of_arrays(model, images, convert):
    expected = model.embed(images, "rgb8")

    np.testing.assert_allclose(model.embed(convert(images), "rgb8"), expected, atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 16])
def test_sizes_may_differ_and_batching_changes_nothing(model, batch_size):
    rng = np.random.default_rng(1)
    shapes = [(8, 8), (33, 70), (64, 64), (1, 1), (100, 5)]
    images = [rng.uniform(0, 255, (3, *shape)) for shape in shapes]

    vectors = model.embed(images, "rgb8", batch_size=batch_size)

    for image, vector in zip(images, vectors, strict=True):
        alone = model.embed([image], "rgb8")[0]
        np.testing.assert_allclose(vector, alone, atol=2e-5, rtol=1e-4)


def test_bands_may_come_in_another_order(model):
    names = [band.name for band in SENSORS["s2_l2a"].bands]
    images = np.random.default_rng(0).uniform(500, 4000, (2, 10, 16, 16))
    expected = model.embed(images, "s2_l2a")
    order = [9, 3, 0, 7, 6, 5, 1, 2, 8, 4]
    extra = np.concatenate([images[:, order], np.full((2, 1, 16, 16), 1e9)], 1)

    again = model.embed(extra, "s2_l2a", bands=[*(names[i] for i in order), "QA60"])

    assert np.array_equal(again, expected)
    assert not np.allclose(model.embed(images[:, order], "s2_l2a"), expected, atol=1e-2)


def test_bands_under_other_names(model, images):
    expected = model.embed(images, "rgb8")

    bgr = model.embed(images[:, ::-1], "rgb8", bands=["Blue", "Green", "B04 - Red"])

    assert np.array_equal(bgr, expected)


def test_landsat_feeds_the_channels_it_measures(model):
    images = np.random.default_rng(0).uniform(8000, 20000, (1, 6, 16, 16))

    series = to_series(images[0], SENSORS["landsat_c2_l2"])

    assert series.pixels.shape == (1, 10, 16, 16)
    np.testing.assert_allclose(series.pixels[0, 7], images[0, 3] * 2.75e-5 - 0.2, rtol=1e-5)
    assert (series.pixels[0, 3:7] == 0).all()
    assert model.embed(images, "landsat_c2_l2").shape == (1, 64)


@pytest.mark.parametrize("batch", [True, False])
def test_masks_of_numpy_arrays_count(model, images, batch):
    """As `rasterio.read(masked=True)` gives them."""
    mask = np.zeros(images.shape, bool)
    mask[:, :, :, :20] = True
    mask[:, 1, :5] = True
    holes = np.where(mask.any(1, keepdims=True), np.nan, images.astype(np.float32))
    masked = np.ma.masked_array(images, mask)
    found = model.embed(masked if batch else list(masked), "rgb8")
    np.testing.assert_array_equal(found, model.embed(holes, "rgb8"))


def test_missing_pixels_are_masked(model, images):
    holes = images.astype(np.float32)
    holes[:, 1, :10, :13] = np.nan
    holes[:, 0, 12, 13] = np.inf
    filled = np.where(np.isfinite(holes).all(1, keepdims=True), images, 77.0)

    vectors = model.embed(holes, "rgb8")

    assert np.isfinite(vectors).all()
    assert np.abs(vectors - model.embed(filled, "rgb8")).max() > 1e-3
    mask = to_series(holes[0], SENSORS["rgb8"]).mask[0]
    assert not mask[:10, :13].any()
    assert mask.sum() == 24 * 40 - 10 * 13 - 1


def test_nodata_of_the_card_is_masked():
    image = np.full((10, 4, 4), 1500, np.uint16)
    image[:, 1, 2] = 0

    series = to_series(image, SENSORS["s2_l2a"])

    assert (~series.mask).nonzero().tolist() == [[0, 1, 2]]
    assert (series.pixels[0, :, 1, 2] == 0).all()


def test_powers_that_are_not_positive_are_masked():
    image = np.full((2, 4, 4), 0.05)
    image[0, 0, 0], image[1, 3, 3] = -1e-3, 0

    mask = to_series(image, SENSORS["s1_linear"]).mask[0]

    assert mask.sum() == 14


def test_numbers_too_large_for_float32_are_masked():
    image = np.full((3, 4, 4), 100.0)
    image[0, 0, 0] = -np.finfo(np.float64).max  # a usual nodata value

    assert to_series(image, SENSORS["rgb8"]).mask.sum() == 15


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        (lambda x: x[0], {}, r"`images` is one image; pass a list, or \(N, C, H, W\)"),
        (lambda x: torch.from_numpy(x[0]), {}, "`images` is one image"),
        (lambda x: [], {}, "`images` is empty"),
        (lambda x: x[:0], {}, "`images` is empty"),
        (lambda x: x[:, :2], {}, r"shape \(2, 24, 40\), expected \(3, H, W\) with bands R, G, B; "),
        (lambda x: x[:, :2], {}, "name them with `bands`"),
        (lambda x: x.transpose(0, 2, 3, 1), {}, r"bands come first: image.transpose\(2, 0, 1\)"),
        (
            lambda x: ["a.png"],
            {},
            r"array \(C, H, W\) of numbers.*; got one of shape \(\)",
        ),
        (lambda x: x, {"bands": "R,G,B"}, "`bands` is 'R,G,B': give a list of names"),
        (lambda x: x, {"batch_size": 0}, "`batch_size` is 0: give 1 or more"),
        (lambda x: x, {"batch_size": -1}, "`batch_size` is -1"),
        (
            lambda x: x,
            {"sensor": "s2"},
            r"shape \(3, 24, 40\), expected \(10, H, W\) with bands B2",
        ),
        (lambda x: [x[0], x[0, 0]], {}, r"array \(C, H, W\) .*; got one of shape \(24, 40\)"),
        (lambda x: x, {"sensor": "s3"}, "unknown sensor `s3`"),
        (lambda x: x, {"bands": ["R", "G"]}, r"expected \(2, H, W\) with bands R, G"),
        (lambda x: x, {"bands": ["R", "G", "N"]}, "sensor `rgb8` needs B; found R, G, N"),
        (lambda x: x, {"bands": ["R", "G", "G"]}, "2 bands claim to be G"),
        (lambda x: x.astype(complex), {}, "expects real numbers, got complex128"),
        (lambda x: torch.from_numpy(x).cfloat(), {}, "expects real numbers, got complex64"),
        (lambda x: [x[0], np.full((3, 8, 8), np.nan)], {}, r"images \[1\] hold no valid pixel"),
        (lambda x: x[:, :, :0], {}, "empty"),
        (lambda x: 1000.0 * x + 1000, {}, "the median value is .* sensor `rgb8`.*scaling"),
        (
            lambda x: x / 255.0,
            {},
            "0 to 1, but sensor `rgb8` expects 8-bit .* times 255",
        ),
        (lambda x: torch.from_numpy(x) / 255, {}, "give them times 255"),
        (
            lambda x: np.full((1, 10, 8, 8), 0.2),
            {"sensor": "s2_l2a"},
            "the median value is 2e-05 reflectance read as sensor `s2_l2a`",
        ),
        (
            lambda x: np.full((1, 10, 8, 8), 1500),
            {"sensor": "s2"},
            "the median value is 1500 reflectance read as sensor `s2`",
        ),
        (
            lambda x: np.full((1, 2, 8, 8), 0.05),
            {"sensor": "s1"},
            "the median value is 0.05 dB read as sensor `s1`",
        ),
    ],
)
def test_what_does_not_fit_is_refused(model, images, make, options, message):
    with pytest.raises(ValueError, match=message):
        model.embed(make(images), **{"sensor": "rgb8", **options})


def test_the_wrong_image_of_many_is_found(model, images):
    many = [image.astype(np.float32) for image in images]
    many[3] = np.full((3, 8, 8), np.nan)

    with pytest.raises(ValueError, match=r"images \[3\] hold no valid pixel"):
        model.embed(many, "rgb8", batch_size=2)


def test_training_mode_is_left_and_restored(fresh, images):
    model = fresh("v2_tiny").train()
    expected = fresh("v2_tiny").embed(images, "rgb8")

    assert np.array_equal(model.embed(images, "rgb8"), expected)
    assert model.training
    with pytest.raises(ValueError, match="empty"):
        model.embed([], "rgb8")
    assert model.training
    assert all(p.grad is None for p in model.parameters())


def test_an_untrained_model_warns_here_too(fresh, images):
    model = fresh("v2_tiny").train()
    model.trained = False

    with pytest.warns(UntrainedModelWarning, match="structure of the input and no learned meaning"):
        model.embed(images, "rgb8")


def test_sensors_of_one_modality_share_a_tokenizer(model):
    """The same ground under other cards: stored numbers differ, vectors do not."""
    reflectance = np.random.default_rng(0).uniform(0.05, 0.4, (2, 10, 16, 16))
    expected = model.embed(reflectance, "s2")

    for name in ("s2_l2a", "s2_l2a_n0400"):
        card = SENSORS[name]
        stored = (reflectance - card.offset) / card.scale
        np.testing.assert_allclose(model.embed(stored, name), expected, atol=1e-3)


def test_to_series_is_undated_and_complete():
    series = to_series(np.full((1, 4, 4), -12.0), SENSORS["s1_vv"])

    assert dataclasses.asdict(series)["sensor"] == "s1_vv"
    assert np.isnat(series.dates).tolist() == [True]
    assert series.pixels.shape == (1, 2, 4, 4)


def test_a_pixel_is_missing_where_all_bands_are_nodata():
    """The same rule as for files: a zero in one band of Sentinel-2 is a dark pixel."""
    image = np.full((10, 6, 6), 1500, np.uint16)
    image[0, :3] = 0
    image[:, 4:] = 0
    series = to_series(image, SENSORS["s2_l2a"])

    assert series.mask[0, :4].all()
    assert not series.mask[0, 4:].any()


@pytest.mark.parametrize("name", ["rgb8", "s2_l2a", "s1_linear", "landsat_c2_l2", "naip_rgbn"])
def test_a_batch_at_once_is_the_samples_side_by_side(name):
    card = SENSORS[name]
    stored = np.random.default_rng(0).uniform(0.01, 1, (4, len(card.bands), 6, 5))
    images = (stored if name == "s1_linear" else stored * 200 + 8000 * (card.scale < 1)).astype(
        np.uint16 if card.scale < 1 else np.float32
    )
    if images.dtype == np.float32:
        images[1, :, 2:4] = np.nan
    images[2, :, :2] = 0 if card.nodata is None else card.nodata

    at_once = to_batch(list(images), card)
    one_by_one = collate([Sample({card.modality: to_series(image, card)}) for image in images])

    assert torch.equal(at_once.location.isnan(), one_by_one.location.isnan())
    assert at_once.grids == one_by_one.grids
    ours, theirs = at_once.modalities[card.modality], one_by_one.modalities[card.modality]
    assert ours.sensors == theirs.sensors
    for field in ("pixels", "mask", "days", "sizes"):
        torch.testing.assert_close(getattr(ours, field), getattr(theirs, field), rtol=0, atol=0)


def test_one_image_of_another_scale_among_good_ones_is_refused(model):
    images = np.full((3, 10, 8, 8), 2000, np.uint16)
    images[1] = 60000
    with pytest.raises(ValueError, match="the median value is"):
        model.embed(images, "s2_l2a")


def test_one_image_of_fractions_among_good_ones_is_refused(model, images):
    many = images.astype(np.float32)
    many[3] /= 255
    with pytest.raises(ValueError, match="numbers of 0 to 1"):
        model.embed(many, "rgb8")
    many[3] = 0
    assert np.isfinite(model.embed(many, "rgb8")).all(), "black is black"
