"""A scene becomes a map: right numbers in the right place, NaN where nothing was seen."""

import json
import shutil
import threading

import numpy as np
import pytest
import rasterio
import torch
from pyproj import Transformer
from rasterio.warp import Resampling, calculate_default_transform, reproject

from skysense.data.scene import SceneReader
from skysense.geo import Window
from skysense.hub import load
from skysense.inference.embed import EmbedOptions, embed_scene
from skysense.inference.plan import make_plan
from skysense.layers.windows import SwinBlock
from skysense.models.skysense_v1 import V1_CONFIGS, SkySenseV1
from skysense.sample import collate

ALL = ("B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B11", "B12")
RNG = np.random.default_rng(0)
NOISE = RNG.integers(20, 200, (3, 128, 160)).astype(np.uint8)


def distance(first, second):
    """`(h, w)` between the vectors of two maps."""
    return np.sqrt(((first - second) ** 2).sum(0))


def difference(first, second):
    """The largest, relative to the spread of the values; both must miss the same cells."""
    np.testing.assert_array_equal(np.isnan(first), np.isnan(second))
    return np.nanmax(np.abs(first - second)) / np.nanstd(first)


def test_one_tile_is_the_model(files, opened, model, embed):
    scene = opened(**files)
    with SceneReader(scene) as reader:
        batch = collate([reader.read(Window(0, 0, *scene.grid.shape))])
    with torch.inference_mode():
        expected = model(batch).fused[0].numpy()
    np.testing.assert_allclose(embed(scene), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stage", [1, 4])
def test_one_tile_of_a_stage_is_the_mean_over_dates(files, opened, model, embed, stage):
    scene = opened(s2=files["s2"])
    with SceneReader(scene) as reader:
        batch = collate([reader.read(Window(0, 0, *scene.grid.shape))])
    with torch.inference_mode():
        expected = model(batch, last_stage=stage).pyramid["s2"][-1].values[0].mean(0).numpy()
    values = embed(scene, make_plan(model, scene, stage))
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "keys", [("hr",), ("s2",), ("s1",), ("hr", "s2"), ("s2", "s1"), ("hr", "s2", "s1")]
)
def test_any_subset_of_modalities(files, opened, embed, keys):
    values = embed(opened(**{key: files[key] for key in keys}))
    assert values.shape == (64, 8, 8), "cells of 40 m, whatever the finest is"
    assert np.isfinite(values).all()


def test_what_the_map_says(files, opened, embed):
    embed(opened(**files), dtype="int8", tags={"NOTE": "x"})
    with rasterio.open(embed.path) as file:
        assert file.crs.to_epsg() == 32632
        assert tuple(file.transform)[:6] == (40, 0, 600_000, 0, -40, 5_340_000)
        assert file.descriptions[:2] == ("feature_0000", "feature_0001")
        tags = file.tags()
    assert tags["SKYSENSE_MODEL"] == "v2_tiny"
    assert tags["SKYSENSE_STAGE"] == "fused"
    assert tags["SKYSENSE_HR"] == "rgb8 undated"
    assert tags["SKYSENSE_S1"].startswith("s1 2021-")
    assert len(tags["SKYSENSE_S2"].split()) == 4
    assert tags["NOTE"] == "x"
    names = sorted(path.name for path in embed.path.parent.iterdir())
    assert names == ["map.json", "map.tif"]


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_batches_and_runs_do_not_show(raster, opened, model, embed, batch_size):
    scene = opened(hr=raster("a.tif", NOISE))
    plan = make_plan(model, scene, tile=64, overlap=32)
    seen = []
    values = embed(scene, plan, progress=seen.append, batch_size=batch_size)
    assert sum(seen) == plan.tiling.count == 12
    assert difference(values, embed(scene, plan, batch_size=4)) < 1e-4


def test_tiles_meet_without_overlap(raster, opened, model, embed):
    """Where tiles do not overlap each cell is its tile's own."""
    scene = opened(hr=raster("a.tif", NOISE))
    plan = make_plan(model, scene, tile=64, overlap=0)
    values = embed(scene, plan)
    tile = Window(64, 64, 64, 64)
    with SceneReader(scene) as reader, torch.inference_mode():
        expected = model(collate([reader.read(tile)])).fused[0].numpy()
    np.testing.assert_allclose(values[:, 2:4, 2:4], expected, rtol=1e-4, atol=1e-5)


def test_progress_counts_tiles_without_a_valid_pixel_too(raster, opened, model, embed):
    pixels = NOISE.copy()
    pixels[:, :, 32:] = 0
    scene = opened(hr=raster("a.tif", pixels, nodata=0))
    plan = make_plan(model, scene, tile=32, overlap=0)
    seen = []
    values = embed(scene, plan, progress=seen.append)
    assert sum(seen) == plan.tiling.count
    np.testing.assert_array_equal(np.isnan(values[0]), np.arange(5)[None].repeat(4, 0) >= 1)


