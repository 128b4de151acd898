"""`alpacafarm browse`: the store as pages in a browser, to look at and never to change.

Only reading is answered. Without a password only this machine is served, and only where the
browser asked for it by a name of this machine, so that no page from elsewhere can read along.
"""

import base64
import logging
import os
import re
import secrets
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from alpacafarm_core.errors import BadInput, FarmError, Missing
from flows.hosting import addresses, refuse_exposure
from flows.inspection import StorePath, open_store

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

    from alpacafarm_core.store import Store

PASSWORD, ADDRESS = "ALPACAFARM_BROWSE_AUTH", "ALPACAFARM_BROWSE_URL"
HTML, PNG = "text/html; charset=utf-8", "image/png"
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
NOBODY = "; frame-ancestors 'none'"
Answer = Callable[["Request"], "Response"]
log = logging.getLogger("alpacafarm.pages")


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(browse)


def browse(
    host: Annotated[str, typer.Option(help="Address it listens at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port it listens at.", min=1, max=65535)] = 4201,
    store: StorePath = None,
) -> None:
    """Look at artifacts, rows, judgements and lineage in a browser; nothing can be changed."""
    import uvicorn

    secret = os.environ.get(PASSWORD, "")
    refuse_exposure(host, secret, PASSWORD)
    pages = application(open_store(store), secret)
    settings = uvicorn.Config(pages, log_level="warning", server_header=False, access_log=False)
    with _listening(host, port) as place:
        print(f"Browse  {addresses(host, port)[1]}   (Ctrl-C stops it)", flush=True)
        try:
            uvicorn.Server(settings).run(sockets=[place])
        except KeyboardInterrupt:
            return


def application(store: "Store", secret: str = "") -> "Starlette":
    """The pages of a store as an ASGI application; `secret` is user:password, "" for none."""
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.routing import Route

    one = "/artifact/{kind}/{key}"
    answers: dict[str, Answer] = _answers(store)
    places = {
        "/": answers["listing"],
        one: answers["artifact"],
        f"{one}/row/{{row:int}}": answers["row"],
        f"{one}/plot/{{name:path}}": answers["plot"],
        f"{one}/report": answers["report"],
        "/diff": answers["difference"],
        "/favicon.ico": lambda _: _reply(b"", PNG, "default-src 'none'", 204),
    }
    return Starlette(
        routes=[Route(path, answer, methods=["GET"]) for path, answer in places.items()],
        middleware=[Middleware(Guard, secret=secret, names=names(os.environ.get(ADDRESS, "")))],
        exception_handlers={HTTPException: _refused, FarmError: _complained, Exception: _broken},
    )


def names(address: str) -> frozenset[str]:
    """Host names under which a browser on this machine finds the pages; "" adds none."""
    own = urlsplit(address).hostname if address else None
    return frozenset({"localhost", "127.0.0.1", "::1", *([own] if own else [])})


class Guard:
    """Lets through who may look: a known host name, or else the password."""

    def __init__(self, app: "ASGIApp", secret: str, names: frozenset[str]) -> None:
        self._app, self._names = app, names
        self._secret = base64.b64encode(secret.encode()) if secret else b""

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answer, or refuse with 401 or 403."""
        held = {name.lower(): value for name, value in scope.get("headers", ())}
        if scope["type"] != "http" or self._lets_in(held):
            await self._app(scope, receive, send)
            return
        refusal = self._asks() if self._secret else _problem(
            403, "Not here", f"These pages answer to {', '.join(sorted(self._names))} only."
        )  # fmt: skip
        await refusal(scope, receive, send)

    def _lets_in(self, headers: dict[bytes, bytes]) -> bool:
        if self._secret:
            kind, _, given = headers.get(b"authorization", b"").partition(b" ")
            return kind.lower() == b"basic" and secrets.compare_digest(given, self._secret)
        try:
            asked = urlsplit("//" + headers.get(b"host", b"").decode("ascii")).hostname
        except ValueError:
            return False
        return asked in self._names

    def _asks(self) -> "Response":
        reply = _problem(401, "Password", "Give the user and password of these pages.")
        reply.headers["WWW-Authenticate"] = 'Basic realm="AlpacaFarm", charset="UTF-8"'
        return reply


def _answers(store: "Store") -> dict[str, Answer]:
    """What answers at each place, by name."""
    from alpacafarm_core import markup
    from alpacafarm_core.browse_page import Wanted
    from alpacafarm_core.report import STYLE
    from flows import looking

    def listing(request: "Request") -> "Response":
        asked = request.query_params
        kind, stage, text = (asked.get(name, "") for name in ("kind", "stage", "text"))
        wanted = Wanted(kind, stage, text, _number(asked.get("page")))
        return _page(looking.listing(store, wanted))

    def artifact(request: "Request") -> "Response":
        page = _number(request.query_params.get("page"))
        return _page(looking.artifact(store, _artifact(store, request), page))

    def row(request: "Request") -> "Response":
        return _page(looking.row(store, _artifact(store, request), request.path_params["row"]))

    def plot(request: "Request") -> "Response":
        picture = looking.plot(store, _artifact(store, request), request.path_params["name"])
        return _reply(picture, PNG, "default-src 'none'")

    def report(request: "Request") -> "Response":
        page = looking.report(store, _artifact(store, request))
        return _reply(page.encode(), HTML, markup.policy(STYLE.read_text()))

    def difference(request: "Request") -> "Response":
        first, second = (request.query_params.get(name, "") for name in ("first", "second"))
        return _page(looking.difference(store, first, second))

    return {each.__name__: each for each in (listing, artifact, row, plot, report, difference)}


def _artifact(store: "Store", request: "Request") -> Any:
    from flows.looking import found

    return found(store, request.path_params["kind"], request.path_params["key"])


def _number(given: str | None) -> int:
    """The number of a page; raises BadInput."""
    if given is None:
        return 1
    if not re.fullmatch("[1-9][0-9]{0,8}", given):
        raise BadInput(f"page {given[:20]!r} is no number of a page; give one from 1 on")
    return int(given)


def _page(text: str, status: int = 200) -> "Response":
    from alpacafarm_core import browse_page, markup

    return _reply(text.encode(), HTML, markup.policy(browse_page.STYLE, browse_page.RULES), status)


def _reply(content: bytes, kind: str, rules: str, status: int = 200) -> "Response":
    from starlette.responses import Response

    headers = HEADERS | {"Content-Security-Policy": rules + NOBODY}
    return Response(content, status, headers, kind)


def _problem(status: int, title: str, line: str) -> "Response":
    from alpacafarm_core.browse_page import problem

    return _page(problem(title, line), status)


def _refused(_: "Request", error: Any) -> "Response":
    return _problem(error.status_code, "Not here", f"{error.detail}; go back to the list.")


def _complained(_: "Request", error: Exception) -> "Response":
    status = 404 if isinstance(error, Missing) else 400
    return _problem(status, "Not found" if status == 404 else "Cannot be shown", str(error))


def _broken(_: "Request", error: Exception) -> "Response":
    return _problem(
        500, "Cannot be shown", f"{type(error).__name__}; the log of the pages has more."
    )


def _listening(host: str, port: int) -> socket.socket:
    """A socket at the address; raises BadInput when it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    place = socket.socket(family, socket.SOCK_STREAM)
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        place.bind((host, port))
    except OSError as error:
        place.close()
        raise BadInput(
            f"cannot listen at {host}:{port} ({error.strerror or error}); choose another --port"
        ) from error
    return place
