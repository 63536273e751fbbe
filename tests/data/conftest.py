"""Small rasters as users have them: any type, grid, names, nodata, mask."""

import pytest
import rasterio
from rasterio import Affine

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
