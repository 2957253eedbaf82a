"""How the registry's things look in the self-service API: names, order, times."""

from typing import Any

from maskinporten.domain.client import Client, ClientKey, OnBehalfOf
from maskinporten.domain.declaration import MACHINE_DEFAULTS
from maskinporten.domain.members import PASSIVE_CLIENT_MEMBERS
from maskinporten.domain.orgno import OrgNo
from maskinporten.domain.registry import Registry
from maskinporten.domain.scope import (
    DelegationSource,
    Organization,
    Prefix,
    Scope,
    ScopeAccess,
)
from maskinporten.domain.selfservice.caller import Caller


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


def scope(thing: Scope, _registry: Registry) -> dict[str, Any]:
    """A scope, its members in the order of the public listing."""
    return _present(
        {
            "prefix": thing.prefix,
            "description": thing.description,
            **thing.texts,
            "subscope": thing.subscope,
            "active": thing.active,
            "created": thing.created,
            "last_updated": thing.last_updated,
            "allowed_integration_types": thing.allowed_integration_types or None,
            "owner_orgno": thing.owner_orgno,
            "token_type": thing.token_type,
            "visibility": thing.visibility,
            "requires_user_consent": thing.requires_user_consent,
            "requires_user_authentication": thing.requires_user_authentication,
            "requires_pseudonymous_tokens": thing.requires_pseudonymous_tokens,
            "enforced_aud_for_access_token": thing.enforced_aud_for_access_token,
            "enforced_aud_for_introspection": thing.enforced_aud_for_introspection,
            "delegation_source": thing.delegation_source,
            "at_max_age": thing.at_max_age,
            "authorization_max_lifetime": thing.authorization_max_lifetime,
            "accessible_for_all": thing.accessible_for_all,
            "name": thing.name,
            "protected": thing.protected,
            "supports_european_businesses": thing.supports_european_businesses,
            "consumer_prefix": thing.consumer_prefix or None,
        }
    )


def access(thing: ScopeAccess, registry: Registry) -> dict[str, Any]:
    """Where an organisation's access to a scope stands."""
    return _present(
        {
            "scope": thing.scope,
            "owner_orgno": thing.owner_orgno,
            "owner_organization_name": _name(thing.owner_orgno, registry),
            "consumer_orgno": thing.consumer_orgno,
            "consumer_organization_name": _name(thing.consumer_orgno, registry),
            "state": thing.state,
            "created": thing.created,
            "last_updated": thing.last_updated,
        }
    )


def prefix(thing: Prefix, registry: Registry) -> dict[str, Any]:
    """A prefix and its owner."""
    return _present(
        {
            "prefix": thing.prefix,
            "owner_orgno": thing.owner_orgno,
            "organization_name": _name(thing.owner_orgno, registry),
            "active": thing.active,
            "created": thing.created,
            "last_updated": thing.last_updated,
        }
    )


def delegation_source(thing: DelegationSource, _registry: Registry) -> dict[str, Any]:
    """A delegation source; clients of two ages spell the time of its last change differently."""
    return {
        "name": thing.name,
        "issuer": thing.issuer,
        "created": thing.created,
        "lastUpdated": thing.last_updated,
        "last_updated": thing.last_updated,
    }


def organization(thing: Organization, _registry: Registry) -> dict[str, Any]:
    """An organisation's name."""
    return {"orgnr": thing.orgnr, "name": thing.name}


def user(thing: Caller, registry: Registry) -> dict[str, Any]:
    """Who the token speaks for. Numbers of the synthetic test register begin with 2 or 3."""
    return {
        "authenticated_organization_number": thing.orgno,
        "authenticated_organization_name": _name(thing.orgno, registry),
        "is_synthetic_organization_number": thing.orgno[:1] in {"2", "3"},
        "has_consented": True,
    }


def onboarded(thing: Client, registry: Registry) -> dict[str, Any]:
    """A client in the onboarding portal's words."""
    return {
        "clientId": thing.client_id,
        "description": thing.description,
        "consumerOrgNr": thing.client_orgno,
        "scopes": thing.scopes,
        "keys": [key(one, registry) for one in thing.keys],
    }
