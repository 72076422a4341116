"""Who may talk to the viewer: pages of its own host alone, and with the token where it is open to other machines.

A browser sends any page's requests to servers of its own machine. So a request must name a host of ours, which a page
that has pointed its own name at this machine does not, and come from a page of that host.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

LOOPBACK = ("127.0.0.1", "::1", "localhost")
COOKIE = "viewer"
HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:\d{1,5})?", re.IGNORECASE)


@dataclass(frozen=True)
class Guard:
    """names: hosts that a request may name, in lower case. token: what it must know, None: nothing."""

    names: frozenset[str]
    token: str | None = None

    @staticmethod
    def of(host: str, token: str | None) -> Guard:
        """For a server that listens on `host`: its names are those of this machine."""
        own = (host, socket.gethostname(), socket.getfqdn()) if token is not None else (host,)
        return Guard(frozenset(name.lower() for name in (*LOOPBACK, *own)), token)

    def refusal(self, headers: Mapping[str, Sequence[str]], path: str) -> str | None:
        """Why a request is refused, None where it is not. headers: all values of each name in lower case."""
        hosts, origins = headers.get("host", ()), headers.get("origin", ())
        if len(hosts) != 1 or not self._is_ours(hosts[0]):
            return "this host is not the viewer's"
        if len(origins) > 1 or any(not same_place(origin, hosts[0]) for origin in origins):
            return "a page of another place may not use the viewer"
        if self.token is not None and not self.invites(path) and not self._knows(headers.get("cookie", ())):
            return "the address with its token is needed, as view.py printed it"
        return None

    def invites(self, path: str) -> bool:
        """Whether the address of a request has the token."""
        given = parse_qs(urlsplit(path).query).get("token", [])
        return self.token is not None and len(given) == 1 and _equal(given[0], self.token)

    def _is_ours(self, host: str) -> bool:
        found = HOST.fullmatch(host)
        if found is None:
            return False
        name = found[1].strip("[]").lower()
        return name in self.names or (self.token is not None and _is_address(name))

    def _knows(self, cookies: Sequence[str]) -> bool:
        try:
            found = SimpleCookie("; ".join(cookies)).get(COOKIE)
        except CookieError:
            return False
        return found is not None and self.token is not None and _equal(found.value, self.token)


def same_place(origin: str, host: str) -> bool:
    """Whether an `Origin` is that of the pages of a `Host`."""
    scheme, _, place = origin.partition("://")
    return scheme in ("http", "https") and place.lower() == host.lower()


def _is_address(name: str) -> bool:
    """Whether a name is an address in numbers, which no page can point elsewhere."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _equal(given: str, secret: str) -> bool:
    return hmac.compare_digest(given.encode(), secret.encode())
