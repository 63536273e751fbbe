"""One file read onto any grid: the right place, the right values, and what is missing masked."""

from dataclasses import replace

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer
from rasterio.enums import ColorInterp

from skysense.data.rasters import inspect
from skysense.data.warping import GridReader
from skysense.geo import Grid, Window

NAMES = ("R", "G", "B")
SHAPE = (32, 48)
HALF = np.arange(SHAPE[1]) < SHAPE[1] // 2  # the west is measured
MASK = np.broadcast_to(np.where(HALF, 255, 0), SHAPE).astype(np.uint8)
RGBA = [getattr(ColorInterp, colour) for colour in ("red", "green", "blue", "alpha")]


def noise(count=3, shape=SHAPE, seed=0):
    """Bytes from 20 to 199, as float64."""
    return np.random.default_rng(seed).integers(20, 200, (count, *shape)).astype(np.float64)


def read(path, grid=None, window=None, nodata=None, indexes=None, nearest=False):
    facts = inspect(path)
    grid = grid or facts.grid
    reader = GridReader(facts, grid, nodata, nearest)
    try:
        every = range(min(3, len(facts.names)))
        return reader.read(list(indexes or every), window or Window(0, 0, *grid.shape))
    finally:
        reader.close()


@pytest.mark.parametrize(
    ("dtype", "nodata", "one_is_enough"),
    [
        ("float32", -9999, True),
        ("float32", 0, False),
        ("uint16", 65535, True),
        ("uint16", 0, False),
        ("int16", -32768, True),
        ("uint8", 255, False),
    ],
)
def test_nodata_in_one_band(raster, dtype, nodata, one_is_enough):
    """What cannot be a measurement makes the pixel missing; 0 and 255 may be ones."""
    pixels = noise().astype(dtype)
    pixels[1, :8] = nodata
    pixels[:, 8:12] = nodata
    path = raster("one.tif", pixels, NAMES, nodata=nodata)
    for grid in (None, finer(inspect(path).grid)):
        values, valid = read(path, grid)
        half = valid[:: valid.shape[0] // SHAPE[0]]
        assert half[13:].all()
        assert not half[8:12].any()
        assert half[:7].any() != one_is_enough
        assert half[:7].all() != one_is_enough
        assert not one_is_enough or not (values == nodata).any()


def finer(grid, factor=2, shift=0.0):
    """The same ground in smaller pixels, moved by a part of one."""
    a, b, c, d, e, f = grid.rescaled(1 / factor).transform
    shape = (grid.shape[0] * factor, grid.shape[1] * factor)
    return Grid(grid.crs, (a, b, c + shift * a, d, e, f), shape)


@given(
    row=st.integers(-40, 40), col=st.integers(-60, 60), size=st.tuples(*[st.integers(1, 30)] * 2)
)
@settings(max_examples=30, deadline=None)
def test_windows_that_stick_out_are_the_file_surrounded_by_nothing(
    tmp_path_factory, row, col, size
):
    path = tmp_path_factory.getbasetemp() / "sticks_out.tif"
    pixels = noise()
    if not path.exists():
        facts = {"crs": "EPSG:32632", "transform": rasterio.Affine(10, 0, 6e5, 0, -10, 5.3e6)}
        with rasterio.open(
            path, "w", count=3, height=32, width=48, dtype="float64", driver="GTiff", **facts
        ) as file:
            file.write(pixels)
    values, valid = read(path, window=Window(row, col, *size))
    around = np.pad(pixels, ((0, 0), (100, 100), (100, 100)))
    place = (slice(100 + row, 100 + row + size[0]), slice(100 + col, 100 + col + size[1]))
    np.testing.assert_array_equal(values, around[(slice(None), *place)])
    np.testing.assert_array_equal(valid, around[(0, *place)] > 0)


@pytest.mark.parametrize(
    "dtype",
    ["uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"],
)
def test_every_type_reads_the_same_straight_and_warped(raster, dtype):
    path = raster("a.tif", noise().astype(dtype), NAMES)
    values, valid = read(path)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, noise())
    assert valid.all()
    moved = finer(inspect(path).grid, shift=0.5).window(Window(0, 0, 64, 95))
    expected, _ = read(raster("b.tif", noise(), NAMES), moved)
    values, valid = read(path, moved)
    assert valid.all()
    np.testing.assert_allclose(values, expected, atol=1)  # integers are rounded


