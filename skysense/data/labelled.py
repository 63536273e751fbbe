"""Labelled images: folders of classes, or a CSV beside its images.

Legend: N images, C bands, H W pixels, K classes.
"""

import csv
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from skysense.data.folders import below
from skysense.data.image_files import IMAGE_SUFFIXES, Image, ImageFile, read_image

Indices = npt.NDArray[np.int64]

_COLUMNS = ("path", "label", "class", "split")
"""Those of a CSV that are read."""


@dataclass(frozen=True)
class LabelledSet:
    """Images of which each belongs to one class; read one by one, when they are asked for."""

    name: str
    """What it is called: the folder's name."""
    classes: tuple[str, ...]
    """K names."""
    labels: Indices
    """`(N,)` index of each image's class."""
    files: tuple[ImageFile, ...]
    """N places where the images are."""
    parts: tuple[str, ...] | None = None
    """N words of the CSV's column `split`, such as `train` and `test`."""

    def __len__(self) -> int:
        """N."""
        return len(self.files)

    def read(self, index: int) -> Image:
        """Stored values `(C, H, W)` of an image; NaN where the file says that they are missing.

        Raises:
            ValueError: it cannot be read; the message names it.
        """
        return read_image(self.files[index])[0]

    @property
    def bands(self) -> tuple[str, ...] | None:
        """Band names that the first image's file gives; `None` where it does not name each."""
        return read_image(self.files[0])[1]

    def counts(self) -> Indices:
        """`(K,)` images of each class."""
        return np.bincount(self.labels, minlength=len(self.classes)).astype(np.int64)

    def subset(self, indices: Sequence[int] | Indices) -> "LabelledSet":
        """Some of the images, in the order of `indices`; all classes stay known."""
        chosen = np.asarray(indices, np.int64)
        parts = None if self.parts is None else tuple(self.parts[i] for i in chosen)
        files = tuple(self.files[i] for i in chosen)
        return replace(self, labels=self.labels[chosen], files=files, parts=parts)

    def with_classes(self, classes: Sequence[str]) -> "LabelledSet":
        """The same images with labels that count in other `classes`.

        Raises:
            ValueError: a class of the images is not among them.
        """
        used = [self.classes[i] for i in np.unique(self.labels)]
        unknown = [name for name in used if name not in classes]
        if unknown:
            raise ValueError(
                f"{self.name} has classes that the training images lack: {_few(unknown)} "
                f"(known: {_few(classes)})"
            )
        places = {name: i for i, name in enumerate(classes)}
        table = np.array([places.get(name, -1) for name in self.classes], np.int64)
        return replace(self, classes=tuple(classes), labels=table[self.labels])


def stratified(labels: Indices, share: float, seed: int) -> tuple[Indices, Indices]:
    """Cut every class in two by the same share.

    Args:
        labels: `(N,)`.
        share: part of each class that goes to the second side, 0...1, rounded; both sides get at
            least one image of a class that has two, and a single one stays on the first.
        seed: of the draw, which depends on nothing else.

    Returns:
        Indices of the first and of the second side, each in rising order.
    """
    if not 0 < share < 1:
        raise ValueError(f"the share to split off is {share}, expected a number between 0 and 1")
    rng = np.random.default_rng(seed)
    second = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        own = rng.permutation(np.flatnonzero(labels == label))
        count = min(max(round(share * len(own)), 1), len(own) - 1)
        second[own[:count]] = True
    return np.flatnonzero(~second), np.flatnonzero(second)


def split(labelled: LabelledSet, share: float, seed: int) -> tuple[LabelledSet, LabelledSet]:
    """Cut a set in two, `share` of every class to the second; see `stratified`."""
    first, second = stratified(labelled.labels, share, seed)
    return labelled.subset(first), labelled.subset(second)


def open_labelled(path: str | Path) -> LabelledSet:
    """Find the images of a labelled set and their classes; reads no image.

    Args:
        path: a folder with a folder of images for each class; or a CSV, or a folder that holds
            one. The CSV has columns `path` and `label` (with `class`: the class's name), maybe
            `split`; paths start at its folder, or in a zip that lies there.

    Raises:
        ValueError: nothing of the kind; fewer than two classes; a class or a file is not there.
    """
    path = Path(path)
    if path.is_file():
        if path.suffix.lower() != ".csv":
            raise ValueError(f"{path} is neither a folder nor a CSV")
        return _from_csv(path)
    if not path.is_dir():
        raise ValueError(f"{path}: there is no such folder or file")
    tables = sorted(p for p in path.glob("*.csv") if not p.name.startswith("."))
    named = [p for p in tables if p.name == "labels.csv"]
    if len(tables) > 1 and not named:
        raise ValueError(f"{path} holds {len(tables)} CSV files: name the one to use")
    return _from_csv((named or tables)[0]) if tables else _from_folders(path)


