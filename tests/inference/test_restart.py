"""A run goes on after any end, and its map has the bytes of a run without one."""

import itertools
import json
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
import rasterio

from skysense.inference.embed import EmbedOptions, embed_scene
from skysense.inference.pipeline import compute, run_here
from skysense.inference.plan import make_plan
from skysense.inference.work import VERSION, Part, WorkFolder

NOISE = np.random.default_rng(0).integers(20, 200, (3, 128, 96)).astype(np.uint8)


@pytest.fixture
def scene(raster, opened):
    pixels = NOISE.copy()
    pixels[:, 40:80, 20:70] = 0
    return opened(hr=raster("a.tif", pixels, nodata=0))


@pytest.fixture
def plan(model, scene):
    return make_plan(model, scene, tile=64, overlap=32)


@pytest.fixture
def run(model, scene, plan, tmp_path):
    """`run(name, engine=..., **options) -> bytes` of the map, and of the picture."""

    def run_(name="map.tif", engine=run_here, **options):
        path = tmp_path / "out" / name
        look = tmp_path / "out" / f"{name}.png"
        options = EmbedOptions(**{"batch_size": 1, "quicklook": look, **options})
        embed_scene(model, scene, plan, path, options, engine=engine)
        assert sorted(p.name for p in path.parent.glob(f".{name}*")) == []
        return path.read_bytes(), look.read_bytes()

    return run_


def stopping(after):
    """An engine that ends after so many results; `stopping.computed` are their tasks."""

    def engine(job, tasks, take):
        engine.computed = []
        count = itertools.count()

        def limited(task, part):
            if next(count) == after:
                raise KeyboardInterrupt
            take(task, part)
            engine.computed.append(task.index)

        run_here(job, tasks, limited)

    return engine


@pytest.mark.parametrize("dtype", ["float16", "int8"])
def test_after_any_number_of_tasks(run, plan, dtype):
    expected = run("whole.tif", dtype=dtype)
    count = len(plan.tasks(1))
    for after in range(count) if dtype == "float16" else (count // 2,):
        first, second = stopping(after), stopping(count)
        with pytest.raises(KeyboardInterrupt):
            run(engine=first, dtype=dtype)
        assert run(engine=second, dtype=dtype) == expected
        assert first.computed + second.computed == list(range(count)), "none is computed twice"


def test_results_may_come_in_any_order(run):
    def engine(job, tasks, take):
        found = []
        run_here(job, tasks, lambda task, part: found.append((task, part)))
        for i in np.random.default_rng(1).permutation(len(found)):
            take(*found[i])

    assert run(engine=engine) == run("whole.tif")


def test_ends_in_any_order_of_results(run, plan):
    """Half of the results are there, in no order, when the run ends."""

    def engine(job, tasks, take):
        found = []
        run_here(job, tasks, lambda task, part: found.append((task, part)))
        for i in np.random.default_rng(len(found)).permutation(len(found))[: len(found) // 2 + 1]:
            take(*found[i])
        raise KeyboardInterrupt

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            run(engine=engine)
    assert run() == run("whole.tif")


def test_ends_while_rows_are_written_or_told(run, monkeypatch):
    """Rows that are written and not told of, told of and not forgotten, and the last step."""
    expected = run("whole.tif")
    for name in ("WorkFolder.commit", "WorkFolder.drop", "MapWriter.flush", "MapWriter.finish"):
        kind, method = name.split(".")
        module = "work" if kind == "WorkFolder" else "writer"
        for at in (0, 2):
            count = itertools.count()

            def fail(*_, count=count, at=at, **__):
                if next(count) >= at:
                    raise KeyboardInterrupt

            with monkeypatch.context() as patch:
                patch.setattr(f"skysense.inference.{module}.{kind}.{method}", fail)
                with suppress(KeyboardInterrupt):
                    run()
            assert run() == expected, name


def test_a_damaged_result_is_computed_again(run, tmp_path):
    expected = run("whole.tif")
    with pytest.raises(KeyboardInterrupt):
        run(engine=stopping(3))
    for path in (tmp_path / "out" / ".map.tif.work").glob("task-*.npz"):
        path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match="has lost what it says is finished: begin anew"):
        run()
    assert run(restart=True) == expected


@pytest.mark.parametrize(("name", "left"), [("rows.f32", 0.5), ("committed.json", 0)])
def test_what_a_power_cut_took_is_not_made_up(run, tmp_path, plan, name, left):
    expected = run("whole.tif")
    with pytest.raises(KeyboardInterrupt):
        run(engine=stopping(len(plan.tasks(1)) - 1))
    path = tmp_path / "out" / ".map.tif.work" / name
    os.truncate(path, int(left * path.stat().st_size))
    with pytest.raises(ValueError, match="has lost what it says is finished: begin anew"):
        run()
    assert run(restart=True) == expected


def test_numbers_beyond_half_precision_are_refused(run, model, monkeypatch):
    monkeypatch.setattr(
        "skysense.inference.pipeline.compute",
        lambda job, loaded: replace(part := compute(job, loaded), values=part.values * 1e6),
    )
    with pytest.raises(ValueError, match=r"features as large as .* give --dtype float32"):
        run()
    run(dtype="float32", restart=True)


def test_what_a_run_is_told_of_is_kept_flat(run, tmp_path, plan):
    """Of the rows that are written no task remains but those of the last row of tiles."""
    with pytest.raises(KeyboardInterrupt):
        run(engine=stopping(len(plan.tasks(1)) - 1))
    folder = WorkFolder(tmp_path / "out" / "map.tif")
    rows, _ = folder.committed()
    tasks = plan.tasks(1)
    assert {tasks[i].row for i in folder.finished()} == {rows - 1, rows}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"dtype": "float32"}, "options"),
        ({"batch_size": 4}, "options"),
        ({"weights": "abc"}, "model"),
        ({"tags": {"A": "b"}}, "tags"),
    ],
)
def test_other_work_is_not_gone_on_with(run, change, what):
    with pytest.raises(KeyboardInterrupt):
        run(engine=stopping(3))
    with pytest.raises(ValueError, match=f"unfinished work with other {what}.*--restart"):
        run(**change)
    assert run(**change, restart=True) == run("whole.tif", **change)


