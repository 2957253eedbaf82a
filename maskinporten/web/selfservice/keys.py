"""Endpoints for the public keys of clients."""

from typing import Final

from maskinporten.domain.members import KeyMembers, KeySetMembers
from maskinporten.domain.selfservice import keys
from maskinporten.domain.selfservice.caller import CHANGE_CLIENTS, READ_CLIENTS
from maskinporten.web.selfservice import views
from maskinporten.web.selfservice.endpoint import Endpoint

_SET: Final = "/clients/{client_id}/jwks"
_ONE: Final = _SET + "/{kid}"


def _replacing(method: str, status: int, summary: str) -> Endpoint:
    return Endpoint(
        method=method,
        path=_SET,
        summary=summary,
        right=CHANGE_CLIENTS,
        answer=lambda case, call: keys.replace_keys(case, call.path["client_id"], call.body),
        view=views.key_set,
        writes=True,
        status=status,
        takes=KeySetMembers,
        gives=KeySetMembers,
        object_name="jwks",
        tag=lambda found: found,
    )


def _from_text(base: str | None) -> Endpoint:
    return Endpoint(
        method="POST",
        path="/clients/{client_id}/key",
        summary="Add a key from text: a JWK, or a public key or certificate in PEM",
        right=CHANGE_CLIENTS,
        answer=lambda case, call: keys.add_key(case, call.path["client_id"], call.body),
        view=views.key,
        writes=True,
        takes=str,
        gives=KeyMembers,
        object_name="key",
        tag=lambda key: key,
        own_base=base,
    )


KEY_ENDPOINTS: Final = (
    Endpoint(
        method="GET", path=_SET, summary="The keys of a client", right=READ_CLIENTS,
        answer=lambda case, call: keys.read_keys(case, call.path["client_id"]),
        view=views.key_set, gives=KeySetMembers, object_name="jwks", tag=lambda found: found,
    ),
    _replacing("POST", 201, "Replace all keys; each may be used for a year from now"),
    _replacing("PUT", 200, "The same, as older clients do it"),
    Endpoint(
        method="DELETE", path=_SET, summary="Remove all keys", right=CHANGE_CLIENTS,
        answer=lambda case, call: keys.remove_keys(case, call.path["client_id"]),
        writes=True, object_name="jwks",
    ),
    Endpoint(
        method="GET", path=_ONE, summary="One key", right=READ_CLIENTS,
        answer=lambda case, call: keys.read_key(case, call.path["client_id"], call.path["kid"]),
        view=views.key, gives=KeyMembers, object_name="key", tag=lambda key: key,
    ),
    Endpoint(
        method="PUT", path=_ONE, summary="Add or replace one key", right=CHANGE_CLIENTS,
        answer=lambda case, call: keys.put_key(
            case, call.path["client_id"], call.path["kid"], call.body
        ),
        view=views.key, writes=True, takes=KeyMembers, gives=KeyMembers, object_name="key",
        tag=lambda key: key,
    ),
    Endpoint(
        method="DELETE", path=_ONE, summary="Remove one key", right=CHANGE_CLIENTS,
        answer=lambda case, call: keys.remove_key(case, call.path["client_id"], call.path["kid"]),
        writes=True, object_name="key",
    ),
    _from_text("/api/v2"),
    _from_text("/external/api/v2"),
)  # fmt: skip
