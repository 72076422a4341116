"""viser's server behind a guard: no request reaches it that `Guard` refuses, and it opens no tunnel.

viser has no hook for this, so the function that makes its server is replaced while it starts; then a request that must
be refused is sent, and where it is not, as after a change in viser, nothing is served.
"""

from __future__ import annotations

import contextlib
import http.client
import io
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import viser
import websockets.asyncio.server as websocket_server
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from engine.viewer.guard import COOKIE, Guard
from utils.errors import InputError

FOREIGN = "foreign.invalid"
Answer = Callable[[Any, Request], Response | None]


class Server(viser.ViserServer):
    """A viser server that cannot be made public by those who look."""

    def request_share_url(self, verbose: bool = True) -> str | None:
        """No."""
        return None


def start_server(host: str, port: int, guard: Guard, label: str) -> Server:
    """Listen on a host and a port, or the next free one. Raises InputError where that cannot be guarded."""
    with _guarded(guard), contextlib.redirect_stdout(io.StringIO()):
        server = Server(host=host, port=port, label=label, verbose=False)
    if _answers_foreigners(host, server.get_port()):
        server.stop()
        raise InputError(f"viser {viser.__version__}: its requests cannot be checked - install requirements-view.txt")
    server.gui.configure_theme(show_share_button=False, show_logo=False)
    return server


@contextlib.contextmanager
def _guarded(guard: Guard) -> Iterator[None]:
    serve = websocket_server.serve

    def guarded_serve(*arguments: Any, process_request: Answer | None = None, **options: Any) -> Any:
        return serve(*arguments, process_request=checked(guard, process_request), **options)

    websocket_server.serve = guarded_serve  # type: ignore[assignment,misc]
    try:
        yield
    finally:
        websocket_server.serve = serve  # type: ignore[misc]


def checked(guard: Guard, answer: Answer | None) -> Answer:
    """What a server does with a request: refuse it, take the token into a cookie, or answer as before."""

    def process(connection: Any, request: Request) -> Response | None:
        headers: dict[str, list[str]] = defaultdict(list)
        for name, value in request.headers.raw_items():
            headers[name.lower()].append(value)
        refusal = guard.refusal(headers, request.path)
        if refusal is not None:
            return _response(403, "Forbidden", f"refused: {refusal}\n")
        if guard.invites(request.path) and "upgrade" not in headers:
            cookie = f"{COOKIE}={guard.token}; Path=/; HttpOnly; SameSite=Lax"
            return _response(303, "See Other", "", Location="/", Set_Cookie=cookie)
        return answer(connection, request) if answer is not None else None

    return process


def _response(status: int, reason: str, text: str, **fields: str) -> Response:
    body = text.encode()
    headers = Headers({name.replace("_", "-"): value for name, value in fields.items()})
    headers["Content-Type"], headers["Content-Length"] = "text/plain; charset=utf-8", str(len(body))
    headers["Connection"] = "close"
    return Response(status, reason, headers, body)


def _answers_foreigners(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=10)
    try:
        connection.request("GET", "/", headers={"Host": FOREIGN})
        return connection.getresponse().status != 403
    finally:
        connection.close()
