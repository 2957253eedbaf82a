"""The routes of the self-service API: each endpoint under every base that real clients use."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from maskinporten.errors import Reason, Refused
from maskinporten.web.answers import trace_id
from maskinporten.web.selfservice.clients import CLIENT_ENDPOINTS
from maskinporten.web.selfservice.desk import Desk
from maskinporten.web.selfservice.endpoint import Endpoint
from maskinporten.web.selfservice.keys import KEY_ENDPOINTS
from maskinporten.web.selfservice.onboarding import ONBOARDING_ENDPOINTS
from maskinporten.web.selfservice.openapi import openapi_routes
from maskinporten.web.selfservice.page import page_routes
from maskinporten.web.selfservice.past import PAST_ENDPOINTS
from maskinporten.web.selfservice.refusals import refusal
from maskinporten.web.selfservice.scopes import SCOPE_ENDPOINTS

BASES: Final = ("/api/v1", "/external/api/v1", "")
ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    *KEY_ENDPOINTS,
    *CLIENT_ENDPOINTS,
    *SCOPE_ENDPOINTS,
    *PAST_ENDPOINTS,
    *ONBOARDING_ENDPOINTS,
)
"""Everything there is, in the order of matching."""


class Door:
    """One path, as an ASGI application: its methods, or 405 in the API's own words."""

    def __init__(self, desk: Desk, methods: Mapping[str, Endpoint]) -> None:
        self._desk = desk
        self._methods = methods

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        request = Request(scope, receive)
        method = "GET" if request.method == "HEAD" else request.method
        endpoint = self._methods.get(method)
        if endpoint is None:
            allowed = {"allow": ", ".join(sorted(self._methods))}
            response = _refused(request, Reason.METHOD_NOT_ALLOWED)
            response.headers.update(allowed)
        else:
            response = await self._desk.answer(endpoint, request)
        await response(scope, receive, send)


def selfservice_routes(
    desk: Desk, issuer: str, endpoints: Iterable[Endpoint] = ENDPOINTS
) -> list[BaseRoute]:
    """Every path with and without a final slash, and a 404 of the API's own under its bases."""
    endpoints = tuple(endpoints)
    doors: dict[str, dict[str, Endpoint]] = defaultdict(dict)
    for endpoint in endpoints:
        for base in BASES if endpoint.own_base is None else (endpoint.own_base,):
            doors[base + endpoint.path][endpoint.method] = endpoint
    routes: list[BaseRoute] = []
    for path, methods in doors.items():
        door = Door(desk, methods)
        routes += [Route(path + "/", door), Route(path, door)]
    return [
        *routes,
        *openapi_routes(endpoints, issuer),
        *page_routes(),
        Route("/api/{rest:path}", _missing, methods=_ALL),
        Route("/external/{rest:path}", _missing, methods=_ALL),
    ]


_ALL: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


async def _missing(request: Request) -> Response:
    return _refused(request, Reason.NOT_FOUND)


def _refused(request: Request, reason: Reason) -> Response:
    return refusal(Refused(reason), trace_id(request.scope), "")
