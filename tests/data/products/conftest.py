"""Tiny products in the names and folders of the archives."""

import shutil
import tarfile
import zipfile

import numpy as np
import pytest
import rasterio
from rasterio import Affine

from skysense.data.scene import SceneReader
from skysense.geo import Window

TEN = ("B02", "B03", "B04", "B08")
TWENTY = ("B05", "B06", "B07", "B8A", "B11", "B12")
L1C_SIZES = {**dict.fromkeys(TEN, 10), **dict.fromkeys(TWENTY, 20), "B01": 60, "B10": 60}

MTD = """<?xml version="1.0" encoding="UTF-8"?>
<n1:Level-{level}_User_Product xmlns:n1="https://psd-15.sentinel2.eo.esa.int/PSD/S2.xsd">
  <n1:General_Info><Product_Info>
    <PRODUCT_START_TIME>{day}T10:10:31.024Z</PRODUCT_START_TIME>
    <PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE>
  </Product_Info><Product_Image_Characteristics>
    {quantification}
    {offsets}
  </Product_Image_Characteristics></n1:General_Info>
</n1:Level-{level}_User_Product>
"""


def at(size, x=600_000.0, y=5_340_000.0):
    return Affine(size, 0.0, x, 0.0, -size, y)


def noise(seed, side, count=1):
    """Digital numbers of land, from 1100 on."""
    return np.random.default_rng(seed).integers(1100, 4000, (count, side, side)).astype(np.uint16)


def write(path, pixels, transform, crs="EPSG:32632", names=None, tags=None, **profile):
    path.parent.mkdir(parents=True, exist_ok=True)
    jp2 = {"driver": "JP2OpenJPEG", "QUALITY": "100", "REVERSIBLE": "YES", "YCBCR420": "NO"}
    facts = jp2 if path.suffix == ".jp2" else {"driver": "GTiff"}
    count, height, width = pixels.shape
    with rasterio.open(
        path,
        "w",
        count=count,
        height=height,
        width=width,
        dtype=pixels.dtype,
        crs=crs,
        transform=transform,
        **{**facts, **profile},
    ) as file:
        file.write(pixels)
        if names:
            file.descriptions = names
        file.update_tags(**(tags or {}))
    return path


def metadata(level, day, baseline, offset, quantification=10000):
    """The text of MTD_MSIL2A.xml or MTD_MSIL1C.xml."""
    stem, kind = ("BOA_", "BOA") if level == "2A" else ("", "RADIO")
    offsets = (
        ""
        if offset is None
        else "".join(
            f'<{kind}_ADD_OFFSET band_id="{i}">{offset}</{kind}_ADD_OFFSET>' for i in range(13)
        )
    )
    value = f"<{stem}QUANTIFICATION_VALUE>{quantification}</{stem}QUANTIFICATION_VALUE>"
    return MTD.format(
        level=level, day=day, baseline=baseline, quantification=value, offsets=offsets
    )


@pytest.fixture
def safe(tmp_path):
    """`safe(level, day, baseline, ...) -> the SAFE folder`."""

    def make(
        level="2A",
        day="2022-06-13",
        baseline="0400",
        offset=-1000,
        tile="T32UPU",
        seed=0,
        folder="in",
        x=600_000.0,
        y=5_340_000.0,
        crs="EPSG:32632",
        classes=None,
        metadata_text=None,
    ):
        stamp = f"{day.replace('-', '')}T101031"
        name = f"S2B_MSIL{level}_{stamp}_N{baseline}_R022_{tile}_20230101T120000.SAFE"
        root = tmp_path / folder / name
        images = root / f"GRANULE/L{level}_{tile}_A027500_{stamp}/IMG_DATA"
        sizes = L1C_SIZES if level == "1C" else None
        if sizes is None:
            jobs = [(band, size) for size, bands in ((10, TEN), (20, TWENTY)) for band in bands]
            jobs += [(band, 20) for band in TEN[:3]]
            for size in (10, 20):
                picture = np.full((3, 240 // size, 240 // size), 90, np.uint8)
                write(
                    images / f"R{size}m/{tile}_{stamp}_TCI_{size}m.jp2",
                    picture,
                    at(size, x, y),
                    crs,
                )
            if classes is None:
                classes = np.full((12, 12), 4, np.uint8)
            write(images / f"R20m/{tile}_{stamp}_SCL_20m.jp2", classes[None], at(20, x, y), crs)
        else:
            jobs = list(sizes.items())
        for i, (band, size) in enumerate(jobs):
            middle = f"R{size}m/" if level == "2A" else ""
            ending = f"_{size}m" if level == "2A" else ""
            path = images / f"{middle}{tile}_{stamp}_{band}{ending}.jp2"
            write(path, noise(100 * seed + i, 240 // size), at(size, x, y), crs)
        text = metadata(level, day, f"{baseline[:2]}.{baseline[2:]}", offset)
        (root / f"MTD_MSIL{level}.xml").write_text(metadata_text or text)
        quality = root / "GRANULE/x/QI_DATA"
        write(quality / "MSK_DETFOO_B02.jp2", np.ones((1, 24, 24), np.uint8), at(10, x, y), crs)
        return root

    return make


@pytest.fixture
def zipped():
    """Put a folder into a zip beside it, or a tar; the folder goes."""

    def make(root, ending=".zip", keep=False, inside=True):
        archive = root.parent / f"{root.name.removesuffix('.SAFE')}{ending}"
        files = sorted(p for p in root.rglob("*") if p.is_file())
        base = root.parent if inside else root
        if ending.endswith(".zip"):
            with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
                for path in files:
                    target.write(path, path.relative_to(base))
        else:
            with tarfile.open(archive, "w") as target:
                for path in files:
                    target.add(path, path.relative_to(base))
        if not keep:
            shutil.rmtree(root)
        return archive

    return make


@pytest.fixture
def read():
    """Read a whole scene, or a window; if asked, the scale is checked first."""

    def make(scene, window=None, scale=False, **options):
        with SceneReader(scene, **options) as reader:
            if scale:
                reader.check_scale()
            return reader.read(window or Window(0, 0, *scene.grid.shape))

    return make


@pytest.fixture
def put():
    """The writer of rasters, for tests that lay out other products."""
    return write
