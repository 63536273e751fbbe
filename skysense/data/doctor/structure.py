"""What is wrong with a file whatever sensor it is of: the file itself, its place, its bands, date.

Each check gives findings without their file, which the caller knows.
"""

import math
import shlex
from collections.abc import Iterator

from rasterio.enums import ColorInterp

from skysense.data.doctor.findings import Finding, Severity
from skysense.data.doctor.look import Header, Look
from skysense.data.products.grd import GroundRange
from skysense.sensors import SENSORS
from skysense.sensors.match import matches

LARGE = 4096 * 4096
"""Pixels from which on the layout of a file matters."""

_DEGREES = (-360.0, -90.0, 360.0, 90.0)
"""Bounds within which coordinates can be degrees."""

_MASK_LEVELS = 64
"""Different values from which on a band is no mask."""

_SHARE = 0.01
"""Of pixels that are not finite, below which it is no more than a note."""


def structure(look: Look) -> Iterator[Finding]:
    """Everything below, in order."""
    if look.header is None:
        yield _unreadable(look)
        return
    yield from _usable(look, look.header)
    product = look.found.product
    if product is not None and product.is_ground_range:
        yield _ground_range(look)
        if look.file is None:
            return
    elif product is not None and product.note:
        yield Finding("note", "offset-unknown", product.note, "--sensor s2_l2a_n0400")
    if look.header.count == 0:
        return
    yield from _place(look, look.header)
    yield from _layout(look, look.header)
    yield from _colours(look, look.header)
    if look.sample.count and look.measured:
        yield from _content(look, look.header)


def _unreadable(look: Look) -> Finding:
    """Why a file cannot be opened."""
    if look.path.is_dir():
        return Finding("error", "unusable", str(look.trouble), "mend or remove its metadata")
    if look.bytes == 0:
        return Finding("error", "empty-file", "the file has no bytes", "get it again")
    if look.is_truncated:
        what = f"begins like a raster or an archive ({look.bytes} bytes)"
        text = f"{what} but cannot be opened: {look.trouble}"
        return Finding("error", "damaged", text, "get the file again")
    text = f"is no raster that GDAL can read ({look.trouble})"
    return Finding("error", "not-a-raster", text, "leave it out, or convert it to GeoTIFF")


def _ground_range(look: Look) -> Finding:
    """Sentinel-1 GRD: what it lacks on mountains, or why it cannot be read at all."""
    if look.file is None:
        return Finding("error", "unusable", str(look.trouble), "see the message")
    text = "is placed by its ground control points, without terrain correction"
    if isinstance(look.file, GroundRange):
        low, high = look.file.points.heights
        text += f"; their heights are {low:.0f} to {high:.0f} m"
    return Finding("note", "ground-range", text, "take RTC for mountains")


def _usable(look: Look, header: Header) -> Iterator[Finding]:
    """What makes the readers refuse it, but for its place."""
    if header.count == 0:
        text = f"is a {header.driver} container without bands of its own"
        fix = f"rio convert LAYER_OF_{look.path.name} layer.tif"
        yield Finding("error", "no-bands", text, fix)
        return
    kinds = [dtype for dtype in header.dtypes if "complex" in dtype]
    if kinds:
        text = f"holds complex numbers ({kinds[0]}), of which no sensor card has any"
        yield Finding("error", "complex-values", text, "give backscatter (VV, VH in dB) instead")
    if look.failures:
        count = len(look.failures)
        text = f"is damaged: {count} of the places looked at cannot be read ({look.failures[0]})"
        yield Finding("error", "damaged", text, "get the file again")
    located = header.crs is not None and not _is_identity(header)
    if look.file is None and located and not kinds and not _contradiction(header):
        outside = "outside the coordinate system" in str(look.trouble)
        text = str(look.trouble)
        code = "crs-contradicts" if outside else "unusable"
        fix = "mend the georeference" if outside else "see the message"
        yield Finding("error", code, text, fix)


