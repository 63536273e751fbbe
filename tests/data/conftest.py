"""Small rasters as users have them: any type, grid, names, nodata, mask."""

import warnings

import numpy as np
import pytest
import rasterio
from pyproj import Transformer
from rasterio import Affine
from rasterio.control import GroundControlPoint
from rasterio.errors import NotGeoreferencedWarning

UTM = (10.0, 0.0, 600_000.0, 0.0, -10.0, 5_340_000.0)


@pytest.fixture
def raster(tmp_path):
    """`raster(name, pixels (C, H, W), names=..., mask=..., **profile) -> Path`."""

    def write(name, pixels, names=None, mask=None, colours=None, transform=UTM, **profile):
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
            if colours:
                file.colorinterp = colours
            if mask is not None:
                file.write_mask(mask)
        return path

    return write


TRACKS = {"ascending": -12.0, "descending": 192.0}
"""Heading of the satellite, degrees clockwise from north; it looks to its right."""


class GroundRangeScene:
    """What a synthetic GRD product shows, and the tables that hide it in digital numbers."""

    shape = (220, 260)  # lines, pixels
    origin = (600_000.0, 5_340_000.0)  # of the centre of the image, EPSG:32632
    day = "2020-09-03"

    def __init__(self, track="ascending"):
        self.name = "S1A_IW_GRDH_1SDV_20200903T171212_20200903T171237_034197_03F8E6_2D1B"
        heading = np.deg2rad(TRACKS[track])
        self.along = 10 * np.array([np.sin(heading), np.cos(heading)])  # metres a line
        self.across = 10 * np.array([np.cos(heading), -np.sin(heading)])  # metres a pixel

    def xy(self, lines, pixels):
        """Place of the centres of pixels."""
        i, j = lines - (self.shape[0] - 1) / 2, pixels - (self.shape[1] - 1) / 2
        return tuple(self.origin[k] + i * self.along[k] + j * self.across[k] for k in (0, 1))

    def line_pixel(self, x, y):
        """The inverse."""
        dx, dy = x - self.origin[0], y - self.origin[1]
        i = (dx * self.along[0] + dy * self.along[1]) / 100
        j = (dx * self.across[0] + dy * self.across[1]) / 100
        return i + (self.shape[0] - 1) / 2, j + (self.shape[1] - 1) / 2

    def decibel(self, x, y, polarization="vv"):
        """The known gamma nought."""
        mean = {"vv": -10.0, "vh": -17.0}[polarization]
        return mean + 3 * np.sin(x / 300) + 2 * np.cos(y / 250)

    def gain(self, lines, pixels):
        """The calibration table, bilinear."""
        return 4000 + 2.0 * pixels + 3.0 * lines + 0.01 * lines * pixels

    def noise(self, lines, pixels, azimuth=True):
        """Squared digital numbers, as strong as a tenth of the signal; a swath has two parts."""
        return (2e4 + 150.0 * pixels) * (self.azimuth(lines, pixels) if azimuth else 1.0)

    def azimuth(self, lines, pixels):
        return np.where(pixels < 130, 0.8 + lines / 500, 1.2 - lines / 1000)

    def numbers(self, polarization, noise=True, azimuth=True):
        """Digital numbers of the whole image."""
        lines, pixels = np.indices(self.shape).astype(float)
        power = 10 ** (self.decibel(*self.xy(lines, pixels), polarization) / 10)
        squared = power * self.gain(lines, pixels) ** 2
        if noise:
            squared += self.noise(lines, pixels, azimuth)
        return np.round(np.sqrt(squared)).astype(np.uint16)

    def points(self):
        """Control points on every 50th line and about every 60th pixel, lon lat height."""
        lines, pixels = (np.linspace(0, size - 1, 6).round() for size in self.shape)
        lines, pixels = (part.ravel() for part in np.meshgrid(lines, pixels, indexing="ij"))
        there = Transformer.from_crs("EPSG:32632", "EPSG:4326", always_xy=True)
        lon, lat = there.transform(*self.xy(lines, pixels))
        return list(zip(lines, pixels, lon, lat, 400 + lines, strict=True))


def words(values, form="{:.8e}"):
    return " ".join(form.format(value) for value in values)


