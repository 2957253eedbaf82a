"""The API page: people read and try the self-service API, without anything from elsewhere.

Made from the OpenAPI document by a script of ours. The policy lets the page load from this server
and talk to this server, and nothing else (CSP level 3).
"""

from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Final

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'"
)
_HEADERS: Final = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-cache",
}
_TYPES: Final = {
    "index.html": "text/html",
    "page.js": "text/javascript",
    "page.css": "text/css",
    "icon.svg": "image/svg+xml",
}


def page_routes() -> list[BaseRoute]:
    """The page where clients of Digdir's API look for it, and its three files."""
    folder = files(__name__)
    routes: list[BaseRoute] = [
        Route(f"/swagger-ui/{name}", _serving((folder / name).read_bytes(), kind))
        for name, kind in _TYPES.items()
    ]
    return [*routes, *(Route(at, _lead) for at in ("/swagger-ui", "/swagger-ui/", "/docs"))]


def _serving(content: bytes, kind: str) -> Callable[[Request], Awaitable[Response]]:
    """Gives one file, from memory."""

    async def serve(_request: Request) -> Response:
        return Response(content, media_type=kind, headers=_HEADERS)

    return serve


async def _lead(_request: Request) -> Response:
    return RedirectResponse("/swagger-ui/index.html", 307)
