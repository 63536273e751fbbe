"""A small scene on disk, and ways to lay, run and read it."""

import pytest
import rasterio
from rasterio import Affine

from skysense.data.scene import open_scene
from skysense.data.synthetic import make_scene, write_scene
from skysense.inference.embed import EmbedOptions, embed_scene
from skysense.inference.plan import make_plan

CARDS = {"hr": "rgb8", "s2": "s2_l2a", "s1": "s1"}
UTM = (10.0, 0.0, 600_000.0, 0.0, -10.0, 5_340_000.0)


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """Modality to files of 320 m x 320 m: an aerial image, three and two dates."""
    scene = make_scene(size=32, s2_dates=3, s1_dates=2, seed=1, cloud_cover=0)
    return write_scene(tmp_path_factory.mktemp("files"), scene)


@pytest.fixture(scope="session")
def opened():
    """`opened(hr=..., s2=..., s1=...) -> Scene`, with the usual sensor cards."""

    def open_(sensors=CARDS, **inputs):
        lists = {key: v if isinstance(v, list) else [v] for key, v in inputs.items()}
        return open_scene(lists, sensors)

    return open_


@pytest.fixture(scope="session")
def model(shared):
    """A tiny model in which nothing is trivial."""
    return shared("v2_tiny")


@pytest.fixture
def embed(tmp_path, model):
    """`embed(scene, plan=..., **options) -> (D, h, w)` of the written map; `embed.path` is it."""

    def run(scene, plan=None, progress=lambda tiles: None, **options):
        options = {"dtype": "float32", **options}
        plan = plan or make_plan(model, scene)
        embed_scene(model, scene, plan, run.path, EmbedOptions(**options), progress)
        with rasterio.open(run.path) as file:
            return file.read()

    run.path = tmp_path / "out" / "map.tif"
    return run


@pytest.fixture
def raster(tmp_path):
    """`raster(name, pixels (C, H, W), names, transform=..., **profile) -> Path`."""

    def write(name, pixels, names=("R", "G", "B"), transform=UTM, **profile):
        path = tmp_path / name
        count, height, width = pixels.shape
        facts = {"crs": "EPSG:32632", "driver": "GTiff", "dtype": pixels.dtype, **profile}
        facts["transform"] = Affine(*transform)
        with rasterio.open(path, "w", count=count, height=height, width=width, **facts) as file:
            file.write(pixels)
            file.descriptions = tuple(names)
        return path

    return write
