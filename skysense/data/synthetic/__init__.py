"""A synthetic scene in all three modalities, drawn from one land-cover map.

The same fields, forests, rivers and streets are seen by an aerial camera (`hr`), by Sentinel-2
(`s2`: phenology, clouds) and by Sentinel-1 (`s1`: speckle), so examples, tests and benchmarks run
offline on data that agree with each other. It needs numpy and rasterio only.

    classes.py      what each cover looks like: spectra, backscatter, season
    noise.py        smooth random fields and position hashes
    layout.py       the land-cover map: parcels, forest, town, river
    aerial.py       its aerial image
    satellites.py   its Sentinel-2 and Sentinel-1 series
    scene.py        the three together
    files.py        the scene as GeoTIFFs

Source: *ours*.
"""

from skysense.data.synthetic.classes import LAND_COVER, S2_BANDS, CoverClass
from skysense.data.synthetic.files import write_scene
from skysense.data.synthetic.layout import land_cover
from skysense.data.synthetic.scene import SyntheticScene, make_scene

__all__ = [
    "LAND_COVER",
    "S2_BANDS",
    "CoverClass",
    "SyntheticScene",
    "land_cover",
    "make_scene",
    "write_scene",
]
