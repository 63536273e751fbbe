"""Products as the archives deliver them: what a folder, a zip or a file name says of its rasters.

A product's name and metadata say what its numbers mean, on which day they were measured, and which
files belong together; a raster alone says little of that.

    naming.py     what the names of products say
    metadata.py   what is written beside the rasters: MTD_MSIL2A.xml, MTL.txt, a STAC item
    archives.py   zip and tar files, read without unpacking
    search.py     the rasters of files, folders and archives, each with its product
    grd.py        Sentinel-1 GRD, calibrated (calibration.py) and placed by its control points
                  (control.py)
    clouds.py     classes and bits that are cloud, and what share of a date they cover
"""

from skysense.data.products.clouds import cloud_share, find_masks, is_clear
from skysense.data.products.naming import Product
from skysense.data.products.search import Found, find_files, inspect_found

__all__ = [
    "Found",
    "Product",
    "cloud_share",
    "find_files",
    "find_masks",
    "inspect_found",
    "is_clear",
]
