"""How the registry's things look in the self-service API: names, order, times."""

from typing import Any

from maskinporten.domain.client import Client, ClientKey, OnBehalfOf
from maskinporten.domain.declaration import MACHINE_DEFAULTS
from maskinporten.domain.members import PASSIVE_CLIENT_MEMBERS
from maskinporten.domain.orgno import OrgNo
from maskinporten.domain.registry import Registry
from maskinporten.domain.scope import Organization


def client(thing: Client, registry: Registry) -> dict[str, Any]:
    """A client with its keys."""
    return {**client_in_list(thing, registry), "jwks": key_set(thing.keys, registry)}


def client_in_list(thing: Client, registry: Registry) -> dict[str, Any]:
    """A client as it stands in a listing: its keys have an address of their own."""
    passive = {**MACHINE_DEFAULTS, **thing.passive}
    return _present(
        {
            "client_id": thing.client_id,
            "client_name": thing.client_name,
            "client_orgno": thing.client_orgno,
            "supplier_orgno": thing.supplier_orgno,
            "description": thing.description,
            "active": thing.active,
            "application_type": passive.pop("application_type"),
            "integration_type": thing.integration_type,
            "scopes": thing.scopes,
            "grant_types": passive.pop("grant_types"),
            "token_endpoint_auth_method": passive.pop("token_endpoint_auth_method"),
            "access_token_lifetime": thing.access_token_lifetime,
            **{name: passive[name] for name in PASSIVE_CLIENT_MEMBERS if name in passive},
            "onbehalfof": [customer(entry, registry) for entry in thing.onbehalfof],
            "created": thing.created,
            "last_updated": thing.last_updated,
        }
    )


def key(thing: ClientKey, _registry: Registry) -> dict[str, Any]:
    """A public key as a JWK, with the time it expires."""
    return _present(
        {
            "kty": "RSA",
            "use": "sig",
            "alg": thing.alg,
            "kid": thing.kid,
            "n": thing.n,
            "e": thing.e,
            "x5c": thing.x5c or None,
            "exp": thing.exp,
            "created": thing.created,
            "last_updated": thing.last_updated,
        }
    )


def key_set(thing: tuple[ClientKey, ...], registry: Registry) -> dict[str, Any]:
    """All keys of a client; the two outer times are those of the oldest and the newest change."""
    return _present(
        {
            "keys": [key(one, registry) for one in thing],
            "created": min((one.created for one in thing), default=""),
            "last_updated": max((one.last_updated for one in thing), default=""),
        }
    )


def customer(thing: OnBehalfOf, registry: Registry) -> dict[str, Any]:
    """An organisation that a client acts for."""
    return _present(
        {
            "onbehalfof": thing.onbehalfof,
            "name": thing.name,
            "orgno": thing.orgno,
            "organization_name": _name(thing.orgno, registry),
            "description": thing.description,
            "uri": thing.uri,
            "logo_uri": thing.logo_uri,
            "created": thing.created,
            "last_updated": thing.last_updated,
        }
    )


def _name(orgno: OrgNo, registry: Registry) -> str | None:
    found: Organization | None = registry.organizations.get(orgno)
    return found.name if found else None


def _present(members: dict[str, Any]) -> dict[str, Any]:
    """What is not known is left out; a time that is missing would be no time to a strict reader."""
    return {
        name: value
        for name, value in members.items()
        if value is not None and not (value == "" and name in {"created", "last_updated"})
    }
