"""Arrays are read like the files of the same pixels, lazily, window by window."""

import numpy as np
import pytest
import rasterio
from rasterio import windows

from skysense.data.arrays import scene_from_xarray
from skysense.data.scene import SceneReader, open_scene
from skysense.geo import Window

xarray = pytest.importorskip("xarray")

ALL = ("B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B11", "B12")
DAYS = ("2021-03-01", "2021-07-01")
UTM = "EPSG:32632"


def pixels(seed=0, side=24, count=10):
    return np.random.default_rng(seed).integers(1, 4000, (count, side, side)).astype(np.uint16)


def centres(side, size=10.0, x=600_000.0, y=5_340_000.0):
    steps = (np.arange(side) + 0.5) * size
    return {"y": y - steps, "x": x + steps}


def cube(crs=UTM, side=24, size=10.0, **place):
    """`(time, band, y, x)` as rioxarray has it."""
    values = np.stack([pixels(seed, side) for seed in range(len(DAYS))])
    array = xarray.DataArray(
        values,
        dims=("time", "band", "y", "x"),
        coords={
            "time": np.array(DAYS, "datetime64[ns]"),
            "band": list(ALL),
            **centres(side, size, **place),
        },
    )
    if crs:
        wkt = rasterio.crs.CRS.from_user_input(crs).to_wkt()
        array = array.assign_coords(spatial_ref=xarray.Variable((), 0, {"crs_wkt": wkt}))
    return array


def files(raster, side=24):
    return [raster(f"s2_{day}.tif", pixels(seed, side), ALL) for seed, day in enumerate(DAYS)]


def read(scene, window=None, scale=False, **options):
    with SceneReader(scene, **options) as reader:
        if scale:
            reader.check_scale()
        return reader.read(window or Window(0, 0, *scene.grid.shape))


def assert_equal(first, second):
    assert first.series.keys() == second.series.keys()
    assert first.grid == second.grid
    assert first.location == second.location
    for key, series in first.series.items():
        other = second.series[key]
        np.testing.assert_array_equal(series.pixels, other.pixels)
        np.testing.assert_array_equal(series.mask, other.mask)
        np.testing.assert_array_equal(series.dates, other.dates)
        assert series.sensor == other.sensor


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("form", ["array", "turned", "variables", "one variable"])
def test_equal_to_files_of_the_same_pixels(raster, form, lazy):
    array = cube()
    if lazy:
        pytest.importorskip("dask")
        array = array.chunk({"time": 1, "band": 3, "y": 16, "x": 24})
    data = {
        "array": lambda: array,
        "turned": lambda: array.transpose("x", "band", "y", "time"),
        "variables": lambda: array.to_dataset("band"),
        "one variable": lambda: array.to_dataset(name="reflectance"),
    }[form]()
    scene = scene_from_xarray({"s2": data})
    expected = open_scene({"s2": files(raster)}, {"s2": "s2_l2a"})
    assert scene.files == []
    assert_equal(read(scene), read(expected))
    window = Window(3, 5, 11, 30)
    assert_equal(read(scene, window), read(expected, window))


def test_only_the_pixels_of_a_window_are_computed():
    dask = pytest.importorskip("dask.array")
    asked = []

    def block(block_info=None):
        place = block_info[None]["array-location"]
        asked.append(tuple(place[-2:]))
        return np.full([b - a for a, b in place], 1000, np.uint16)

    chunks = ((1,), (10,), (8, 8, 8), (8, 8, 8))
    array = cube()[:1].copy(data=dask.map_blocks(block, chunks=chunks, dtype=np.uint16))
    scene = scene_from_xarray({"s2": array})
    asked.clear()
    with SceneReader(scene) as reader:
        reader.read(Window(0, 8, 8, 8))
    assert set(asked) == {((0, 8), (8, 16))}


@pytest.mark.parametrize("crs", [UTM, "EPSG:32633"])
def test_arrays_are_warped_as_files_are(raster, crs):
    """Radar of 20 m, half a pixel off, or of the neighbouring zone."""
    power = np.random.default_rng(0).uniform(0.01, 0.1, (2, 40, 40)).astype(np.float32)
    power[:, :, :3] = np.nan
    from pyproj import Transformer

    x, y = Transformer.from_crs(UTM, crs, always_xy=True).transform(599_893, 5_340_107)
    path = raster(
        "s1_20210101.tif",
        power,
        ("VV", "VH"),
        transform=(20.0, 0.0, x, 0.0, -20.0, y),
        crs=crs,
    )
    array = xarray.DataArray(
        power, dims=("band", "y", "x"), coords={"band": ["VV", "VH"], **centres(40, 20.0, x, y)}
    )
    array = array.assign_coords(time=np.datetime64("2021-01-01", "ns"))
    array.attrs["crs"] = crs
    sensors = {"s2": "s2_l2a", "s1": "s1_linear"}
    own = read(scene_from_xarray({"s2": cube(), "s1": array}, sensors))
    other = read(open_scene({"s2": files(raster), "s1": [path]}, sensors))
    for key in ("s2", "s1"):
        series, expected = own.series[key], other.series[key]
        np.testing.assert_array_equal(series.dates, expected.dates)
        assert (series.mask == expected.mask).float().mean() > 0.99
        both = (series.mask & expected.mask)[:, None].expand_as(series.pixels)
        np.testing.assert_allclose(series.pixels[both], expected.pixels[both], atol=0.3)


