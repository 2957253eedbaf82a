"""For those who run us: whether we live, whether we are ready, and what we count."""

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from maskinporten.errors import Unavailable
from maskinporten.metrics import Metrics
from maskinporten.web.answers import json_response

_NO_STORE = {"cache-control": "no-store"}


def operations_routes(
    status: Callable[[], str], metrics: Metrics, before_scrape: Callable[[], str]
) -> list[BaseRoute]:
    """`status` is UP, DEGRADED, DOWN or OUT_OF_SERVICE, and raises Unavailable for DOWN."""

    def _status() -> str:
        try:
            return status()
        except Unavailable:
            return "DOWN"

    async def health(_request: Request) -> Response:
        """UP and DEGRADED are 200, as customers' monitors expect; DOWN is 503."""
        found = _status()
        return json_response({"status": found}, 200 if found != "DOWN" else 503, _NO_STORE)

    async def livez(_request: Request) -> Response:
        """This process answers. It says nothing about anything we lean on."""
        return PlainTextResponse("alive\n", headers=_NO_STORE)

    async def readyz(_request: Request) -> Response:
        """Tokens can be issued: a registry is loaded and a signing key is open."""
        if _status() == "DOWN":
            return PlainTextResponse("not ready\n", 503, headers=_NO_STORE)
        return PlainTextResponse("ready\n", headers=_NO_STORE)

    async def scrape(_request: Request) -> Response:
        further = before_scrape()
        return PlainTextResponse(metrics.exposition() + further, headers=_NO_STORE)

    return [
        Route("/health", health),
        Route("/livez", livez),
        Route("/readyz", readyz),
        Route("/metrics", scrape),
    ]
