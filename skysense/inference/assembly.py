"""Put the results of tasks together, in the order of the plan, whoever computed them and when.

Rows that no later tile touches are written and told, and what they were made of is forgotten; so
the disk holds the map and about two rows of tiles. A run that goes on reads the last row of tiles
again, from which the next one takes its overlap: the sums have the same terms in the same order as
in a run without a break.

Legend: D bands, h w cells of the map.
"""

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from skysense.geo import RowBlender
from skysense.inference.plan import Plan, Task
from skysense.inference.quicklook import Moments, Thumbnail
from skysense.inference.work import Part, WorkFolder, lost
from skysense.inference.writer import MapType, MapWriter

FloatArray = npt.NDArray[np.float32]


class Assembler:
    """Takes results in any order."""

    def __init__(
        self,
        plan: Plan,
        tasks: Sequence[Task],
        folder: WorkFolder,
        writer: MapWriter,
        dtype: MapType,
        thumbnail: Thumbnail | None = None,
    ) -> None:
        """Begin, or go on with what a folder holds.

        Args:
            plan: of the scene.
            tasks: all of them.
            folder: where results are kept.
            writer: takes finished rows; it has those already that the folder tells of.
            dtype: of the map; of `float16` the rows are rounded as they are written.
            thumbnail: the scene in little, if there will be a picture.
        """
        self._plan, self._tasks, self._folder = plan, tasks, folder
        self._writer, self._dtype, self._thumbnail = writer, dtype, thumbnail
        self._rows = {row: list(same) for row, same in itertools.groupby(tasks, lambda t: t.row)}
        self.moments = Moments(plan.channels)
        done, rows = folder.committed()
        again = max(0, done - 1)
        self._blender = RowBlender(
            plan.channels,
            plan.grid.shape,
            plan.tiling.overlap // plan.cell,
            plan.tiling.tile // plan.cell,
            plan.row_starts[again],
        )
        self._next = next((task.index for task in tasks if task.row >= done), len(tasks))
        for index in folder.finished():
            if tasks[index].row < again:
                folder.drop(index)
        if done:
            self._replay(again, rows)

    def _replay(self, row: int, rows: int) -> None:
        """Blend the last row of tiles again, and look again at the map's rows."""
        for task in self._rows[row]:
            part = self._folder.get(task.index)
            if part is None:
                raise lost(self._folder.path)
            self._blend(task, part)
        self._blender.finish(rows)
        if self._thumbnail is not None:
            kept = self._writer.rows()
            bounds = [*self._plan.row_starts[: row + 1], rows]
            for top, bottom in itertools.pairwise(bounds):
                self.moments.add(kept.span(top, bottom).transpose(1, 0, 2))
            for task in self._tasks[: self._next]:
                for tile, seen in zip(task.tiles, self._folder.pictures(task.index), strict=False):
                    self._thumbnail.paste(tile, seen)

    @property
    def pending(self) -> list[Task]:
        """Tasks that are still to be computed."""
        there = set(self._folder.finished())
        return [task for task in self._tasks[self._next :] if task.index not in there]

    @property
    def tiles(self) -> int:
        """How many tiles are blended."""
        return sum(len(task.tiles) for task in self._tasks[: self._next])

    @property
    def complete(self) -> bool:
        """Whether all rows are written."""
        return self._next == len(self._tasks)

    def take(self, task: Task, part: Part) -> None:
        """Keep a result, and write what can be written.

        Raises:
            OSError: it cannot be kept.
            ValueError: the map cannot be written.
        """
        self._folder.put(task.index, part)
        if task.index == self._next:
            self._add(task, part)
            self.advance()

    def advance(self) -> None:
        """Write what can be written of the results that are there."""
        while not self.complete:
            part = self._folder.get(self._next)
            if part is None:
                return
            self._add(self._tasks[self._next], part)

    def _add(self, task: Task, part: Part) -> None:
        """Blend the next task, and write rows if it is the last of its row of tiles."""
        self._blend(task, part)
        if self._thumbnail is not None:
            self._folder.keep_pictures(task.index, part)
            for tile, seen in zip(task.tiles, part.pictures, strict=True):
                self._thumbnail.paste(tile, seen)
        self._next = task.index + 1
        if task.next_row is None:
            return
        _, finished = self._blender.finish(task.next_row)
        if self._dtype == "float16":
            finished = _rounded(finished)
        if self._thumbnail is not None:
            self.moments.add(finished)
        self._writer.write(finished)
        self._writer.flush()
        self._folder.commit(task.row + 1, task.next_row)
        for earlier in self._rows.get(task.row - 1, ()):
            self._folder.drop(earlier.index)

    def _blend(self, task: Task, part: Part) -> None:
        """Add the tiles of a task that hold anything."""
        for i, values, valid in zip(part.seen, part.values, part.valid, strict=True):
            place = self._plan.place(task.tiles[i])
            inside = (slice(0, place.height), slice(0, place.width))
            self._blender.add(place, values[:, *inside], valid[inside])


def _rounded(values: FloatArray) -> FloatArray:
    """To half precision and back.

    Raises:
        ValueError: a number is too large for it.
    """
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float16).astype(np.float32)
    if np.isinf(rounded).any():
        raise ValueError(
            f"features as large as {np.nanmax(np.abs(values)):.3g} do not fit into float16; give "
            f"--dtype float32 and --restart"
        )
    return rounded