def test_windows_of_a_warped_array_are_parts_of_the_whole():
    array = cube(size=20.0, x=599_893.0, y=5_340_107.0, side=40)
    hr = xarray.DataArray(
        np.full((3, 48, 48), 100, np.uint8),
        dims=("band", "y", "x"),
        coords={"band": ["R", "G", "B"], **centres(48, 5.0)},
        attrs={"crs": UTM},
    )
    scene = scene_from_xarray({"hr": hr, "s2": array})
    whole, part = read(scene, scale=True), read(scene, Window(8, 16, 16, 24))
    ratio = scene.ratios["s2"]
    rows, cols = slice(8 // ratio, 24 // ratio), slice(16 // ratio, 40 // ratio)
    np.testing.assert_array_equal(part.series["s2"].mask, whole.series["s2"].mask[..., rows, cols])
    np.testing.assert_allclose(
        part.series["s2"].pixels, whole.series["s2"].pixels[..., rows, cols], rtol=1e-5
    )


def test_clouds_and_missing_values():
    data = cube().to_dataset("band")
    classes = np.full((2, 24, 24), 4, np.uint8)
    classes[0, :6] = 9
    classes[1, :, :18] = 8
    data["SCL"] = (("time", "y", "x"), classes)
    data["B2"][0, -1, -1] = 0
    for name in ALL:
        data[name][0, 20, 20] = 0
    mask = read(scene_from_xarray({"s2": data})).series["s2"].mask.numpy()
    assert not mask[0, :6].any()
    assert not mask[0, 20, 20]
    assert mask[0, -1, -1], "one band that is 0 is not missing"
    assert mask[0].sum() == 18 * 24 - 1
    with pytest.warns(UserWarning, match=r"s2: left out 1 of 2 dates.*2021-07-01 \(0\.75\)"):
        scene = scene_from_xarray({"s2": data}, max_cloud=0.5)
    assert scene.layers["s2"].dates.tolist() == [np.datetime64(DAYS[0]).item()]


def test_declared_missing_value_and_box():
    array = cube(crs=None)
    array.attrs["_FillValue"] = 7
    array[:, :, 0] = 7
    scene = scene_from_xarray({"s2": array}, crs=UTM, bbox=(10.3, 48.1, 10.346, 48.3))
    assert scene.grid.shape[0] == 24
    assert 0 < scene.grid.shape[1] < 24
    mask = read(scene).series["s2"].mask
    assert not mask[:, 0].any()
    assert mask[:, 1:].all()


def bad(change):
    array = cube()
    return change(array)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.drop_vars("spatial_ref"), "nothing tells the coordinate system"),
        (lambda a: a.drop_vars("x"), "'x' has no coordinates"),
        (lambda a: a.assign_coords(x=a.x + (a.x - 6e5) ** 2), "not at equal steps"),
        (lambda a: a.drop_vars("band"), "the bands have no names"),
        (lambda a: a.rename(y="north"), "the dimensions are time, band, north, x"),
        (lambda a: a.expand_dims("level"), "cannot use the dimension level"),
        (lambda a: a.isel(y=slice(1)), "one coordinate along 'y'"),
        (lambda a: a.isel(y=slice(0)), "empty"),
        (lambda a: a.isel(band=slice(9)), "needs B12 of 2021-03-01"),
        (lambda a: a.assign_coords(time=["spring", "summer"]), "holds no dates"),
    ],
)
def test_data_that_cannot_be_used(change, message):
    with pytest.raises(ValueError, match=message) as error:
        scene_from_xarray({"s2": change(cube())})
    assert "\n" not in str(error.value)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="no data"):
        scene_from_xarray({})
    with pytest.raises(ValueError, match="unknown modality `sentinel`"):
        scene_from_xarray({"sentinel": cube()})
    with pytest.raises(ValueError, match="sensor `s1` is s1, not s2"):
        scene_from_xarray({"s2": cube()}, {"s2": "s1"})
    with pytest.raises(ValueError, match="is no coordinate system"):
        scene_from_xarray({"s2": cube(crs=None).assign_attrs(crs="EPSG:none")})


