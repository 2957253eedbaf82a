"""GET /revocation: for those who run us, how fresh the evidence of revocation is."""

from collections.abc import Callable
from typing import Any, Final

from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from maskinporten.domain.revocation import RevocationPolicy
from maskinporten.web.answers import json_response

_NO_STORE: Final = {"cache-control": "no-store"}


def revocation_routes(
    policy: RevocationPolicy, report: Callable[[], list[dict[str, Any]]], clock: Callable[[], float]
) -> list[BaseRoute]:
    """`report` tells of each list and each responder."""

    def page(_request: Request) -> Any:
        """Times are epoch seconds; null where there is nothing yet. Read off the event loop."""
        body = {
            "now": int(clock()),
            "when_stale": policy.when_stale.value,
            "grace": policy.grace,
            "without_source": "accept" if policy.accept_without_source else "refuse",
            "sources": report(),
        }
        return json_response(body, 200, _NO_STORE)

    return [Route("/revocation", page)]
