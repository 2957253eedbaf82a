"""An API provider: a small Contact Register that guards two endpoints with access tokens.

Run by any ASGI server, as README.md shows; REGISTER_ISSUER names the issuer it trusts.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from maskinporten.validator import (
    AsyncValidator,
    BearerMiddleware,
    Policy,
    TrustedIssuer,
    require,
)

READ: Final = "krr:global/kontaktinformasjon.read"
WRITE: Final = "krr:global/kontaktinformasjon.write"
REGISTRAR: Final = "991825827"  # the one organisation that may change what others read


def create() -> Starlette:
    """The application. It trusts the issuer that REGISTER_ISSUER names."""
    validator = AsyncValidator(
        [TrustedIssuer(os.environ["REGISTER_ISSUER"])], policy=Policy(operator="kontaktregisteret")
    )
    people = {"17080000001": {"email": "kari@example.no", "mobile": "+4799999999"}}

    async def read_contact(request: Request) -> JSONResponse:
        """Who asks is the token's consumer; by whom it was asked for, if another, its supplier."""
        token = require(request, scope=READ)
        found = people.get(request.path_params["person"])
        reader = {"readBy": token.consumer.orgno}
        if token.supplier is not None:
            reader["through"] = token.supplier.orgno
        return JSONResponse({**(found or {}), **reader}, 200 if found else 404)

    async def write_contact(request: Request) -> JSONResponse:
        """Another scope, and one organisation alone."""
        require(request, scope=WRITE, consumer=REGISTRAR)
        people[request.path_params["person"]] = await request.json()
        return JSONResponse({"stored": True})

    @asynccontextmanager
    async def close(_app: Starlette) -> AsyncIterator[None]:
        yield
        validator.close()

    guarded = [
        Route("/{person:str}", read_contact, methods=["GET"]),
        Route("/{person:str}", write_contact, methods=["PUT"]),
    ]
    guard = Middleware(BearerMiddleware, validator)
    return Starlette(routes=[Mount("/people", routes=guarded, middleware=[guard])], lifespan=close)
