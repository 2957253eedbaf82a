"""What owners declare about prefixes, scopes, accesses and clients: rules and defaults.

The same rules serve the registry file and the self-service API (Maskinporten: self-service,
clients and scopes). The shapes are in `members`. Every fault is found, not only the first.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, TypeVar

from maskinporten.domain.client import (
    JWT_BEARER,
    MACHINE_CLIENTS,
    OWN_NAMES,
    SEALED,
    Client,
    ClientId,
    OnBehalfOf,
    is_client_id,
)
from maskinporten.domain.keyset import declare_keys
from maskinporten.domain.members import (
    PASSIVE_CLIENT_MEMBERS,
    SCOPE_TEXT,
    AccessMembers,
    ClientMembers,
    DelegationSourceMembers,
    OnBehalfOfMembers,
    OrganizationMembers,
    PrefixMembers,
    Reader,
    ScopeMembers,
    instant,
)
from maskinporten.domain.scope import (
    AccessState,
    DelegationSource,
    Organization,
    Prefix,
    Scope,
    ScopeAccess,
    ScopeName,
    read_prefix,
    read_scope_name,
)

_JWT_BEARER_ALIASES: Final = frozenset({JWT_BEARER, "jwt_bearer_token"})
# What a machine client is, whatever its owner leaves out.
MACHINE_DEFAULTS: Final[Mapping[str, Any]] = {
    "application_type": "web",
    "grant_types": (JWT_BEARER,),
    "token_endpoint_auth_method": "private_key_jwt",
}
_E = TypeVar("_E")


def declare_prefix(
    reader: Reader, data: Any, current: Mapping[str, Prefix], now: int
) -> Prefix | None:
    """The prefix as declared, over what is there already; None where it has a fault."""
    found = reader.members(data, PrefixMembers)
    if not reader.required(found, "prefix", "owner_orgno"):
        return None
    try:
        name = read_prefix(found["prefix"])
    except ValueError as fault:
        reader.fault("prefix", str(fault))
        return None
    owner = reader.orgno(found, "owner_orgno")
    if owner is None:
        return None
    made = Prefix(prefix=name, owner_orgno=owner, active=found.get("active", True))
    return dated(made, current.get(name), found, now)


def declare_organization(
    reader: Reader, data: Any, _current: Mapping[Any, Organization], _now: int
) -> Organization | None:
    """The organisation as declared; None where it has a fault."""
    found = reader.members(data, OrganizationMembers)
    if not reader.required(found, "orgnr", "name"):
        return None
    orgnr = reader.orgno(found, "orgnr")
    return None if orgnr is None else Organization(orgnr=orgnr, name=found["name"])


def declare_delegation_source(
    reader: Reader, data: Any, current: Mapping[str, DelegationSource], now: int
) -> DelegationSource | None:
    """The delegation source as declared; None where it has a fault."""
    found = reader.members(data, DelegationSourceMembers)
    if not reader.required(found, "name", "issuer"):
        return None
    made = DelegationSource(name=found["name"], issuer=found["issuer"])
    return dated(made, current.get(made.issuer), found, now)


def declare_scope(
    reader: Reader,
    data: Any,
    current: Mapping[ScopeName, Scope],
    prefixes: Mapping[str, Prefix],
    now: int,
) -> Scope | None:
    """The scope as declared, over what is there already; None where it has a fault.

    Its owner is the owner of its prefix, never what the declaration says.
    """
    texts = {}
    if isinstance(data, dict):
        texts = {n: v for n, v in data.items() if n != "description" and SCOPE_TEXT.fullmatch(n)}
    found = reader.members(data, ScopeMembers, also=texts)
    for name, text in list(texts.items()):
        if text is None:
            del texts[name]
        elif not isinstance(text, str) or len(text) > 20_000:  # noqa: PLR2004 - LongText
            reader.fault(name, "must be a text of at most 20000 characters")
    name = _scope_name(reader, found)
    if name is None:
        return None
    before = current.get(name)
    if before is None:
        reader.required(found, "description")
    prefix = prefixes.get(name.split(":", 1)[0])
    if prefix is None or not prefix.active:
        reader.fault("name", f"the prefix {name.split(':', 1)[0]} does not exist")
        return None
    if reader.faults:
        return None
    if "authorization_max_age" in found:
        found.setdefault("authorization_max_lifetime", found.pop("authorization_max_age"))
    fields = {
        key: value
        for key, value in found.items()
        if key not in {"name", "prefix", "subscope", "owner_orgno", "created", "last_updated"}
    }
    base = before or Scope(name=name, owner_orgno=prefix.owner_orgno, description="")
    made = replace(base, **fields, texts=texts or base.texts, owner_orgno=prefix.owner_orgno)
    return dated(made, before, found, now)


def _scope_name(reader: Reader, found: Mapping[str, Any]) -> ScopeName | None:
    name = found.get("name")
    if name is None:
        if not reader.required(found, "prefix", "subscope"):
            return None
        name = f"{found['prefix']}:{found['subscope']}"
    elif f"{found.get('prefix', '')}:{found.get('subscope', '')}" not in {name, ":"}:
        reader.fault("name", "is not what prefix and subscope say")
    try:
        return read_scope_name(name)
    except ValueError as fault:
        reader.fault("name", str(fault))
        return None


def declare_access(
    reader: Reader,
    data: Any,
    current: Mapping[Any, ScopeAccess],
    scopes: Mapping[ScopeName, Scope],
    now: int,
) -> ScopeAccess | None:
    """The access as declared; None where it has a fault."""
    found = reader.members(data, AccessMembers)
    if not reader.required(found, "scope", "consumer_orgno"):
        return None
    consumer = reader.orgno(found, "consumer_orgno")
    scope = scopes.get(found["scope"])
    if scope is None:
        reader.fault("scope", f"the scope {found['scope']} does not exist")
    if consumer is None or scope is None:
        return None
    made = ScopeAccess(
        scope=scope.name,
        owner_orgno=scope.owner_orgno,
        consumer_orgno=consumer,
        state=found.get("state", AccessState.APPROVED),
    )
    return dated(made, current.get((scope.name, consumer)), found, now)


def declare_client(
    reader: Reader, data: Any, current: Mapping[ClientId, Client], now: int
) -> Client | None:
    """The client as declared, over what is there already; None where it has a fault.

    Whether it may have its scopes is `verify_client_scopes`' question.
    """
    found = reader.members(data, ClientMembers)
    if not reader.required(found, "client_id", "client_orgno"):
        return None
    client_id = ClientId(found["client_id"])
    if not is_client_id(client_id):
        reader.fault("client_id", "must be 1 to 255 of A-Z a-z 0-9 _ . - :")
        return None
    before = current.get(client_id)
    if before is None and client_id.startswith(SEALED):
        reader.fault("client_id", f"begins with {SEALED}, as callers are named who come by a seal")
        return None
    if before is None and client_id in OWN_NAMES:
        reader.fault("client_id", "is what this server calls itself in its own tokens")
        return None
    orgno = reader.orgno(found, "client_orgno")
    supplier = reader.orgno(found, "supplier_orgno") if "supplier_orgno" in found else None
    if before is not None and found.get("integration_type", before.integration_type) != (
        before.integration_type
    ):
        reader.fault("integration_type", "cannot be changed after the client was made")
    keys = before.keys if before else ()
    if "jwks" in found:
        keys = declare_keys(reader.fault, "jwks", found["jwks"], keys, now)
    customers = before.onbehalfof if before else ()
    if "onbehalfof" in found:
        customers = _declare_customers(reader, found["onbehalfof"], customers, now)
    if reader.faults or orgno is None:
        return None
    base = before or Client(client_id=client_id, client_orgno=orgno)
    chosen = ("client_name", "description", "active", "integration_type", "access_token_lifetime")
    made = replace(
        base,
        client_orgno=orgno,
        supplier_orgno=supplier,
        keys=keys,
        onbehalfof=customers,
        scopes=tuple(dict.fromkeys(map(ScopeName, found.get("scopes", base.scopes)))),
        passive={**base.passive, **_passive(found)},
        **{name: found[name] for name in chosen if name in found},
    )
    _verify_machine_client(reader, made)
    return None if reader.faults else dated(made, before, found, now)


def _declare_customers(
    reader: Reader, entries: tuple[Any, ...], before: tuple[OnBehalfOf, ...], now: int
) -> tuple[OnBehalfOf, ...]:
    """The whole list of customers the client may act for; one bad entry refuses them all."""
    made: dict[str, OnBehalfOf] = {}
    for number, data in enumerate(entries):
        path = f"{reader.path}.onbehalfof" if reader.path else "onbehalfof"
        inner = Reader(f"{path}[{number}]")
        entry = declare_customer(inner, data, before, now)
        if entry is not None and entry.onbehalfof in made:
            inner.fault("onbehalfof", f"stands twice: {entry.onbehalfof}")
        reader.faults += inner.faults
        if entry is not None:
            made[entry.onbehalfof] = entry
    return tuple(made.values())


def declare_customer(
    reader: Reader, data: Any, before: tuple[OnBehalfOf, ...], now: int
) -> OnBehalfOf | None:
    """One customer the client may act for; None where it has a fault."""
    found = reader.members(data, OnBehalfOfMembers)
    orgno = None
    if reader.required(found, "onbehalfof", "orgno"):
        orgno = reader.orgno(found, "orgno")
    if orgno is None or reader.faults:
        return None
    entry = OnBehalfOf(
        onbehalfof=found["onbehalfof"],
        name=found.get("name", found["onbehalfof"]),
        orgno=orgno,
        description=found.get("description", ""),
        uri=found.get("uri", found.get("client_uri")),
        logo_uri=found.get("logo_uri"),
    )
    known = next((one for one in before if one.onbehalfof == entry.onbehalfof), None)
    return dated(entry, known, found, now)


def _passive(found: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: list(found[name]) if isinstance(found[name], tuple) else found[name]
        for name in PASSIVE_CLIENT_MEMBERS
        if name in found
    }


def _verify_machine_client(reader: Reader, client: Client) -> None:
    """A machine client has one grant type and one way to prove itself; say so when told else."""
    if client.integration_type not in MACHINE_CLIENTS:
        reader.fault("integration_type", f"{client.integration_type} is no machine client")
    declared = client.passive
    if not _JWT_BEARER_ALIASES.issuperset(declared.get("grant_types") or ()):
        reader.fault("grant_types", f"must be [{JWT_BEARER}]")
    for name in ("token_endpoint_auth_method", "application_type"):
        wanted = MACHINE_DEFAULTS[name]
        if declared.get(name, wanted) != wanted:
            reader.fault(name, f"must be {wanted} for a machine client")


def verify_client_scopes(
    reader: Reader,
    client: Client,
    before: Client | None,
    scopes: Mapping[ScopeName, Scope],
    accesses: Mapping[Any, ScopeAccess],
) -> None:
    """Each scope that is new on the client must exist, fit it, and be open to its organisation.

    Open means: for all, granted, or to be delegated (Maskinporten: scopes). A scope that was on
    the client before stays, whatever has become of it; the token endpoint decides anew each time.
    """
    known = before.scopes if before else ()
    for number, name in enumerate(client.scopes):
        if name in known:
            continue
        where, scope = f"scopes[{number}]", scopes.get(name)
        if scope is None or not scope.active:
            reader.fault(where, f"the scope {name} does not exist")
            continue
        types = scope.allowed_integration_types
        if types and client.integration_type not in types:
            reader.fault(where, f"the scope {name} is not for {client.integration_type} clients")
        access = accesses.get((name, client.client_orgno))
        granted = access is not None and access.state is AccessState.APPROVED
        if not (granted or scope.accessible_for_all or scope.delegation_source):
            reader.fault(where, f"{client.client_orgno} has no access to the scope {name}")


def dated(made: _E, before: Any, found: Mapping[str, Any], now: int) -> _E:
    """`made` with its two times; `before` itself where nothing else differs."""
    entity: Any = made
    dated: _E
    if before is None:
        created = found.get("created", instant(now))
        updated = found.get("last_updated", created)
        dated = replace(entity, created=created, last_updated=updated)
        return dated
    same = replace(entity, created=before.created, last_updated=before.last_updated)
    dated = before if same == before else replace(same, last_updated=instant(now))
    return dated
