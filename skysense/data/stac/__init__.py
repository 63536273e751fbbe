"""Scenes of STAC items: an API, a catalog on disk or on the web, an item collection, one item.

Items are found with pystac and pystac-client; their assets are read window by window by the same
readers as files, which are enough: they warp any grid lazily and read what is aligned byte by byte.

    items.py      find the items of a source
    kinds.py      which sensor an item is of, and what its numbers mean
    choosing.py   which asset holds which band
    assets.py     an asset as a source of pixels, without opening it where its item says enough
    signing.py    addresses of the Planetary Computer
    opening.py    items as layers and scenes
"""

from skysense.data.stac.opening import open_inputs, open_stac, stac_layers

__all__ = ["open_inputs", "open_stac", "stac_layers"]