def holes(nodata, dtype):
    """Noise with a hole of whole cells and one of single pixels."""
    pixels = NOISE.astype(dtype)
    pixels[:, :64, 96:] = nodata
    pixels[:, 70:75, 3:40] = nodata
    return pixels


def test_missing_is_the_same_whatever_stands_for_it(raster, opened, embed):
    maps = [
        embed(opened(hr=raster(f"{i}.tif", holes(nodata, dtype), nodata=declared)))
        for i, (nodata, dtype, declared) in enumerate(
            [
                (0, "uint8", 0),
                (255, "uint8", 255),
                (-9999, "float32", -9999),
                (float("nan"), "float32", None),
                (1e300, "float64", 1e300),
                (-7, "int64", -7),
            ]
        )
    ]
    expected = np.zeros((4, 5), bool)
    expected[:2, 3:] = True
    np.testing.assert_array_equal(np.isnan(maps[0]).any(0), expected)
    for other in maps[1:]:
        np.testing.assert_array_equal(other, maps[0])


def test_what_is_missing_leaves_the_rest_alone_across_tiles(raster, opened, model, embed):
    """A hole in one tile changes nothing in a tile that does not see it."""
    whole = opened(hr=raster("whole.tif", NOISE))
    holed = opened(hr=raster("holed.tif", holes(0, "uint8"), nodata=0))
    plan = make_plan(model, whole, tile=32, overlap=0)
    first, second = embed(whole, plan), embed(holed, plan)
    changed = ~(distance(first, second) < 1e-5)
    expected = np.zeros((4, 5), bool)
    expected[:2, 3:] = True
    expected[2, :2] = True
    np.testing.assert_array_equal(changed, expected)


