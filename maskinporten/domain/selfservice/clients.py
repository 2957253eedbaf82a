"""Clients and the customers they act for (Maskinporten: self-service, clients, onbehalfof)."""

from dataclasses import replace
from typing import Any, Final

from maskinporten.domain.client import Client, ClientId, OnBehalfOf
from maskinporten.domain.declaration import (
    dated,
    declare_client,
    declare_customer,
    verify_client_scopes,
)
from maskinporten.domain.members import Reader
from maskinporten.domain.selfservice.caller import (
    CHANGE_CLIENTS,
    CHANGE_CUSTOMERS,
    MAKE_CLIENTS,
    READ_CLIENTS,
    READ_CUSTOMERS,
    SUPPLIER,
    Right,
)
from maskinporten.domain.selfservice.case import (
    Case,
    Decision,
    Sparse,
    conflict,
    verify_flawless,
    without,
)
from maskinporten.errors import Fault, InvalidInput, Reason, Refused

MAX_CUSTOMERS: Final = 1000
# Shown, and ignored where they are sent back.
_READ_ONLY: Final = (
    "created", "last_updated", "lastUpdated", "created_by", "last_updated_by", "client_secret",
    "jwks_uri", "client_org_name",
)  # fmt: skip
_ELSEWHERE: Final = (
    "jwks",
    "onbehalfof",
)  # changed at their own addresses once the client is there


def find_clients(case: Case, *, inactive: bool, integration_type: str | None) -> Sparse[Client]:
    """The caller's clients; deactivated ones only where asked for."""
    return (
        client
        if client is not None
        and (client.active or inactive)
        and integration_type in (None, client.integration_type)
        else None
        for client in case.own_clients(READ_CLIENTS)
    )


def read_client(case: Case, client_id: str, *, inactive: bool) -> Client:
    """One client. Raises Refused: NOT_YOURS."""
    client = case.own_client(client_id, READ_CLIENTS)
    if not client.active and not inactive:
        raise Refused(Reason.NOT_YOURS, "deactivated", named=("client",))
    return client


def make_client(
    case: Case,
    data: Any,
    client_id: ClientId,
    request: str | None,
    right: Right = MAKE_CLIENTS,
) -> Decision:
    """A new client under `client_id`, unless the data name an id.

    `request` tells a repeated request by its digest: it is answered with the client that the
    first one made. Raises InvalidInput; Refused: STATE_CONFLICT, ADMIN_SCOPE_MISSING.
    """
    members = without(data, _READ_ONLY)
    reader = Reader("", tolerant=True)
    if isinstance(members, dict):
        if members.get("client_id") is None:
            members["client_id"] = client_id
        parties = _parties(case, reader, members, right)
        members |= parties
        chosen = members["client_id"]
        standing = case.registry.clients.get(ClientId(str(chosen)))
        if standing is not None:
            whose = (standing.client_orgno, standing.supplier_orgno)
            own = whose == tuple(parties.values())
            if own and request is not None and standing.request == request:
                return Decision(standing)
            if own and standing.request is not None and chosen == client_id:
                conflict("The Idempotency-Key was used for another request")
            conflict("There is a client with this client_id")
    client = declare_client(reader, members, {}, case.now)
    if client is not None:
        supplied = client.client_orgno != case.caller.orgno
        case.verify_room("clients", "supplier_orgno" if supplied else "client_orgno")
        client = replace(client, request=request)
        verify_client_scopes(reader, client, None, case.registry.scopes, case.registry.accesses)
    verify_flawless(reader)
    if client is None:
        raise InvalidInput((Fault("", "must be an object"),))
    return case.decide(client)


def change_client(case: Case, client_id: str, data: Any) -> Decision:
    """The client with the members that are given; those that are left out stay.

    Its id, organisations and kind cannot change. Raises InvalidInput; Refused: NOT_YOURS,
    CHANGED_MEANWHILE.
    """
    before = case.own_client(client_id, CHANGE_CLIENTS)
    case.verify_unchanged(before)
    members = without(data, (*_READ_ONLY, *_ELSEWHERE))
    reader = Reader("", tolerant=True)
    if isinstance(members, dict):
        fixed = {"client_id": before.client_id, "client_orgno": before.client_orgno}
        if before.supplier_orgno is not None:
            fixed["supplier_orgno"] = before.supplier_orgno
        for name in ("client_id", "client_orgno", "supplier_orgno"):
            if members.get(name) not in (None, "", fixed.get(name)):
                reader.fault(name, "cannot be changed after the client was made")
        members = {**without(members, ("supplier_orgno",)), **fixed}
    current = {before.client_id: before}
    client = declare_client(reader, members, current, case.now)
    if client is not None:
        registry = case.registry
        verify_client_scopes(reader, client, before, registry.scopes, registry.accesses)
    verify_flawless(reader)
    if client is None:
        raise InvalidInput((Fault("", "must be an object"),))
    return case.decide(client)