def _from_folders(root: Path) -> LabelledSet:
    """One class a sub-folder."""
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not folders:
        raise ValueError(
            f"{root} is no labelled set: it holds neither a folder for each class nor a CSV"
        )
    found = [_images_below(folder) for folder in folders]
    empty = [folder.name for folder, files in zip(folders, found, strict=True) if not files]
    if empty:
        raise ValueError(
            f"{root}: no image ({', '.join(IMAGE_SUFFIXES)}) in class folder {_few(empty)}"
        )
    counts = [len(files) for files in found]
    return _checked(
        LabelledSet(
            name=root.resolve().name,
            classes=tuple(folder.name for folder in folders),
            labels=np.repeat(np.arange(len(folders)), counts).astype(np.int64),
            files=tuple(ImageFile(path) for files in found for path in files),
        ),
        root,
    )


def _images_below(folder: Path) -> list[Path]:
    """Images in a folder and below it, sorted, without hidden ones."""
    return [
        path
        for path in below(folder)
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]


def _from_csv(table: Path) -> LabelledSet:
    """One image a row."""
    rows = _rows(table)
    names, classes = _classes(rows, table)
    places = {name: i for i, name in enumerate(classes)}
    return _checked(
        LabelledSet(
            name=table.resolve().parent.name,
            classes=classes,
            labels=np.array([places[name] for name in names], np.int64),
            files=_found([row["path"] for row in rows], table),
            parts=tuple(row["split"] for row in rows) if "split" in rows[0] else None,
        ),
        table,
    )


def _rows(table: Path) -> list[dict[str, str]]:
    """The rows of a CSV, column to text."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = columns
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{table} cannot be read as a CSV ({error})") from None
    if "path" not in columns or not {"label", "class"} & set(columns):
        raise ValueError(
            f"{table} has columns {', '.join(columns) or '(none)'}; expected `path` and `label`, "
            "and maybe `class` and `split`"
        )
    if not rows:
        raise ValueError(f"{table} lists no image")
    used = [name for name in columns if name in _COLUMNS]
    for number, row in enumerate(rows, 2):
        if None in row or not all((row[name] or "").strip() for name in used):
            raise ValueError(f"{table}, row {number}: expected a value in each of {_few(used)}")
    return [{name: row[name].strip() for name in used} for row in rows]


def _classes(rows: list[dict[str, str]], table: Path) -> tuple[list[str], tuple[str, ...]]:
    """The class of each row, and all of them: by number where labels are numbers, else by name."""
    names = [row["class"] if "class" in row else row["label"] for row in rows]
    keys = [row.get("label", row.get("class", "")) for row in rows]
    pairs = set(zip(names, keys, strict=True))
    if not len(pairs) == len(set(names)) == len(set(keys)):
        raise ValueError(f"{table}: `class` and `label` contradict each other in some rows")
    numbered = all(key.isdecimal() for key in keys)
    ordered = sorted(pairs, key=lambda pair: (int(pair[1]) if numbered else 0, pair))
    return names, tuple(name for name, _ in ordered)


def _found(paths: list[str], table: Path) -> tuple[ImageFile, ...]:
    """Where the listed images are: in a zip beside the CSV, or under its folder."""
    repeated = [path for path, count in Counter(paths).items() if count > 1]
    if repeated:
        raise ValueError(f"{table} lists {len(repeated)} files more than once: {_few(repeated)}")
    members = _members(table.parent)
    files: list[ImageFile] = []
    missing: list[str] = []
    for path in paths:
        if path in members:
            files.append(ImageFile(members[path], path))
        elif (table.parent / path).is_file():
            files.append(ImageFile(table.parent / path))
        else:
            missing.append(path)
    if missing:
        raise ValueError(
            f"{table}: {len(missing)} of {len(paths)} listed files are missing: {_few(missing)}"
        )
    return tuple(files)


def _members(folder: Path) -> dict[str, Path]:
    """Names within the zips of a folder."""
    members: dict[str, Path] = {}
    for path in sorted(folder.glob("*.zip")):
        try:
            with zipfile.ZipFile(path) as archive:
                members |= dict.fromkeys(archive.namelist(), path)
        except (zipfile.BadZipFile, OSError) as error:
            raise ValueError(f"{path}: cannot be read as a zip ({error})") from None
    return members


def _checked(labelled: LabelledSet, path: Path) -> LabelledSet:
    """Refuse a set that leaves nothing to tell apart."""
    if len(labelled.classes) < 2:
        raise ValueError(
            f"{path} has one class only (`{labelled.classes[0]}`): nothing can be told apart"
        )
    return labelled


def _few(names: Sequence[str]) -> str:
    """The first few of some names."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(f"`{name}`" for name in names[:5]) + more
