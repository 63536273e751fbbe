"""What an examination says: plain frozen data that goes to the screen and to JSON alike."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
"""Worst first: `embed` refuses or gives nonsense; something is odd; good to know."""

CODES: Mapping[str, str] = {
    "empty-file": "the file has no bytes",
    "not-a-raster": "no raster format is recognized",
    "damaged": "a raster that breaks off or cannot be decoded",
    "no-bands": "a container without bands of its own",
    "complex-values": "complex numbers, such as single-look radar",
    "unusable": "refused when it is opened, for another reason",
    "no-crs": "no coordinate reference system",
    "no-geotransform": "no place on the ground",
    "crs-contradicts": "degrees in a metric coordinate system, metres in a geographic one",
    "south-up": "the first row is the southernmost",
    "rotated": "rows do not run west to east",
    "pixel-size": "pixels far from the size that the sensor card was made for",
    "slow-layout": "a large file in strips or without overviews",
    "no-band-names": "the bands have no names",
    "duplicate-band": "two bands have the same name",
    "missing-bands": "bands of the sensor card are not there",
    "colours-contradict": "a band's name says another colour than its colour interpretation",
    "alpha-is-data": "a band is marked as a mask (alpha) and holds measurements",
    "own-output": "a map that this package made, and no imagery",
    "unknown-sensor": "no sensor card fits names and values",
    "not-decibel": "linear power read as decibel",
    "not-power": "decibel read as linear power",
    "radar-numbers": "radar amplitude or digital numbers, neither decibel nor power",
    "not-numbers": "reflectance read as digital numbers",
    "not-reflectance": "digital numbers read as reflectance",
    "eight-bit": "a stretched 8-bit picture in place of reflectance",
    "sixteen-bit": "16-bit numbers read as 8-bit brightness",
    "brightness-fraction": "brightness of 0 to 1 read as 0 to 255",
    "implausible-values": "values that the sensor card cannot mean",
    "offset-there": "Sentinel-2 numbers with the offset of 1000, read without it",
    "offset-missing": "Sentinel-2 numbers without the offset of 1000, read with it",
    "offset-unknown": "nothing says whether Sentinel-2 numbers carry the offset of 1000",
    "ground-range": "Sentinel-1 GRD, placed without terrain correction",
    "mixed-baselines": "Sentinel-2 files with and without the offset of 1000 in one series",
    "mixed-products": "files of one place are of several sensor cards of a modality",
    "bands-exchanged": "names of optical bands are exchanged",
    "polarizations-exchanged": "VV and VH are exchanged",
    "no-nodata": "a border of one value that is not declared as nodata",
    "wrong-nodata": "the declared nodata value never occurs, the border has another",
    "nothing-valid": "every pixel looked at is nodata",
    "not-finite": "infinite or NaN values among the measurements",
    "zero-band": "a band holds nothing but zero",
    "constant-band": "a band holds one value everywhere",
    "saturated": "many values sit at the upper end of what can be stored",
    "clouds": "a cloud mask takes a part of the pixels away",
    "all-cloudy": "nearly everything is cloud",
    "no-date": "the file's name has no date",
    "future-date": "the date lies in the future",
    "early-date": "the date lies before the sensor flew",
    "duplicate-date": "two files hold the same bands of one day and place",
    "mixed-crs": "the files of a place are in several coordinate systems",
    "mixed-grids": "pixels of the same size whose edges do not meet",
    "no-overlap": "the files lie in several places",
    "not-used": "a file that the reader leaves out",
    "refused": "the files are refused together",
}
"""Every code and what it means in a few words."""


@dataclass(frozen=True)
class Finding:
    """One thing that was found."""

    severity: Severity
    """How bad it is."""
    code: str
    """Stable key, of `CODES`."""
    message: str
    """One sentence with the numbers."""
    fix: str | None = None
    """What mends it: an option of `skysense embed` (starts with `--`) or another command."""
    files: tuple[str, ...] = ()
    """The files it is about; several where it is about a series."""

    def __post_init__(self) -> None:
        """A code that is not in the table is a mistake of ours."""
        assert self.code in CODES, self.code

    @property
    def is_fatal(self) -> bool:
        """An error that no option of `embed` mends, so that the file stays out."""
        return self.severity == "error" and not (self.fix or "").startswith("--")


@dataclass(frozen=True)
class Guess:
    """Which sensor card a file is of."""

    card: str
    """Name of the card."""
    reasons: tuple[str, ...]
    """What speaks for it."""
    others: tuple[str, ...] = ()
    """Cards that would fit as well, or nearly."""
    bands: tuple[str, ...] | None = None
    """Band names to give with `--bands`, where the file has none or wrong ones."""


@dataclass(frozen=True)
class FileReport:
    """What a file is."""

    path: str
    """Where it is."""
    bytes: int
    """Its size."""
    shape: tuple[int, int] | None = None
    """`(H, W)`; this and all below are `None` where it cannot be opened."""
    metres: float | None = None
    """Side of a pixel on the ground."""
    crs: str | None = None
    """Its coordinate reference system in short, e.g. `EPSG:32632`."""
    bands: tuple[str | None, ...] = ()
    """A name a band."""
    dtype: str | None = None
    """Stored type."""
    date: str | None = None
    """Day of acquisition, `YYYY-MM-DD`."""
    nodata: float | str | None = None
    """Declared nodata value; a word (`nan`) where JSON has no number for it."""
    median: float | None = None
    """Median of the stored values in the sample, over all bands."""
    guess: Guess | None = None
    """The sensor card."""


@dataclass(frozen=True)
class Report:
    """Files, findings, and what to do with them."""

    files: tuple[FileReport, ...]
    """In the order they were given."""
    findings: tuple[Finding, ...]
    """Of all files and of the series they make, the worst first."""
    commands: tuple[str, ...] = ()
    """A `skysense embed` that works for each place that the files lie in."""

    def of(self, path: str | Path) -> tuple[Finding, ...]:
        """Findings about one file alone."""
        return tuple(f for f in self.findings if f.files == (str(path),))

    @property
    def across(self) -> tuple[Finding, ...]:
        """Findings about several files together."""
        return tuple(f for f in self.findings if len(f.files) != 1)

    def count(self, severity: Severity) -> int:
        """How many findings are of a severity."""
        return sum(finding.severity == severity for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """`{"files": [...], "findings": [...], "command": ...}`, ready for JSON."""
        return {
            "files": [asdict(file) for file in self.files],
            "findings": [asdict(finding) for finding in self.findings],
            "command": " && ".join(self.commands) or None,
        }


def worst_first(findings: list[Finding]) -> tuple[Finding, ...]:
    """Errors, warnings, notes; otherwise in the order found."""
    return tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity)))