def missing(dtype, nodata):
    """Pixels whose east holds the nodata value."""
    return {
        "pixels": np.where(HALF, noise(), np.float64(nodata)).astype(dtype),
        "nodata": nodata,
        "dtype": dtype,
    }


SOURCES = {
    "nodata 0": missing("uint8", 0),
    "nodata 255": missing("uint8", 255),
    "nodata -9999": missing("float32", -9999),
    "nodata of int32": missing("int32", -(2**31)),
    "nodata of int64": missing("int64", -9999),
    "nodata of float32": missing("float32", float(np.finfo("float32").min)),
    "nodata of float64": missing("float64", float(np.finfo("float64").min)),
    "nodata NaN": missing("float32", float("nan")),
    "nodata infinite": missing("float32", float("inf")),
    "NaN, not declared": {"pixels": np.where(HALF, noise(), np.nan).astype("float32")},
    "too large for float32": {"pixels": np.where(HALF, noise(), 1e300)},
    "mask inside": {"pixels": noise().astype("uint8"), "mask": MASK},
    "alpha": {
        "pixels": np.concatenate([noise(), MASK[None]]).astype("uint8"),
        "names": None,
        "colours": RGBA,
    },
    "alpha by name": {
        "pixels": np.concatenate([noise(), MASK[None]]).astype("uint8"),
        "names": (*NAMES, "alpha"),
        "colours": RGBA,
    },
}


@pytest.fixture(params=SOURCES)
def half(request, raster):
    """A file whose eastern half is missing, in one of many ways."""
    return raster("half.tif", **{"names": NAMES, **SOURCES[request.param]})


def test_the_missing_half_is_masked_straight(half):
    values, valid = read(half)
    np.testing.assert_array_equal(valid, np.broadcast_to(HALF, SHAPE))
    np.testing.assert_array_equal(values, np.where(HALF, noise(), 0))


@pytest.mark.parametrize("crs", ["EPSG:32632", "EPSG:25832"])
def test_the_missing_half_is_masked_when_warped(half, crs):
    grid = finer(inspect(half).grid, shift=0.25)
    values, valid = read(half, Grid(crs, grid.transform, grid.shape))
    middle = SHAPE[1]
    assert valid[:, : middle - 2].all()
    assert not valid[:, middle + 2 :].any()
    assert not values[:, ~valid].any()
    low, high = values[:, valid].min(), values[:, valid].max()
    assert (low, high) == (pytest.approx(20, abs=8), pytest.approx(199, abs=8)), (
        "no nodata mixed in"
    )


def test_a_mask_beside_the_file(raster):
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False):
        path = raster("a.tif", noise().astype("uint8"), NAMES, mask=MASK)
    assert path.with_name("a.tif.msk").exists()
    _, valid = read(path)
    np.testing.assert_array_equal(valid, np.broadcast_to(HALF, SHAPE))
    _, valid = read(path, finer(inspect(path).grid))
    np.testing.assert_array_equal(valid[:, ::2], np.broadcast_to(HALF, (64, 48)))


