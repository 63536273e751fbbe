"""Pre-training samples in WebDataset shards: built from imagery, read in a reproducible order.

stored.py    a sample as kept: stored numbers, dates, bands, masks
members.py   a sample as members of a tar archive, and back
index.py     where each sample lies
drafts.py    what a source is
sources/     images, arrays, scenes, STAC items, the synthetic world
build.py     drafts to a folder of shards
library.py   samples by number, and what is damaged
order.py     in which order
loader.py    batches
ahead.py     reading ahead in a thread or in processes
"""

from skysense.data.shards.build import Built, build_shards
from skysense.data.shards.drafts import Draft, leave_out, read_excluded
from skysense.data.shards.library import Library, Record
from skysense.data.shards.loader import Loaded, ShardLoader, Skipped
from skysense.data.shards.sources.arrays import arrays
from skysense.data.shards.sources.choosing import Reading, drafts_of
from skysense.data.shards.sources.generated import synthetic
from skysense.data.shards.sources.images import images
from skysense.data.shards.sources.items import items
from skysense.data.shards.sources.scenes import Cut, pairs, places, scene
from skysense.data.shards.stored import StoredSample, StoredSeries

__all__ = [
    "Built",
    "Cut",
    "Draft",
    "Library",
    "Loaded",
    "Reading",
    "Record",
    "ShardLoader",
    "Skipped",
    "StoredSample",
    "StoredSeries",
    "arrays",
    "build_shards",
    "drafts_of",
    "images",
    "items",
    "leave_out",
    "pairs",
    "places",
    "read_excluded",
    "scene",
    "synthetic",
]
