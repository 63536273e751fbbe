import json

import numpy as np
import pytest
from pyproj import Transformer

from skysense.inference.stores import write_store

lancedb = pytest.importorskip("lancedb")


@pytest.fixture
def table(source, values, tmp_path, small_bands):
    """A table of a small map, written in several bands."""
    write_store(source(values()), tmp_path / "map.lance", "float16")
    return lancedb.connect(str(tmp_path)).open_table("map")


def test_a_cell_finds_itself_first(table, values):
    expected = values()
    for row, col in np.argwhere(np.isfinite(expected[0]))[::40]:
        query = expected[:, row, col].astype(np.float16).astype(np.float32)

        found = table.search(query).distance_type("cosine").limit(1).to_list()[0]

        assert (found["row"], found["col"]) == (row, col)
        assert found["_distance"] < 1e-3
        assert np.allclose(found["vector"], query)


def test_every_valid_cell_is_a_row_with_its_place(table, source, values):
    map_, expected = source(), values()
    rows, cols = np.nonzero(np.isfinite(expected[0]))

    data = table.to_arrow()

    assert data["row"].to_pylist() == rows.tolist()
    assert data["col"].to_pylist() == cols.tolist()
    to_lon_lat = Transformer.from_crs("EPSG:32632", "EPSG:4326", always_xy=True)
    for i in (0, 50, 200):
        lon, lat = to_lon_lat.transform(*map_.grid.xy(rows[i] + 0.5, cols[i] + 0.5))
        assert data["lon"][i].as_py() == pytest.approx(lon, abs=1e-9)
        assert data["lat"][i].as_py() == pytest.approx(lat, abs=1e-9)
    assert str(data["date"][0]) == "2024-07-15"
    assert str(data["first_date"][0]) == "2024-01-20"


def test_provenance_is_in_the_schema(table, source):
    facts = json.loads(table.schema.metadata[b"skysense"])
    grid = source().grid

    assert facts == {
        **json.loads(source().provenance.text()),
        "storage": {"dtype": "float16"},
        "grid": {
            "crs": grid.crs,
            "transform": list(grid.transform),
            "shape": list(grid.shape),
        },
    }


def test_longitudes_stay_within_half_a_turn(source, tmp_path):
    map_ = source(crs="EPSG:4326", transform=(0.1, 0, 179.5, 0, -0.1, 50.0))
    write_store(map_, tmp_path / "map.lance", "float32")

    lon = lancedb.connect(str(tmp_path)).open_table("map").to_arrow()["lon"].to_numpy()

    assert lon.min() < -179
    assert lon.max() < 180


def test_int8_is_refused_before_anything_is_done(source, tmp_path):
    with pytest.raises(ValueError, match="does not search int8 vectors; choose float16"):
        write_store(source(), tmp_path / "map.lance", "int8")
    assert not list(tmp_path.iterdir())


def test_a_name_that_cannot_be_opened_is_refused(source, tmp_path):
    with pytest.raises(ValueError, match="name of a LanceDB table"):
        write_store(source(), tmp_path / "my map.lance", "float16")


def test_an_error_of_the_library_is_one_line(source, tmp_path, monkeypatch):
    def full(self, data):
        raise RuntimeError("LanceError(IO): No space left on device, /root/lance/writer.rs:191:9")

    monkeypatch.setattr("lancedb.table.LanceTable.add", full)

    with pytest.raises(ValueError, match="No space left on device\\); free some space") as caught:
        write_store(source(), tmp_path / "map.lance", "float16")
    assert ".rs" not in str(caught.value)
    assert not list(tmp_path.iterdir())