@pytest.mark.parametrize("warped", [False, True])
@pytest.mark.parametrize("form", ["inside", "beside", "alpha"])
def test_a_mask_that_the_description_does_not_tell_of(raster, form, warped):
    """A catalog tells grid and type, and nothing of masks."""
    pixels = noise(1).astype("uint8")
    if form == "alpha":
        path = raster("a.tif", np.concatenate([*[pixels] * 3, MASK[None]]), colours=RGBA)
    else:
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=form == "inside"):
            path = raster("a.tif", pixels, mask=MASK)
    known = inspect(path)
    told = replace(known, masked=False, alpha=None, names=("R",))
    grid = finer(known.grid, shift=0.25) if warped else known.grid
    whole = Window(0, 0, *grid.shape)
    valids = []
    for facts in (known, told):
        reader = GridReader(facts, grid, None)
        valids.append(reader.read([0], whole)[1])
        reader.close()
    np.testing.assert_array_equal(valids[1], valids[0])
    assert 0 < valids[1].mean() < 0.6


def test_a_pixel_is_missing_where_all_bands_hold_nodata(raster):
    pixels = noise().astype("uint8")
    pixels[0, :, :10] = 0
    pixels[:, :, :5] = 0
    _, valid = read(raster("a.tif", pixels, NAMES, nodata=0))
    np.testing.assert_array_equal(valid, np.broadcast_to(np.arange(48) >= 5, SHAPE))


def test_nodata_of_the_card_where_the_file_declares_none(raster):
    pixels = np.where(HALF, noise(), 0).astype("uint8")
    _, valid = read(raster("a.tif", pixels, NAMES), nodata=0.0)
    np.testing.assert_array_equal(valid, np.broadcast_to(HALF, SHAPE))
    _, valid = read(raster("b.tif", pixels, NAMES, nodata=7), nodata=0.0)
    assert valid.all(), "the file's own word counts"


@pytest.mark.parametrize("dtype", ["uint8", "int64"])
@pytest.mark.parametrize("name", ["naip.tif", "a & <b> 'c' \"d\" ü.tif"])
def test_near_infrared_coloured_as_alpha_masks_nothing(raster, name, dtype):
    """Dark near infrared is water, not a hole."""
    pixels = np.concatenate([noise(), np.where(HALF, 90, 0) * np.ones((1, *SHAPE))]).astype(dtype)
    path = raster(name, pixels, (*NAMES, "N"), colours=RGBA)
    assert inspect(path).false_alpha
    values, valid = read(path, indexes=[0, 3])
    assert valid.all()
    np.testing.assert_array_equal(values, pixels[[0, 3]])
    values, valid = read(path, finer(inspect(path).grid), indexes=[0, 3])
    assert valid.all()
    assert values[0].mean() == pytest.approx(pixels[0].mean(), rel=0.02)


def test_halves_of_pixels_are_interpolated(raster):
    ramp = np.broadcast_to(np.arange(48.0), (1, *SHAPE))
    path = raster("a.tif", ramp.astype("float32"), ("R",))
    grid = inspect(path).grid
    values, _ = read(path, finer(grid))
    np.testing.assert_allclose(values[0, 5, 2:8], [0.75, 1.25, 1.75, 2.25, 2.75, 3.25], atol=1e-4)
    nearest, _ = read(path, finer(grid), nearest=True)
    np.testing.assert_array_equal(nearest[0, 5, 2:8], [1, 1, 2, 2, 3, 3])


def test_coarser_pixels_are_means(raster):
    path = raster("a.tif", noise().astype("float32"), NAMES)
    values, _ = read(path, inspect(path).grid.rescaled(4))
    blocks = noise().reshape(3, 8, 4, 12, 4).mean((2, 4))
    np.testing.assert_allclose(values, blocks, rtol=1e-5)


