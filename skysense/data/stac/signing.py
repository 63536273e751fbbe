"""Addresses of the Planetary Computer, whose storage wants a token beside each.

A token is asked for once for each store, and again shortly before it ends, after about an hour.
Source: the documentation of its "SAS" service.
"""

import time
from datetime import datetime
from urllib.parse import urlsplit

from skysense._optional import require

STORAGE = ".blob.core.windows.net"
"""Hosts that want a token."""

_SERVICE = "https://planetarycomputer.microsoft.com/api/sas/v1/token"

_EARLIER = 300.0
"""Seconds before its end that a token is replaced, so that it holds while a window is read."""


class PlanetarySigner:
    """Turns addresses of assets into those that can be read; others stay as they are."""

    def __init__(self, service: str = _SERVICE, storage: str = STORAGE) -> None:
        """Nothing is asked for yet.

        Args:
            service: where tokens are given out.
            storage: ending of the hosts that want one.
        """
        self._service, self._storage = service, storage
        self._tokens: dict[tuple[str, str], tuple[str, float]] = {}

    def __call__(self, address: str) -> str:
        """The address with its token.

        Raises:
            ValueError: no token is to be had.
        """
        parts = urlsplit(address)
        if not parts.netloc.endswith(self._storage) or parts.query:
            return address
        store = (parts.netloc.split(".")[0], parts.path.lstrip("/").split("/")[0])
        token, end = self._tokens.get(store, ("", 0.0))
        if time.time() > end - _EARLIER:
            token, end = self._tokens[store] = self._ask(store)
        return f"{address}?{token}"

    def _ask(self, store: tuple[str, str]) -> tuple[str, float]:
        """A fresh token for an account's container, and when it ends, in seconds since 1970."""
        web = require("requests", "stac")
        address = f"{self._service}/{store[0]}/{store[1]}"
        try:
            answer = web.get(address, timeout=30)
            answer.raise_for_status()
            told = answer.json()
            return str(told["token"]), datetime.fromisoformat(told["msft:expiry"]).timestamp()
        except (web.RequestException, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{address}: gives no token to read with ({error})") from None
