"""Where samples come from: each module turns one kind of source into drafts.

images.py       pictures and small rasters, one sample a file: folders, zip archives
arrays.py       `.npz` files
scenes.py       rasters of one place in several modalities and dates, cut into windows
items.py        STAC items
generated.py    the synthetic world
choosing.py     which of these a path is
"""