@pytest.mark.parametrize(
    "times",
    [
        np.array([2019, 2020]),
        np.array([20190610, 20200610]),
        np.array([2019.0, 2020.5]),
        np.array([2019, np.int64(2020)], object),
        np.array(["20190610", "20200610"]),
        np.array([0, 86_400], "timedelta64[s]"),
    ],
    ids=str,
)
def test_numbers_are_no_dates(times):
    with pytest.raises(ValueError, match=r"'time' holds no dates, but .*decode_times") as error:
        scene_from_xarray({"s2": cube().assign_coords(time=times)})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "times",
    [
        np.array(DAYS),
        np.array(DAYS, "S"),
        np.array(DAYS, object),
        np.array(DAYS, "datetime64[s]").astype(object),
        np.array([f"{day}T10:00:00Z" for day in DAYS]),
    ],
    ids=str,
)
def test_texts_and_objects_that_are_dates(times):
    scene = scene_from_xarray({"s2": cube().assign_coords(time=times)})
    assert scene.layers["s2"].dates.tolist() == [np.datetime64(day).item() for day in DAYS]


def test_a_day_that_is_missing():
    times = np.array([DAYS[0], "NaT"], "datetime64[ns]")
    dates = scene_from_xarray({"s2": cube().assign_coords(time=times)}).layers["s2"].dates
    assert np.isnat(dates).tolist() == [False, True]


@pytest.mark.parametrize("form", ["array", "variables"])
def test_scale_and_offset_of_the_attributes(form):
    """As rioxarray leaves them: 3000 is 0.2 here; classes beside keep their numbers."""
    array = cube()
    array[:] = 3000
    array[:, :, 0] = 7
    array.attrs |= {"scale_factor": 1e-4, "add_offset": -0.1, "_FillValue": 7}
    if form == "variables":
        data = array.to_dataset("band")
        for name in ALL:
            data[name].attrs = array.attrs
        data["SCL"] = (("time", "y", "x"), np.full((2, 24, 24), 4, np.uint8))
    else:
        classes = xarray.full_like(array.isel(band=[0]), 4).assign_coords(band=["SCL"])
        data = xarray.concat([array, classes], "band", combine_attrs="override")
        assert data.attrs["scale_factor"] == 1e-4
    series = read(scene_from_xarray({"s2": data}), scale=True).series["s2"]
    assert not series.mask[:, 0].any(), "the missing value is one of stored numbers"
    assert series.mask[:, 1:].all()
    np.testing.assert_allclose(series.pixels[:, :, 1:], 0.2, rtol=1e-6)


def test_scales_that_differ_between_bands():
    """As rioxarray leaves them then."""
    array = cube()
    array[:] = 3000
    array.attrs |= {"scales": (1e-4,) * 9 + (2e-4,), "offsets": [-0.1] * 9 + [-0.4]}
    series = read(scene_from_xarray({"s2": array}), scale=True).series["s2"]
    np.testing.assert_allclose(series.pixels, 0.2, rtol=1e-6)


def test_attributes_that_say_nothing_of_the_scale():
    """What rioxarray writes for a file without scale."""
    array = cube()
    plain = read(scene_from_xarray({"s2": array}))
    array.attrs |= {"scale_factor": 1.0, "add_offset": 0.0}
    assert_equal(read(scene_from_xarray({"s2": array})), plain)
    array.attrs["scale_factor"] = "many"
    with pytest.raises(ValueError, match=r"s2 array.*scale_factor 'many'.* are no numbers"):
        scene_from_xarray({"s2": array})


@pytest.mark.parametrize("lazy", [False, True])
def test_thinned_pixels_are_the_middle_ones_as_of_a_file(raster, lazy):
    values = pixels(side=60)
    path = raster("a.tif", values, ALL)
    array = cube(side=60)[0].copy(data=values)
    if lazy:
        pytest.importorskip("dask")
        array = array.chunk({"y": 16})
    scene = scene_from_xarray({"s2": array})
    source, _ = scene.layers["s2"].acquisitions[0].sources["B2"]
    window, shape = Window(7, 3, 50, 44), (2, 4, 3)
    place = windows.Window(window.col, window.row, window.width, window.height)
    with rasterio.open(path) as file:
        expected = file.read([1, 10], window=place, out_shape=shape)
    np.testing.assert_array_equal(
        source.open().read([1, 10], window=place, out_shape=shape), expected
    )
