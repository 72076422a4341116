"""Who may talk to the viewer: the rules, and a server that keeps them."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from engine.viewer.guard import Guard, same_place
from utils.errors import InputError

OWN = {"host": ["127.0.0.1:7007"]}
LOCAL, OPEN = Guard.of("127.0.0.1", None), Guard.of("10.1.2.3", "secret")


@pytest.mark.parametrize(
    "host", ["127.0.0.1:7007", "localhost:9000", "LOCALHOST", "[::1]:7007"]
)
def test_names_of_this_machine_are_let_in(host: str) -> None:
    assert LOCAL.refusal({"host": [host], "origin": [f"http://{host}"]}, "/") is None
    assert LOCAL.refusal({"host": [host]}, "/") is None


@pytest.mark.parametrize(
    "hosts",
    [[], [""], ["evil.example"], ["evil.example:7007"], ["127.0.0.1.evil.example"], ["127.0.0.1", "evil.example"],
     ["localhost@evil.example"], ["evil.example#localhost"], ["10.1.2.3:7007"], ["127.0.0.1:7007 "], ["localhost:7:7"],
     ["[::1"], ["0x7f000001"], ["localhost."], ["\x00"]],
)  # fmt: skip
def test_other_hosts_are_refused(hosts: list[str]) -> None:
    assert LOCAL.refusal({"host": hosts}, "/")


@pytest.mark.parametrize(
    "origins",
    [["http://evil.example"], ["null"], ["http://127.0.0.1:3000"], ["http://localhost:7007"], ["file://"], [""],
     ["http://127.0.0.1:7007.evil.example"], ["ftp://127.0.0.1:7007"], ["http://127.0.0.1:7007/"],
     ["http://127.0.0.1:7007", "http://evil.example"], ["http://evil.example/127.0.0.1:7007"]],
)  # fmt: skip
def test_pages_of_other_places_are_refused(origins: list[str]) -> None:
    assert LOCAL.refusal({**OWN, "origin": origins}, "/")


def test_a_page_behind_a_tunnel_is_its_own_place() -> None:
    assert same_place("https://localhost:9000", "localhost:9000") and not same_place("https://localhost", "localhost:1")


def test_an_open_viewer_needs_its_token() -> None:
    own = {"host": ["10.1.2.3:7007"]}
    assert OPEN.refusal(own, "/") and OPEN.refusal(own, "/?token=wrong") and OPEN.refusal(own, "/?token=")
    assert OPEN.refusal(own, "/?token=secret&token=wrong"), "one is meant"
    assert OPEN.refusal(own, "/?token=secret") is None and OPEN.invites("/x?a=b&token=secret")
    for cookies in (["viewer=wrong"], ["other=secret"], ["viewer="], ["\x00;;=,"], ["viewer=secret2"]):
        assert OPEN.refusal({**own, "cookie": cookies}, "/")
    assert OPEN.refusal({**own, "cookie": ["a=b; viewer=secret"]}, "/") is None
    assert OPEN.refusal({"host": ["evil.example"], "cookie": ["viewer=secret"]}, "/"), "the host counts all the same"
    assert OPEN.refusal({"host": ["192.0.2.7:1"], "cookie": ["viewer=secret"]}, "/") is None, "numbers are no page's"
    assert not LOCAL.invites("/?token=None")


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    pytest.importorskip("viser")
    from engine.viewer.server import start_server

    found = start_server("127.0.0.1", free_port(), Guard(frozenset({"127.0.0.1"}), "secret"), "test")
    yield found
    found.stop()


def free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return int(place.getsockname()[1])


def asked(port: int, path: str = "/", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    found = answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    connection.close()
    return found


def upgrade(port: int, **headers: str) -> int:
    key = {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version": "13"}
    more = {"Sec-WebSocket-Protocol": "viser-v1.1.1", "Upgrade": "websocket", "Connection": "Upgrade"}
    return asked(port, **{**key, **more, **headers})[0]


def test_a_server_keeps_the_rules(server: Any) -> None:
    port = server.get_port()
    assert asked(port)[0] == 403 and asked(port, Host="evil.example", Cookie="viewer=secret")[0] == 403
    status, headers, _ = asked(port, "/?token=secret")
    assert status == 303 and headers["location"] == "/" and "HttpOnly" in headers["set-cookie"]
    status, _, page = asked(port, Cookie=headers["set-cookie"].partition(";")[0])
    assert status == 200 and b"<html" in page
    assert asked(port, "/../server.py", Cookie="viewer=secret")[0] == 404
    own = {"Cookie": "viewer=secret"}
    assert upgrade(port) == 403 and upgrade(port, Origin="http://evil.example", **own) == 403
    assert upgrade(port, Host="evil.example", Origin="http://evil.example", **own) == 403
    assert upgrade(port, Origin=f"http://127.0.0.1:{port}", **own) == 101


def test_a_server_opens_no_tunnel(server: Any) -> None:
    assert server.request_share_url() is None and server._share_tunnel is None


def test_nothing_is_served_where_requests_cannot_be_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a change in viser that goes around the guard."""
    pytest.importorskip("viser")
    from engine.viewer import server as servers

    monkeypatch.setattr(servers, "checked", lambda guard, answer: answer)
    port = free_port()
    with pytest.raises(InputError, match="cannot be checked"):
        servers.start_server("127.0.0.1", port, LOCAL, "test")
    with pytest.raises(ConnectionError):
        asked(port)
