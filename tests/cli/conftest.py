"""The command line in this process, and what users point it at."""

import numpy as np
import pytest
import rasterio
from rasterio import Affine
from typer.testing import CliRunner

from skysense.cli import app
from skysense.data.synthetic import make_scene, write_scene

UTM = (10.0, 0.0, 600_000.0, 0.0, -10.0, 5_340_000.0)


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    """No test asks the hub."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.fixture
def skysense():
    """`skysense("embed", ...) -> Result`; a traceback fails the test."""

    def run(*arguments):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture
def embed(skysense, tmp_path):
    """`embed(...) -> Result` of the tiny model into `embed.output`, without notes."""

    def run(*arguments, output=None):
        usual = ("--model", "v2_tiny", "--quiet", "-o", output or run.output)
        return skysense("embed", *usual, *arguments)

    run.output = tmp_path / "out" / "map.tif"
    return run


@pytest.fixture
def refused(embed, tmp_path):
    """`refused(..., match=...)`: exit 2, one line on stderr, and nothing new on the disk."""

    def check(*arguments, match, output=None):
        before = sorted(tmp_path.rglob("*"))
        result = embed(*arguments, output=output)
        assert result.exit_code == 2
        assert result.stdout == ""
        (line,) = result.stderr.splitlines()
        assert line.startswith("error: ")
        assert match in line, line
        made = set(tmp_path.rglob("*")) - set(before)
        assert not [path for path in made if not path.is_dir()]
        assert not [path for path in made if path.name.startswith(".")]

    return check


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """Modality to files of 160 m x 160 m."""
    scene = make_scene(size=16, s2_dates=2, s1_dates=2, seed=2)
    folder = tmp_path_factory.mktemp("files")
    return {key: write_scene(folder / key, scene)[key] for key in ("hr", "s2", "s1")}


@pytest.fixture
def raster(tmp_path):
    """`raster(name, pixels (C, H, W), names, transform=..., **profile) -> Path`."""

    def write(name, pixels, names=("R", "G", "B"), transform=UTM, **profile):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        count, height, width = pixels.shape
        facts = {"crs": "EPSG:32632", "driver": "GTiff", "dtype": pixels.dtype, **profile}
        if transform is not None:
            facts["transform"] = Affine(*transform)
        with rasterio.open(path, "w", count=count, height=height, width=width, **facts) as file:
            file.write(pixels)
            if names:
                file.descriptions = tuple(names)
        return path

    return write


@pytest.fixture
def image(raster):
    """An RGB image of 96 x 64 pixels that can be embedded."""
    return raster("image.tif", np.random.default_rng(0).integers(20, 200, (3, 96, 64), np.uint8))