def _is_identity(header: Header) -> bool:
    """Whether there is no geotransform."""
    return header.transform == (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def _place(look: Look, header: Header) -> Iterator[Finding]:
    """Coordinate system and geotransform."""
    file = shlex.quote(str(look.path))
    if header.crs is None:
        text = "has no coordinate reference system, so its place on the ground is unknown"
        if "ground control points" in str(look.trouble):
            yield Finding("error", "no-crs", str(look.trouble), "correct it for terrain first")
            return
        yield Finding("error", "no-crs", text, f"rio edit-info --crs EPSG:... {file}")
    if _is_identity(header):
        text = "has no geotransform, so its place on the ground is unknown"
        fix = f"rio edit-info --transform '[10, 0, LEFT, 0, -10, TOP]' {file}"
        yield Finding("error", "no-geotransform", text, fix)
        return
    if said := _contradiction(header):
        fix = f"rio edit-info --crs EPSG:{'...' if header.is_geographic else 4326} {file}"
        yield Finding("error", "crs-contradicts", said, fix)
    _, b, _, d, e, _ = header.transform
    system = header.crs if header.crs and header.crs.startswith("EPSG:") else "EPSG:..."
    north_up = f"rio warp {file} north_up.tif --dst-crs {system}"
    if b != 0 or d != 0:
        text = (
            f"its rows do not run west to east: the grid is turned by {_turn(header):.1f} degrees"
        )
        yield Finding("note", "rotated", f"{text}, and so will the map be", north_up)
    elif e > 0:
        text = "its first row is the southernmost (south-up), and so will the map's be"
        yield Finding("note", "south-up", text, north_up)


def _turn(header: Header) -> float:
    """Angle of the rows in degrees."""
    a, _, _, d, _, _ = header.transform
    return math.degrees(math.atan2(d, a))


def _contradiction(header: Header) -> str | None:
    """Where the coordinates cannot be in the coordinate system."""
    if header.crs is None or _is_identity(header):
        return None
    a, b, c, d, e, f = header.transform
    (height, width), size = header.shape, math.hypot(a, d)
    xs = [c, c + a * width, c + b * height, c + a * width + b * height]
    ys = [f, f + d * width, f + e * height, f + d * width + e * height]
    box = f"x {min(xs):.7g} to {max(xs):.7g}, y {min(ys):.7g} to {max(ys):.7g}"
    left, bottom, right, top = _DEGREES
    fits = left <= min(xs) and max(xs) <= right and bottom - 1 <= min(ys) and max(ys) <= top + 1
    if header.is_geographic and not fits:
        return f"{header.crs} is in degrees, but the file lies at {box}: these look like metres"
    if not header.is_geographic and fits and size < 0.05 and size * max(height, width) < 90:
        return f"{header.crs} is in metres, but the file lies at {box}: these look like degrees"
    return None


def _layout(look: Look, header: Header) -> Iterator[Finding]:
    """Large files that are slow to read."""
    height, width = header.shape
    if height * width < LARGE:
        return
    if header.is_striped or not header.has_overviews:
        lacking = "is stored in strips" if header.is_striped else "has no overviews"
        text = f"{height} x {width} pixels, {lacking}: windows and quick looks are slow to read"
        target = shlex.quote(f"{look.path.stem}_cog.tif")
        source = shlex.quote(str(look.path))
        yield Finding("note", "slow-layout", text, f"rio convert {source} {target} --driver COG")


def _colours(look: Look, header: Header) -> Iterator[Finding]:
    """Band names against colour interpretation; a mask that is none."""
    names = {"red": ColorInterp.red, "green": ColorInterp.green, "blue": ColorInterp.blue}
    rgb = dict(zip(names.values(), SENSORS["rgb8"].bands, strict=True))
    for i, colour in enumerate(header.colours):
        name = header.descriptions[i]
        if colour not in rgb or not name or matches(rgb[colour], name):
            continue
        other = next((c.name for c, band in rgb.items() if matches(band, name)), None)
        if other:
            text = f"band {i + 1} is named {name} ({other}) but coloured as {colour.name}"
            fix = "none needed where the names are right: they count"
            yield Finding("note", "colours-contradict", text, fix)
            return
    alpha = look.file.alpha if look.file else None
    if alpha is None or not look.sample.count:
        return
    count, low, high = look.sample.levels[alpha]
    if count > _MASK_LEVELS:
        text = (
            f"band {alpha + 1} is marked as a mask (alpha) but holds {count} different values, "
            f"{low:g} to {high:g}: it looks like near infrared"
        )
        fix = ",".join([*(n or f"other{i + 1}" for i, n in enumerate(look.names[:-1])), "N"])
        yield Finding("warning", "alpha-is-data", text, f"--bands {fix}")


def _content(look: Look, header: Header) -> Iterator[Finding]:
    """Valid at all, finite, nodata."""
    sample = look.sample
    if not sample.valid:
        everywhere = "every pixel" if look.is_whole else f"every one of {sample.count} pixels seen"
        severity: Severity = "error" if look.is_whole else "warning"
        text = f"{everywhere} is nodata (declared: {header.nodata})"
        yield Finding(severity, "nothing-valid", text, "leave the file out")
    elif sample.infinite:
        text = f"{100 * sample.infinite:.2g} % of the pixels are infinite; they are masked"
        yield Finding("warning", "not-finite", text, "make the file again without them")
    elif sample.missing:
        text = f"{100 * sample.missing:.2g} % of the pixels are NaN; they are masked"
        fix = f"rio edit-info --nodata nan {shlex.quote(str(look.path))}"
        severity = "warning" if sample.missing > _SHARE else "note"
        yield Finding(severity, "not-finite", text, fix)
