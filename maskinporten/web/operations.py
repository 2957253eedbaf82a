"""For those who run us: whether we live, whether we are ready, and what we count."""

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from maskinporten.health import Health
from maskinporten.metrics import Metrics
from maskinporten.web.answers import json_response

_NO_STORE = {"cache-control": "no-store"}


def operations_routes(
    look: Callable[[], Health], metrics: Metrics, before_scrape: Callable[[], str]
) -> list[BaseRoute]:
    """What /health and the probes say comes from `look`; gauges are put `before_scrape`."""

    async def health(_request: Request) -> Response:
        """UP and DEGRADED are 200, as customers' monitors expect; the others are 503."""
        found = look()
        body: dict[str, object] = {"status": found.status}
        if found.reasons:
            body |= {"reasons": found.reasons, "registry_age_seconds": found.registry_age}
        return json_response(body, 200 if found.ready else 503, _NO_STORE)

    async def livez(_request: Request) -> Response:
        """This process answers. It says nothing about anything we lean on."""
        return PlainTextResponse("alive\n", headers=_NO_STORE)

    async def readyz(_request: Request) -> Response:
        """A token request would be answered, and we do not mean to leave."""
        found = look()
        if not found.ready:
            sentence = "; ".join(("not ready", *found.reasons)) + "\n"
            return PlainTextResponse(sentence, 503, headers={**_NO_STORE, "retry-after": "10"})
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