@pytest.mark.parametrize("south_up", [False, True])
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("crs", ["EPSG:32632", "EPSG:32633", "EPSG:4326"])
def test_place_survives_any_grid(raster, crs, south_up, mirrored):
    """A file whose pixels hold their own easting and northing, in km, read on other grids."""
    transform = (
        -10.0 if mirrored else 10.0,
        0.0,
        700_000.0 + 1000 * mirrored,
        0.0,
        10.0 if south_up else -10.0,
        5_340_000.0 - 1000 * south_up,
    )
    own = Grid("EPSG:32632", transform, (100, 100))
    rows, cols = np.indices((100, 100)) + 0.5
    x, y = (np.asarray(v) / 1000 for v in own.xy(rows, cols))
    path = raster("xy.tif", np.stack([x, y]), ("x", "y"), transform=transform)
    to = Transformer.from_crs(32632, crs, always_xy=True)
    left, top = to.transform(700_300, 5_339_700)
    step = 1e-4 if crs == "EPSG:4326" else 7.0
    grid = Grid(crs, (step, 0, left, 0, -step, top), (30, 40))
    values, valid = read(path, grid, indexes=[0, 1])
    assert valid.all()
    rows, cols = np.indices((30, 40)) + 0.5
    back = Transformer.from_crs(crs, 32632, always_xy=True)
    expected = np.stack(back.transform(*map(np.asarray, grid.xy(rows, cols)))) / 1000
    np.testing.assert_allclose(values, expected, atol=0.001)  # 1 m, a tenth of a pixel


def test_turned_grids(raster):
    turned = (8.0, 6.0, 600_000.0, 6.0, -8.0, 5_340_000.0)
    path = raster("a.tif", noise(), NAMES, transform=turned)
    values, valid = read(path)
    assert valid.all()
    np.testing.assert_array_equal(values, noise())
    north_up = Grid("EPSG:32632", (10, 0, 600_100, 0, -10, 5_340_000), (10, 10))
    values, valid = read(path, north_up)
    row, col = inspect(path).grid.rowcol(*north_up.xy(5.5, 5.5))
    assert valid[5, 5]
    near = noise()[:, int(row) - 1 : int(row) + 2, int(col) - 1 : int(col) + 2]
    assert (near.min((1, 2)) <= values[:, 5, 5]).all()
    assert (values[:, 5, 5] <= near.max((1, 2))).all()


@pytest.mark.parametrize("warped", [False, True])
def test_damage_is_said_with_the_file(raster, warped):
    path = raster(
        "bad.tif", noise(), NAMES, compress="deflate", tiled=True, blockxsize=16, blockysize=16
    )
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 4000] = b"\xff" * 4000
    path.write_bytes(data)
    grid = inspect(path).grid
    with pytest.raises(ValueError, match=r"bad\.tif: is truncated or damaged, reading failed"):
        read(path, finer(grid) if warped else grid)


def test_a_file_that_went_away(raster):
    facts = inspect(raster("gone.tif", noise(), NAMES))
    facts.path.unlink()
    with pytest.raises(ValueError, match=r"gone\.tif: cannot be read"):
        GridReader(facts, facts.grid, None)


@pytest.mark.parametrize("crs", ["EPSG:32632", "EPSG:32633", "EPSG:4326"])
@pytest.mark.parametrize("size", [3.0, 10.0, 40.0])
@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_windows_that_do_not_touch_hold_nothing(raster, crs, size, shift):
    path = raster("a.tif", noise().astype("uint8"), NAMES)
    facts = inspect(path)
    step = size if crs != "EPSG:4326" else size / 1e5
    left, top = Transformer.from_crs(32632, crs, always_xy=True).transform(600_200, 5_339_900)
    grid = Grid(crs, (step, 0, left - 60 * step, 0, -step, top + 60 * step), (120, 120))
    if crs == "EPSG:32632":
        left, top = 600_000 + shift * size - 40 * size, 5_340_000 + 40 * size
        grid = Grid(facts.grid.crs, (size, 0, left, 0, -size, top), (120, 120))
    reader = GridReader(facts, grid, None)
    held = 0
    for row in range(-24, 144, 8):
        for col in range(-24, 144, 8):
            window = Window(row, col, 8, 8)
            _, valid = reader.read([0], window)
            assert reader.touches(window) or not valid.any()
            held += valid.any()
    reader.close()
    assert held
    away = reader.touches(Window(5000, 5000, 8, 8))
    assert not away or crs == "EPSG:4326"