def test_a_changed_input_is_other_work(run, scene):
    with pytest.raises(KeyboardInterrupt):
        run(engine=stopping(3))
    os.utime(scene.files[0], ns=(1, 1))
    with pytest.raises(ValueError, match="unfinished work with other inputs"):
        run()


def test_a_manifest_of_another_version_or_damaged_is_refused_and_kept(run, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(engine=stopping(3))
    path = tmp_path / "out" / ".map.tif.work" / "manifest.json"
    values = json.loads(path.read_text())
    before = sorted(p.name for p in path.parent.iterdir())
    for text in (json.dumps({**values, "version": VERSION + 1}), "[]", "{", ""):
        path.write_text(text)
        with pytest.raises(ValueError, match="of another version of skysense"):
            run()
        assert sorted(p.name for p in path.parent.iterdir()) == before
    path.write_text(json.dumps(values))
    assert run() == run("whole.tif")


def test_two_processes_do_not_write_one_output(run, tmp_path):
    held = WorkFolder(tmp_path / "out" / "map.tif")
    held.open({"another": "run"})
    with pytest.raises(ValueError, match="is being written by another process"):
        run()
    held.close()
    assert not held.path.exists(), "nothing was finished in it"
    run()


def test_a_killed_process_holds_nothing(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from skysense.inference.work import WorkFolder;"
        "WorkFolder(Path(sys.argv[1])).open({'a': 1}); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "map.tif")], check=False)
    folder = WorkFolder(tmp_path / "map.tif")

    assert done.returncode == -9
    assert folder.open({"a": 1}), "it goes on"
    folder.close()


def test_a_full_disk_keeps_what_is_finished(run, monkeypatch, tmp_path):
    expected = run("whole.tif")
    count = itertools.count()
    write = WorkFolder.put

    def full(self, index, part):
        if next(count) == 3:
            raise OSError(28, "No space left on device")
        write(self, index, part)

    monkeypatch.setattr(WorkFolder, "put", full)
    with pytest.raises(ValueError, match=r"\(No space left on device\); free .* the same command"):
        run()
    assert (tmp_path / "out" / ".map.tif.work").is_dir()
    assert run() == expected
    assert next(count) >= 3


def test_a_part_survives_being_written_down():
    part = Part(
        (0, 2),
        np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32),
        np.ones((2, 4, 5), bool),
        tuple(np.full((3, i, 2), i, np.float32) for i in range(12)),
    )
    again = Part.from_bytes(part.to_bytes())

    assert again.seen == part.seen
    for name in ("values", "valid"):
        np.testing.assert_array_equal(getattr(again, name), getattr(part, name))
    for one, other in zip(again.pictures, part.pictures, strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(ValueError, match="damaged"):
        Part.from_bytes(part.to_bytes()[:-9])


def test_progress_counts_what_was_finished_before(model, scene, plan, tmp_path):
    path, options = tmp_path / "map.tif", EmbedOptions(batch_size=1)
    with pytest.raises(KeyboardInterrupt):
        embed_scene(model, scene, plan, path, options, engine=stopping(4))
    seen = []
    embed_scene(model, scene, plan, path, options, seen.append)

    assert seen[0] == sum(len(task.tiles) for task in plan.tasks(1)[:4])
    assert sum(seen) == plan.tiling.count
    with rasterio.open(path) as file:
        assert file.count == plan.channels