def test_a_diagonal_swath(raster, opened, model, embed):
    seen = np.abs(np.subtract.outer(np.arange(256), np.arange(256))) < 20
    pixels = np.where(seen, 100 + RNG.integers(0, 99, (3, 256, 256)), 0).astype(np.uint8)
    scene = opened(hr=raster("a.tif", pixels, nodata=0))
    values = embed(scene, make_plan(model, scene, tile=64, overlap=32))
    cells = seen.reshape(8, 32, 8, 32).any((1, 3))
    np.testing.assert_array_equal(~np.isnan(values).any(0), cells)


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (1, 90), (33, 31)])
@pytest.mark.parametrize("key", ["hr", "s2"])
def test_scenes_smaller_than_a_tile(raster, opened, embed, key, shape):
    pixels, names = NOISE[:, : shape[0], : shape[1]], ("R", "G", "B")
    if key == "s2":
        pixels, names = np.resize(NOISE, (10, *shape)).astype(np.uint16) * 10, ALL
    values = embed(opened(**{key: raster("a.tif", pixels, names)}))
    cell = 32 if key == "hr" else 4
    assert values.shape == (64, -(-shape[0] // cell), -(-shape[1] // cell))
    assert np.isfinite(values).all()


def test_clouds(files, opened, raster, embed):
    """Cloudy on all dates is as missing as nodata; without masking it is not."""
    pixels = np.full((11, 16, 16), 1000, np.uint16)
    pixels[10] = 4
    pixels[10, :, 8:] = 9
    scene = opened(s2=raster("s2.tif", pixels, (*ALL, "SCL")))
    cloudy = np.broadcast_to(np.arange(4) >= 2, (4, 4))
    np.testing.assert_array_equal(np.isnan(embed(scene)[0]), cloudy)
    assert np.isfinite(embed(scene, mask_clouds=False)).all()


def to(crs, path, folder):
    """The same picture on the pixels of another coordinate system."""
    with rasterio.open(path) as file:
        transform, width, height = calculate_default_transform(
            file.crs, crs, file.width, file.height, *file.bounds
        )
        moved, _ = reproject(
            file.read(),
            np.zeros((file.count, height, width), file.dtypes[0]),
            src_crs=file.crs,
            src_transform=file.transform,
            src_nodata=file.nodata,
            dst_crs=crs,
            dst_transform=transform,
            dst_nodata=file.nodata,
            resampling=Resampling.bilinear,
        )
        facts = file.profile | {"crs": crs, "transform": transform, "nodata": file.nodata}
        names = file.descriptions
    facts = {k: v for k, v in facts.items() if "block" not in k and k != "tiled"}
    with rasterio.open(
        folder / path.name, "w", **facts | {"height": height, "width": width}
    ) as out:
        out.write(moved)
        out.descriptions = names
    return folder / path.name


@pytest.fixture(scope="module")
def scattered(files, tmp_path_factory):
    """The aerial image in zone 32, Sentinel-2 in zone 33, Sentinel-1 in degrees."""
    folder = tmp_path_factory.mktemp("scattered")
    return {
        "hr": files["hr"],
        "s2": [to("EPSG:32633", path, folder) for path in files["s2"]],
        "s1": [to("EPSG:4326", path, folder) for path in files["s1"]],
    }


@pytest.fixture(scope="module")
def placed(opened, tmp_path_factory):
    """`placed(inputs) -> (values, EPSG, transform)` of a model whose weights mix little."""
    local = load("v2_tiny")
    local.trained = True
    for module in local.modules():
        if isinstance(module, SwinBlock):  # which is then the identity
            torch.nn.init.zeros_(module.norm1.weight)
            torch.nn.init.zeros_(module.norm2.weight)
    path = tmp_path_factory.mktemp("placed") / "map.tif"

    def embed_(inputs):
        scene = opened(**inputs)
        embed_scene(local, scene, make_plan(local, scene), path, EmbedOptions(dtype="float32"))
        with rasterio.open(path) as file:
            return file.read(), file.crs.to_epsg(), tuple(file.transform)[:6]

    return embed_


@pytest.fixture(scope="module")
def plain(scattered, placed):
    """Map of the scattered scene, before anything is patched."""
    return placed(scattered)


def patch(paths, folder, x, y, value, metres=12):
    """Copies with a bright square around a place of EPSG:32632 in all dates."""
    copies = []
    for path in paths:
        copies.append(folder / path.name)
        shutil.copy(path, copies[-1])
        with rasterio.open(copies[-1], "r+") as file:
            there = Transformer.from_crs(32632, file.crs, always_xy=True)
            xs, ys = there.transform([x - metres, x + metres], [y + metres, y - metres])
            rows, cols = rasterio.transform.rowcol(file.transform, xs, ys, op=round)
            bands = [i for i, name in enumerate(file.descriptions) if name != "SCL"]
            pixels = file.read()
            pixels[np.ix_(bands, range(rows[0], rows[1]), range(cols[0], cols[1]))] = value
            file.write(pixels)
    return copies


@pytest.mark.parametrize(("key", "value"), [("hr", 255), ("s2", 9000), ("s1", 3)])
@pytest.mark.parametrize(("row", "col"), [(1, 6), (5, 2)])
def test_every_layer_is_in_its_place(scattered, plain, placed, tmp_path, key, value, row, col):
    """A bright square of about 24 m lights up the cell of 40 m that it lies in."""
    before, epsg, transform = plain
    assert epsg == 32632, "that of the finest layer"
    assert transform == (40, 0, 600_000, 0, -40, 5_340_000)
    x, y = 600_000 + 40 * (col + 0.5), 5_340_000 - 40 * (row + 0.5)
    after, *_ = placed(scattered | {key: patch(scattered[key], tmp_path, x, y, value)})
    off = distance(after, before)
    assert np.unravel_index(off.argmax(), off.shape) == (row, col)
    off[max(0, row - 1) : row + 2, max(0, col - 1) : col + 2] = 0
    assert off.max() < 0.1 * distance(after, before).max(), "two cells away it is hardly seen"


def test_a_patch_changes_only_tiles_that_see_it(scattered, opened, model, embed, tmp_path):
    scene = opened(**scattered)
    plan = make_plan(model, scene, tile=128, overlap=0)
    x, y = 600_000 + 40 * 1.5, 5_340_000 - 40 * 5.5
    changed = opened(**scattered | {"s2": patch(scattered["s2"], tmp_path, x, y, 9000)})
    off = distance(embed(changed, plan), embed(scene, plan))
    assert (off[4:, :4] > 1e-3).all()
    off[4:, :4] = 0
    assert off.max() == 0


def test_a_picture_that_cannot_be_written_costs_no_map(files, opened, model, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("skysense.inference.quicklook._write_png", full)
    scene, output = opened(**files), tmp_path / "out/map.tif"
    options = EmbedOptions(quicklook=tmp_path / "look.png")
    with pytest.raises(ValueError, match=r"picture .*No space left.*the map itself is complete"):
        embed_scene(model, scene, make_plan(model, scene), output, options)
    assert sorted(path.name for path in output.parent.iterdir()) == ["map.json", "map.tif"]
    assert set(json.loads(output.with_suffix(".json").read_text())["assets"]) == {"data"}
    with rasterio.open(output) as file:
        assert np.isfinite(file.read()).all()


def test_quicklook_is_written_beside(files, opened, embed, tmp_path):
    look = tmp_path / "look.png"
    plain = embed(opened(**files))
    with_look = embed(opened(**files), quicklook=look)
    np.testing.assert_array_equal(with_look, plain)
    assert look.read_bytes().startswith(b"\x89PNG")


def leftovers(path):
    return list(path.parent.iterdir()) if path.parent.exists() else []


@pytest.mark.parametrize(
    ("pixels", "facts", "message"),
    [
        (np.zeros((3, 64, 64), np.uint8), {"nodata": 0}, "no valid pixel"),
        (np.full((3, 64, 64), np.nan, np.float32), {}, "no valid pixel"),
        (np.full((3, 64, 64), 1e300), {}, "no valid pixel"),
        (np.full((3, 64, 64), 10**15), {}, r"a\.tif: the median value is 1e\+15"),
        (np.full((3, 64, 64), 5000, np.uint16), {}, r"a\.tif: the median value is 5000"),
    ],
)
def test_what_cannot_be_embedded_leaves_nothing(raster, opened, embed, pixels, facts, message):
    scene = opened(hr=raster("a.tif", pixels, **facts))
    with pytest.raises(ValueError, match=message):
        embed(scene)
    assert leftovers(embed.path) == []


def damaged(raster):
    """A file whose last blocks cannot be read, after the few that are looked at first."""
    blocks = {"tiled": True, "blockxsize": 32, "blockysize": 32, "compress": "deflate"}
    path = raster("bad.tif", np.resize(NOISE, (3, 512, 512)), **blocks)
    with rasterio.open(path) as file:
        offsets = [
            int(file.get_tag_item(f"BLOCK_OFFSET_{col}_{row}", "TIFF", bidx=1))
            for row, col in ((13, 2), (13, 5))
        ]
    data = bytearray(path.read_bytes())
    for offset in offsets:
        data[offset : offset + 200] = bytes(200)
    path.write_bytes(data)
    return path


def test_damage_found_on_the_way_leaves_no_map_and_no_thread(raster, opened, model, embed):
    scene = opened(hr=damaged(raster))
    done = []
    before = threading.active_count()
    with pytest.raises(ValueError, match=r"bad\.tif: is truncated or damaged"):
        embed(scene, make_plan(model, scene, tile=32, overlap=0), progress=done.append)
    assert done, "the first tiles were fine"
    assert [path.name for path in leftovers(embed.path)] == [".map.tif.work"]
    assert threading.active_count() == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, MemoryError])
def test_an_end_from_outside_leaves_no_map_and_no_thread(raster, opened, model, embed, error):
    scene = opened(hr=raster("a.tif", NOISE))
    before = threading.active_count()

    def stop(_):
        raise error

    with pytest.raises(error):
        embed(scene, make_plan(model, scene, tile=32, overlap=0), progress=stop)
    assert [path.name for path in leftovers(embed.path)] == [".map.tif.work"]
    assert threading.active_count() == before


def test_a_disk_that_fills_up_stops_all(raster, opened, model, embed, monkeypatch):
    scene = opened(hr=raster("a.tif", NOISE))

    def full(*_):
        raise ValueError("map.tif could not be written (No space left on device)")

    monkeypatch.setattr("skysense.inference.writer.MapWriter.write", full)
    with pytest.raises(ValueError, match="No space left"):
        embed(scene, make_plan(model, scene, tile=32, overlap=0))
    assert not embed.path.exists()


def test_an_older_map_stays_when_a_new_one_fails(raster, opened, embed):
    embed(opened(hr=raster("a.tif", NOISE)))
    before = embed.path.read_bytes()
    empty = opened(hr=raster("b.tif", np.zeros((3, 64, 64), np.uint8), nodata=0))
    with pytest.raises(ValueError, match="no valid pixel"):
        embed(empty)
    assert embed.path.read_bytes() == before
    assert len(leftovers(embed.path)) == 2, "the map and its STAC item"


def test_near_infrared_reaches_a_backbone_that_takes_it(raster, opened, tmp_path):
    """A file of red, green, blue and near infrared, through the command's own steps."""
    config = V1_CONFIGS["v1_tiny"]
    four = config.model_copy(update={"hr": config.hr.model_copy(update={"bands": 4})})
    model = SkySenseV1(four).eval()
    model.trained = True  # it keeps the warning of an untrained one quiet
    pixels = np.random.default_rng(0).integers(1, 255, (4, 64, 96), np.uint8)
    path = raster("rgbn.tif", pixels, ("Red", "Green", "Blue", "NIR"))
    scene = opened(hr=path, sensors={"hr": "naip_rgbn"})
    picture = tmp_path / "picture.png"

    embed_scene(
        model, scene, make_plan(model, scene), tmp_path / "map.tif", EmbedOptions(quicklook=picture)
    )

    assert picture.is_file()
    with rasterio.open(tmp_path / "map.tif") as file:
        assert np.isfinite(file.read()).all()
    scene = opened(hr=path, sensors={"hr": "naip"})
    with pytest.raises(ValueError, match=r"takes 4 bands, sensor `naip` gives 3: .* naip_rgbn"):
        embed_scene(model, scene, make_plan(model, scene), tmp_path / "map.tif")
