"""Zip and tar files: their members by the names that GDAL reads them under, without unpacking."""

import tarfile
import zipfile
from pathlib import Path, PurePosixPath

from skysense.data.rasters import is_member

SUFFIXES = (".zip", ".tar")
"""Archives that GDAL reads by members; a compressed tar it would unpack for each of them."""


_LONG = 100
"""Longest name of a member that GDAL reads in a tar file."""


def is_archive(path: Path) -> bool:
    """Whether a path names an archive that can be looked into.

    Raises:
        ValueError: it is a compressed tar.
    """
    if path.name.lower().endswith((".tar.gz", ".tgz", ".tar.bz2")) and path.is_file():
        raise ValueError(f"{path}: is a compressed tar; unpack it first (`tar -xf {path.name}`)")
    return path.suffix.lower() in SUFFIXES and path.is_file()


def members(archive: Path) -> list[Path]:
    """Paths of all files of an archive, `/vsizip/{ARCHIVE}/MEMBER`, sorted.

    Raises:
        ValueError: it is damaged.
    """
    prefix = "/vsizip" if archive.suffix.lower() == ".zip" else "/vsitar"
    try:
        if archive.suffix.lower() == ".zip":
            with zipfile.ZipFile(archive) as opened:
                names = [info.filename for info in opened.infolist() if not info.is_dir()]
        else:
            with tarfile.open(archive, "r:") as tar:
                names = [info.name for info in tar.getmembers() if info.isfile()]
    except (zipfile.BadZipFile, tarfile.TarError, OSError) as error:
        raise ValueError(f"{archive}: cannot be read as an archive ({error})") from None
    if prefix == "/vsitar" and any(len(name) > _LONG for name in names):
        raise ValueError(
            f"{archive}: has names that are too long to be read without unpacking; unpack it "
            f"first (`tar -xf {archive.name}`)"
        )
    root = f"{prefix}/{{{archive.absolute()}}}"
    return sorted(Path(f"{root}/{PurePosixPath(name)}") for name in names)


def split(path: Path) -> tuple[Path, str]:
    """Archive and member of a path of `members`."""
    text = str(path)
    start, end = text.index("{"), text.index("}")
    return Path(text[start + 1 : end]), text[end + 2 :]


def read_text(path: Path) -> str | None:
    """The text of a file or a member, `None` if there is no such.

    Raises:
        ValueError: it is there and cannot be read.
    """
    try:
        return _read(path).decode("utf-8", errors="replace")
    except (FileNotFoundError, NotADirectoryError, KeyError):
        return None
    except (zipfile.BadZipFile, tarfile.TarError, OSError) as error:
        raise ValueError(f"{path}: cannot be read ({error})") from None


def _read(path: Path) -> bytes:
    """Bytes of a file or a member."""
    if not is_member(path):
        return path.read_bytes()
    archive, member = split(path)
    if archive.suffix.lower() == ".zip":
        with zipfile.ZipFile(archive) as opened:
            return opened.read(member)
    with tarfile.open(archive, "r:") as tar:
        found = next(
            (info for info in tar if PurePosixPath(info.name) == PurePosixPath(member)), None
        )
        file = tar.extractfile(found) if found is not None else None
        if file is None:
            raise KeyError(member)
        return file.read()
