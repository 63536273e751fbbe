"""Find the items of a STAC API, a static catalog or collection, an item collection, or one item.

Everything that goes wrong on the way is a `ValueError` of one line that names the address.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import numpy as np

from skysense._optional import require
from skysense.data.products.choice import DateRange
from skysense.data.rasters import public
from skysense.geo import Bounds, intersect

if TYPE_CHECKING:
    import pystac
    from pystac_client.stac_api_io import StacApiIO

_TIMEOUT = 30.0
"""Seconds to wait for an answer."""

_RETRIES = 2
"""How often a request is repeated whose server is busy or out of reach."""


@dataclass(frozen=True)
class Query:
    """What is asked of a source."""

    bbox: Bounds | None = None
    """West, south, east, north in degrees; west above east lies over the antimeridian."""
    dates: DateRange | None = None
    """Days."""
    collections: tuple[str, ...] = ()
    """Names of collections; nothing means all."""
    most: int = 1000
    """More items than that are refused."""

    def __str__(self) -> str:
        """In words."""
        parts = [f"bbox {list(self.bbox)}"] if self.bbox else []
        parts += [f"dates {self.dates}"] if self.dates else []
        parts += [f"collection {', '.join(self.collections)}"] if self.collections else []
        return ", ".join(parts) or "no condition"

    @property
    def boxes(self) -> list[Bounds]:
        """The box in two halves where it lies over the antimeridian."""
        if self.bbox is None:
            return []
        west, south, east, north = self.bbox
        if west < east:
            return [self.bbox]
        halves = [(west, south, 180.0, north), (-180.0, south, east, north)]
        return [box for box in halves if box[0] < box[2]]


def is_remote(source: str) -> bool:
    """Whether an address is of the web."""
    return source.startswith(("http://", "https://"))


def find_items(source: str, query: Query) -> "list[pystac.Item]":
    """The items of a source that meet a query, in order of day and name.

    Args:
        source: URL or file.
        query: what is asked.

    Raises:
        ValueError: the source cannot be read, is something else, or has no such item.
    """
    require("pystac_client", "stac")
    source = _plain_path(source)
    found: dict[tuple[str, str, str], pystac.Item] = {}
    with _plain_errors(source):
        for item in _items(source, query):
            found[(item.collection_id or "", item.id, str(item.datetime))] = item
            if len(found) > query.most:
                raise ValueError(
                    f"{public(source)}: more than {query.most} items for {query}; narrow the "
                    f"bounding box or the dates"
                )
    if not found:
        raise ValueError(f"{public(source)}: has no item for {query}")
    return sorted(found.values(), key=lambda item: (str(day_of(item)), item.id))


def day_of(item: "pystac.Item") -> np.datetime64:
    """Day of acquisition (UTC), of a range its first; NaT if there is none."""
    moment = item.datetime or item.common_metadata.start_datetime
    if moment is None:
        return np.datetime64("NaT", "D")
    moment = moment if moment.tzinfo is None else moment.astimezone(UTC)
    return np.datetime64(moment.date(), "D")


def _plain_path(source: str) -> str:
    """A `file://` address as a path; others as they are."""
    parts = urlsplit(source)
    return unquote(parts.path) if parts.scheme == "file" else source


class _Said(ValueError):
    """An error that names its source already."""


@contextmanager
def _plain_errors(source: str) -> Iterator[None]:
    """Whatever the STAC libraries raise, as one line that names the source."""
    errors = require("pystac_client.exceptions", "stac")
    stac = require("pystac.errors", "stac")
    web = require("requests", "stac")
    failures = (errors.APIError, stac.STACError, web.RequestException, OSError)
    malformed = (json.JSONDecodeError, KeyError, TypeError, AttributeError)
    try:
        yield
    except _Said:
        raise
    except failures as error:
        status = getattr(error, "status_code", None) or getattr(
            getattr(error, "response", None), "status_code", None
        )
        words = " ".join(str(error).split())[:200] or type(error).__name__
        said = f"the server answered {status}" if status else f"cannot be read ({words})"
        raise _Said(f"{public(source)}: {said}") from None
    except malformed as error:
        said = f"is not valid STAC ({type(error).__name__}: {error})"
        raise _Said(f"{public(source)}: {said}") from None
    except ValueError as error:  # ours name the source, those of a date in an item do not
        if public(source) in str(error):
            raise
        raise _Said(f"{public(source)}: is not valid STAC ({error})") from None


def _items(source: str, query: Query) -> "Iterator[pystac.Item]":
    """Items of whatever the source is."""
    io = _io()
    told = _read(source, io)
    kind = told.get("type")
    links = {link.get("rel"): link.get("href") for link in told.get("links", [])}
    if kind == "FeatureCollection":
        for one in told["features"]:
            yield from _fitting([_item(one, source)], query)
    elif kind == "Feature":
        yield from _fitting([_item(told, source)], query)
    elif "search" in links:
        yield from _search(source, query, io)
    elif kind == "Collection" and "items" in links and "root" in links:
        own = Query(query.bbox, query.dates, query.collections or (told["id"],), query.most)
        yield from _search(str(links["root"]), own, io)
    elif kind in ("Catalog", "Collection"):
        yield from _fitting(_walk(source, query, io), query)
    else:
        raise ValueError(
            f"{public(source)}: is of type {kind!r}; expected a STAC catalog, collection, item "
            f"collection or item"
        )


def _io() -> "StacApiIO":
    """Reads addresses and files, with time limits and a few retries."""
    retry = require("urllib3.util.retry", "stac").Retry
    again = retry(total=_RETRIES, backoff_factor=0.2, status_forcelist=(429, 502, 503, 504))
    module = require("pystac_client.stac_api_io", "stac")
    io: StacApiIO = module.StacApiIO(timeout=_TIMEOUT, max_retries=again)
    return io


def _read(source: str, io: "StacApiIO") -> dict[str, Any]:
    """The JSON object at an address."""
    if not is_remote(source) and not Path(source).is_file():
        raise ValueError(f"{source}: there is no such file (a STAC file, or the URL of one)")
    with _plain_errors(source):
        told = json.loads(io.read_text(source))
    if not isinstance(told, dict):
        raise ValueError(f"{public(source)}: is JSON but no STAC object")
    return told


def _item(told: dict[str, Any], source: str) -> "pystac.Item":
    """An item whose relative addresses start from where it was read, or from its own."""
    own = next(
        (link["href"] for link in told.get("links", []) if link.get("rel") == "self"), source
    )
    base = own if is_remote(own) and is_remote(source) else source
    item: pystac.Item = require("pystac", "stac").Item.from_dict(told, href=base)
    return item


def _search(source: str, query: Query, io: "StacApiIO") -> "Iterator[pystac.Item]":
    """Items of an API; a box over the antimeridian is asked for in two halves."""
    client = require("pystac_client", "stac").Client.open(source, stac_io=io)
    if not query.collections or query.bbox is None:
        names = sorted(one.id for one in client.get_collections())
        lacking = "collections" if not query.collections else "a bounding box"
        raise ValueError(
            f"{public(source)}: a search of an API needs {lacking} (--collection, --bbox); it has "
            f"{', '.join(names[:30])}{' and more' if len(names) > 30 else ''}"
        )
    for box in query.boxes:
        found = client.search(
            collections=list(query.collections),
            bbox=list(box),
            datetime=query.dates.query if query.dates else None,
            limit=100,
            max_items=query.most + 1,
        )
        yield from _fitting(found.items(), query)


def _walk(source: str, query: Query, io: "StacApiIO") -> "Iterator[pystac.Item]":
    """Items of a static catalog and all below it, but not of collections that are not asked for."""
    absolute = require("pystac.utils", "stac").make_absolute_href
    waiting, seen = [source], {source}
    while waiting:
        here = waiting.pop()
        told = _read(here, io)
        unasked = query.collections and told.get("id") not in query.collections
        for link in told.get("links", []):
            href = absolute(link["href"], here)
            if link["rel"] == "child" and href not in seen:
                seen.add(href)
                waiting.append(href)
            elif link["rel"] == "item" and not (told.get("type") == "Collection" and unasked):
                yield _item(_read(href, io), href)


def _fitting(items: "Sequence[pystac.Item] | Iterator[pystac.Item]", query: Query) -> Any:  # noqa: ANN401
    """Those that meet the query, as far as an item tells it."""
    for item in items:
        if query.collections and item.collection_id not in query.collections:
            continue
        if query.dates is not None and day_of(item) not in query.dates:
            continue
        if query.boxes and item.bbox and not _meets(item.bbox, query.boxes):
            continue
        yield item


def _meets(bbox: Sequence[float], boxes: Sequence[Bounds]) -> bool:
    """Whether an item's box shares ground with one of some boxes."""
    west, south, east, north = bbox if len(bbox) == 4 else (bbox[0], bbox[1], bbox[3], bbox[4])
    own = Query((west, south, east, north)).boxes
    return any(intersect(first, second) for first in own for second in boxes)
