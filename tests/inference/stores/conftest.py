"""A small finished map, in memory."""

import numpy as np
import pytest

from skysense.geo import Grid
from skysense.inference.stores import InputFile, MapSource, Provenance

UTM = (40.0, 0.0, 600_000.0, 0.0, -40.0, 5_340_000.0)
DATES = tuple(np.array(["2024-03-01", "2024-07-15", "NaT", "2024-01-20"], "datetime64[D]"))


def make_values(channels=5, shape=(23, 17), seed=0, missing=0.2):
    """`(D, h, w)` of noise, some cells and the whole of rows 4 to 6 without anything."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((channels, *shape)).astype(np.float32)
    values[:, rng.random(shape) < missing] = np.nan
    values[:, 4:7] = np.nan
    return values


def make_provenance():
    """Plausible facts."""
    return Provenance(
        model="v2_tiny",
        trained=False,
        weights="ab" * 32,
        package="0.1.0",
        inputs=(InputFile("s2/20240301.tif", 1234, "2024-04-01T10:00:00+00:00"),),
        dates={"s2": ["2024-03-01", "2024-07-15", None], "s1": ["2024-01-20"]},
        options={"tile": 64, "mask_clouds": True, "stage": None},
    )


def make_source(values=None, crs="EPSG:32632", transform=UTM, dates=DATES):
    """A map of `(D, h, w)` values."""
    values = make_values() if values is None else values
    return MapSource(
        grid=Grid(crs, transform, values.shape[1:]),
        channels=values.shape[0],
        rows=lambda first, stop: values[:, first:stop],
        dates=dates,
        provenance=make_provenance(),
    )


@pytest.fixture(scope="session")
def values():
    """`values(channels, shape, seed, missing) -> (D, h, w)`."""
    return make_values


@pytest.fixture(scope="session")
def source():
    """`source(values, crs, transform, dates) -> MapSource`."""
    return make_source


@pytest.fixture
def small_bands(monkeypatch):
    """Bands of a few rows, so that a small map has many."""
    size = 4 * 5 * 17 * 3
    monkeypatch.setattr("skysense.inference.stores.source.bands.__defaults__", (size,))
    monkeypatch.setattr("skysense.inference.stores.source.cells.__defaults__", (size,))
    monkeypatch.setattr("skysense.inference.stores.lance_table._BAND_BYTES", size)


@pytest.fixture(scope="session")
def tree():
    """`tree(folder) -> {relative path: bytes}`, to compare outputs byte by byte."""

    def read(path):
        if path.is_file():
            return {".": path.read_bytes()}
        return {
            str(file.relative_to(path)): file.read_bytes()
            for file in sorted(path.rglob("*"))
            if file.is_file()
        }

    return read