def calibration_xml(scene):
    lines, pixels = (np.array([0, size // 2, size - 1]) for size in scene.shape)
    vectors = "".join(
        f"<calibrationVector><line>{line}</line><pixel count='3'>{words(pixels, '{}')}</pixel>"
        f"<sigmaNought count='3'>1 1 1</sigmaNought>"
        f"<gamma count='3'>{words(scene.gain(line, pixels))}</gamma></calibrationVector>"
        for line in lines
    )
    return (
        f"<calibration><calibrationVectorList count='3'>{vectors}</calibrationVectorList>"
        f"</calibration>"
    )


def noise_xml(scene, azimuth=True):
    last, pixels = scene.shape[0] - 1, np.array([0, 100, scene.shape[1] - 1])
    tag, value = ("noiseRangeVector", "noiseRangeLut") if azimuth else ("noiseVector", "noiseLut")
    vectors = "".join(
        f"<{tag}><line>{line}</line><pixel>{words(pixels, '{}')}</pixel>"
        f"<{value}>{words(scene.noise(line, pixels, azimuth=False))}</{value}></{tag}>"
        for line in (0, last)
    )
    parts = "".join(
        f"<noiseAzimuthVector><swath>IW{i}</swath><firstAzimuthLine>0</firstAzimuthLine>"
        f"<firstRangeSample>{left}</firstRangeSample><lastAzimuthLine>{last}</lastAzimuthLine>"
        f"<lastRangeSample>{right}</lastRangeSample><line>0 {last}</line><noiseAzimuthLut>"
        f"{words(scene.azimuth(np.array([0, last]), left))}</noiseAzimuthLut></noiseAzimuthVector>"
        for i, (left, right) in enumerate(((0, 129), (130, scene.shape[1] - 1)))
    )
    parts = f"<noiseAzimuthVectorList>{parts}</noiseAzimuthVectorList>" if azimuth else ""
    return f"<noise><{tag}List>{vectors}</{tag}List>{parts}</noise>"


def annotation_xml(scene):
    names = ("line", "pixel", "longitude", "latitude", "height")
    points = "".join(
        "<geolocationGridPoint>"
        + "".join(f"<{name}>{value!r}</{name}>" for name, value in zip(names, point, strict=True))
        + "</geolocationGridPoint>"
        for point in ([float(value) for value in point] for point in scene.points())
    )
    return f"<product><geolocationGrid>{points}</geolocationGrid></product>"


@pytest.fixture
def grd(tmp_path):
    """`grd(scene, ...) -> the SAFE folder` of Sentinel-1 GRD."""

    def make(
        scene=None,
        name=None,
        words=("vv", "vh"),
        folder="radar",
        noise="both",  # or "range", as before IPF 2.9, or "" for none
        tied=True,
        change=None,
    ):
        scene = scene or GroundRangeScene()
        root = tmp_path / folder / f"{name or scene.name}.SAFE"
        inside = root / "annotation" / "calibration"
        inside.mkdir(parents=True)
        (root / "measurement").mkdir()
        points = [GroundControlPoint(*point[:5]) for point in scene.points()] if tied else None
        for i, word in enumerate(words):
            stem = f"s1a-iw-grd-{word}-20200903t171212-20200903t171237-034197-03f8e6-00{i + 1}"
            shown = {"hh": "vv", "hv": "vh"}.get(word, word)
            pixels = scene.numbers(shown, bool(noise), noise == "both")
            if change is not None:
                pixels = change(pixels)
            facts = {"gcps": points, "crs": "EPSG:4326"} if tied else {}
            facts |= {"height": pixels.shape[0], "width": pixels.shape[1], "dtype": pixels.dtype}
            path = root / "measurement" / f"{stem}.tiff"
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                with rasterio.open(path, "w", driver="GTiff", count=1, **facts) as file:
                    file.write(pixels, 1)
            (inside / f"calibration-{stem}.xml").write_text(calibration_xml(scene))
            if noise:
                (inside / f"noise-{stem}.xml").write_text(noise_xml(scene, noise == "both"))
            (root / "annotation" / f"{stem}.xml").write_text(annotation_xml(scene))
        return root

    return make


@pytest.fixture
def ground_range_scene():
    """`ground_range_scene(track)`: what `grd` writes."""
    return GroundRangeScene
