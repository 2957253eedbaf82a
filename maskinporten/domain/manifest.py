"""The registry as one document: what an operator's file declares, and the same written back.

Applying a file is additive: what it does not name stays as it is, and nothing is deleted (an
entity is put out of use with `active = false`, or `state = "DENIED"`).
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from maskinporten.domain.client import Client
from maskinporten.domain.declaration import (
    declare_access,
    declare_client,
    declare_delegation_source,
    declare_organization,
    declare_prefix,
    declare_scope,
    verify_client_scopes,
)
from maskinporten.domain.members import Reader
from maskinporten.domain.registry import SHELVES, Change, Entity, Registry
from maskinporten.domain.scope import Scope
from maskinporten.errors import Fault, InvalidInput

SECTIONS: Final = (
    "organizations", "delegation_sources", "prefixes", "scopes", "accesses", "clients"
)  # fmt: skip


def plan(document: Mapping[str, Any], registry: Registry, now: int) -> Change:
    """The change that makes the registry agree with the document; empty where it does already.

    Later sections may lean on earlier ones of the same document. Raises InvalidInput with every
    fault of every entry; nothing of a faulty document is taken.
    """
    faults = [
        Fault(name, f"is not a section; there are {', '.join(SECTIONS)}")
        for name in document.keys() - set(SECTIONS)
    ]
    ahead = registry
    written: dict[Any, Entity] = {}
    for section in SECTIONS:
        entries = document.get(section, [])
        if not isinstance(entries, list):
            faults.append(Fault(section, "must be an array"))
            continue
        declared: list[Entity] = []
        for number, data in enumerate(entries):
            reader = Reader(f"{section}[{number}]")
            entity = _declare(section, reader, data, ahead, now)
            faults += reader.faults
            if entity is None or reader.faults:
                continue
            _, name, _ = _standing(entity, registry)
            if (section, name) in written:
                faults.append(Fault(reader.path, f"stands twice: {name}"))
            written[section, name] = entity
            declared.append(entity)
        ahead = ahead.with_entities(ahead.revision, declared)
    if faults:
        raise InvalidInput(tuple(faults))
    return Change(tuple(e for e in written.values() if _standing(e, registry)[2] != e))


def _declare(
    section: str, reader: Reader, data: Any, registry: Registry, now: int
) -> Entity | None:
    if section == "prefixes":
        return declare_prefix(reader, data, registry.prefixes, now)
    if section == "scopes":
        return declare_scope(reader, data, registry.scopes, registry.prefixes, now)
    if section == "accesses":
        return declare_access(reader, data, registry.accesses, registry.scopes, now)
    if section == "organizations":
        return declare_organization(reader, data, registry.organizations, now)
    if section == "delegation_sources":
        return declare_delegation_source(reader, data, registry.delegation_sources, now)
    client = declare_client(reader, data, registry.clients, now)
    if client is not None:
        before = registry.clients.get(client.client_id)
        verify_client_scopes(reader, client, before, registry.scopes, registry.accesses)
    return client


def _standing(entity: Entity, registry: Registry) -> tuple[str, Any, Any]:
    """The section an entity belongs to (its shelf), its name, and what stands there now."""
    section, name_of = SHELVES[type(entity)]
    name = name_of(entity)
    return section, name, getattr(registry, section).get(name)


def describe(change: Change, registry: Registry) -> list[str]:
    """One line for each entity of the change: what becomes of it."""
    lines = []
    for entity in change.entities:
        section, name, before = _standing(entity, registry)
        label = " ".join(name) if isinstance(name, tuple) else name
        if before is None:
            lines.append(f"+ {section} {label}")
        else:
            old, new = msgspec.to_builtins(before), msgspec.to_builtins(entity)
            members = sorted(m for m in new if new[m] != old.get(m) and m != "last_updated")
            lines.append(f"~ {section} {label}: {', '.join(members)}")
    return lines


def manifest(registry: Registry) -> dict[str, list[dict[str, Any]]]:
    """The whole registry as a document that `plan` finds nothing new in. Signing keys stay home."""
    return {
        "organizations": _plain(registry.organizations.values()),
        "delegation_sources": [
            {"name": source.name, "issuer": source.issuer}
            for source in sorted(registry.delegation_sources.values(), key=lambda s: s.issuer)
        ],
        "prefixes": _plain(registry.prefixes.values()),
        "scopes": [
            _scope(scope) for scope in sorted(registry.scopes.values(), key=lambda s: s.name)
        ],
        "accesses": _plain(registry.accesses.values()),
        "clients": [
            _client(client)
            for client in sorted(registry.clients.values(), key=lambda c: c.client_id)
        ],
    }


def _plain(entities: Iterable[Any]) -> list[dict[str, Any]]:
    return sorted(
        (_present(entity) for entity in entities), key=lambda e: list(map(str, e.values()))
    )


def _present(entity: Any) -> dict[str, Any]:
    return _without_nulls(msgspec.to_builtins(entity))


def _without_nulls(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _scope(scope: Scope) -> dict[str, Any]:
    fields = _present(scope)
    texts = fields.pop("texts")
    return {**fields, **texts}


def _client(client: Client) -> dict[str, Any]:
    fields = _present(client)
    keys = [
        {"kty": "RSA", "use": "sig", **{k: v for k, v in key.items() if v not in ("", (), [])}}
        for key in fields.pop("keys")
    ]
    for key in keys:
        for name in ("created", "last_updated"):
            key.pop(name, None)
    passive = fields.pop("passive")
    fields.pop("request", None)
    customers = [_without_nulls(entry) for entry in fields.pop("onbehalfof")]
    return {
        **fields,
        **passive,
        **({"jwks": {"keys": keys}} if keys else {}),
        **({"onbehalfof": customers} if customers else {}),
    }