def deactivate_client(case: Case, client_id: str, right: Right = MAKE_CLIENTS) -> Decision:
    """The client, out of use from now on; `PUT` with `active` brings it back."""
    before = case.own_client(client_id, right)
    case.verify_unchanged(before)
    return case.decide(dated(replace(before, active=False), before, {}, case.now))


def refuse_secret(case: Case, client_id: str) -> Decision:
    """Machine clients have no secret. Raises Refused: NOT_YOURS, STATE_CONFLICT."""
    case.own_client(client_id, MAKE_CLIENTS)
    conflict("A machine client proves itself by private_key_jwt and has no secret; register a key")


def usable_client(case: Case, client_id: str, right: Right) -> Client:
    """An own client whose keys and customers may be changed: one that is in use."""
    client = case.own_client(client_id, right)
    if not client.active:
        conflict("The client is deactivated; PUT it with active: true first")
    return client


def find_customers(case: Case, client_id: str) -> tuple[OnBehalfOf, ...]:
    """The customers of a client."""
    return case.own_client(client_id, READ_CUSTOMERS).onbehalfof


def read_customer(case: Case, client_id: str, name: str) -> OnBehalfOf:
    """One customer of a client. Raises Refused: NOT_YOURS."""
    return _customer(case.own_client(client_id, READ_CUSTOMERS), name)


def add_customer(case: Case, client_id: str, data: Any) -> Decision:
    """A further customer. Raises InvalidInput; Refused: NOT_YOURS, STATE_CONFLICT."""
    client = usable_client(case, client_id, CHANGE_CUSTOMERS)
    case.verify_unchanged(client.onbehalfof)
    name = data.get("onbehalfof") if isinstance(data, dict) else None
    if isinstance(name, str) and client.find_on_behalf_of(name) is not None:
        conflict("The client has a customer with this onbehalfof")
    if len(client.onbehalfof) >= MAX_CUSTOMERS:
        conflict(f"A client has at most {MAX_CUSTOMERS} customers")
    return _with_customer(case, client, data)


def change_customer(case: Case, client_id: str, name: str, data: Any) -> Decision:
    """The customer as given; its name is the address. Raises as `add_customer`."""
    client = usable_client(case, client_id, CHANGE_CUSTOMERS)
    case.verify_unchanged(_customer(client, name))
    if isinstance(data, dict):
        if data.get("onbehalfof") not in (None, name):
            raise InvalidInput((Fault("onbehalfof", "cannot be changed; it is in the address"),))
        data = {**data, "onbehalfof": name}
    return _with_customer(case, client, data)


def remove_customer(case: Case, client_id: str, name: str) -> Decision:
    """The client no longer acts for this customer."""
    client = usable_client(case, client_id, CHANGE_CUSTOMERS)
    customer = _customer(client, name)
    case.verify_unchanged(customer)
    rest = tuple(entry for entry in client.onbehalfof if entry is not customer)
    return case.decide(dated(replace(client, onbehalfof=rest), client, {}, case.now), customer)


def _customer(client: Client, name: str) -> OnBehalfOf:
    found = client.find_on_behalf_of(name)
    if found is None:
        raise Refused(Reason.NOT_YOURS, name[:300], named=("onbehalfof",))
    return found


def _with_customer(case: Case, client: Client, data: Any) -> Decision:
    reader = Reader("", tolerant=True)
    entry = declare_customer(
        reader, without(data, (*_READ_ONLY, "organization_name")), client.onbehalfof, case.now
    )
    verify_flawless(reader)
    if entry is None:
        raise InvalidInput((Fault("", "must be an object"),))
    customers = {known.onbehalfof: known for known in client.onbehalfof} | {entry.onbehalfof: entry}
    made = replace(client, onbehalfof=tuple(customers.values()))
    return case.decide(dated(made, client, {}, case.now), entry)


def _parties(case: Case, reader: Reader, members: dict[str, Any], right: Right) -> dict[str, Any]:
    """Whose the client will be. Only a supplier makes clients for others, in its own name."""
    own = case.caller.orgno
    wanted = members.get("client_orgno") or own
    named = members.get("supplier_orgno")
    may_supply = SUPPLIER in case.caller.scopes
    if wanted == own:
        if case.caller.scopes.isdisjoint(set(right.scopes) - {SUPPLIER}):
            raise Refused(Reason.ADMIN_SCOPE_MISSING, named=("idporten:dcr.write",))
        if named not in (None, own):
            reader.fault("supplier_orgno", "is for the supplier to set, when it makes the client")
        return {"client_orgno": own, "supplier_orgno": None}
    if not may_supply:
        raise Refused(Reason.ADMIN_SCOPE_MISSING, "client_orgno of another", named=(SUPPLIER,))
    if named not in (None, own):
        reader.fault("supplier_orgno", "must be your own organisation")
    return {"client_orgno": wanted, "supplier_orgno": own}
