"""Find a card's bands among the names a file gives, never by position alone."""

import functools
import re
from collections.abc import Sequence

from skysense.sensors.cards import Band, SensorCard


@functools.lru_cache(maxsize=4096)
def tokens(text: str) -> frozenset[str]:
    """Split a description such as `"B04 - Red"` or `"VV_dB"` into comparable words.

    Upper case, leading zeros of numbers dropped: `{"B4", "RED"}`, `{"VV", "DB"}`.
    """
    words = re.split(r"[^A-Za-z0-9]+", text)
    return frozenset(re.sub(r"(?<=[A-Z])0+(?=\d)", "", word.upper()) for word in words if word)


def matches(band: Band, description: str) -> bool:
    """Whether a description names the band, by name or by one of its aliases."""
    found = tokens(description)
    return any(tokens(name) <= found for name in (band.name, *band.aliases))


def find_bands(card: SensorCard, descriptions: Sequence[str | None]) -> dict[str, int]:
    """Map the card's bands to positions in a list of band names.

    Args:
        card: which bands to look for.
        descriptions: one name a band of the file, `None` where the file gives none.

    Returns:
        `{band name: index}` for those found; missing ones are simply not in it.

    Raises:
        ValueError: two bands of the file claim the same name.
    """
    found: dict[str, int] = {}
    for band in card.bands:
        hits = [i for i, text in enumerate(descriptions) if text and matches(band, text)]
        words = [tokens(name) for name in (band.name, *band.aliases)]
        exact = [i for i in hits if tokens(descriptions[i] or "") in words]
        named = [i for i in hits if words[0] <= tokens(descriptions[i] or "")]
        hits = exact or named or hits  # "B8 - NIR" is B8, whatever "B8A - narrow NIR" says
        if len(hits) > 1:
            names = ", ".join(f"`{descriptions[i]}`" for i in hits)
            raise ValueError(
                f"{len(hits)} bands claim to be {band.name} of sensor `{card.name}`: {names}"
            )
        if hits:
            found[band.name] = hits[0]
    return found


def missing_bands(card: SensorCard, found: Sequence[str]) -> list[str]:
    """Names of the card's bands that are not in `found`, in card order."""
    return [band.name for band in card.bands if band.name not in found]
