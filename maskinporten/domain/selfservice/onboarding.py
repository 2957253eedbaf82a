"""The onboarding portal's few words for the same things: a client with scopes and keys, at once."""

from typing import Any

from maskinporten.domain.client import Client, ClientId
from maskinporten.domain.members import MAX_NAME, OnboardingMembers, Reader
from maskinporten.domain.scope import AccessState, Scope
from maskinporten.domain.selfservice.accesses import find_received
from maskinporten.domain.selfservice.caller import SHARE_DATA
from maskinporten.domain.selfservice.case import Case, Decision, Sparse, verify_flawless
from maskinporten.domain.selfservice.clients import deactivate_client, make_client


def find_usable_scopes(case: Case) -> Sparse[Scope]:
    """The scopes that the caller has been given access to."""
    received = find_received(case, inactive=False, accessible_for_all=False)
    scopes = (
        case.registry.scopes.get(access.scope)
        if access is not None and access.state is AccessState.APPROVED
        else None
        for access in received
    )
    return (scope if scope is not None and scope.active else None for scope in scopes)


def find_clients(case: Case) -> Sparse[Client]:
    """The caller's clients that are in use."""
    own = case.own_clients(SHARE_DATA)
    return (client if client is not None and client.active else None for client in own)


def onboard(case: Case, data: Any, client_id: ClientId, request: str | None) -> Decision:
    """A client with a description, scopes and keys. Raises as `make_client`."""
    reader = Reader("", tolerant=True)
    found = reader.members(data, OnboardingMembers)
    reader.required(found, "scopes")
    verify_flawless(reader)
    description = found.get("description", "")
    members = {
        "client_name": description[:MAX_NAME],
        "description": description,
        "scopes": found["scopes"],
        "jwks": {"keys": list(found.get("keys", ()))},
    }
    return make_client(case, members, client_id, request, SHARE_DATA)


def retire(case: Case, client_id: str) -> Decision:
    """The client, out of use. Raises Refused: NOT_YOURS."""
    return deactivate_client(case, client_id, SHARE_DATA)
