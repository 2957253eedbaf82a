"""Grants that a European business has sealed: who signed, and what such a caller may have.

No client is registered. `iss` must be there and says nothing; the seal says who calls, and the
owner of a scope says whether European businesses may have it at all.
"""

from collections.abc import Callable
from typing import Final

from maskinporten.domain.authorization import Authorization, LifetimeRule, scoped_lifetime
from maskinporten.domain.client import DEFAULT_TOKEN_LIFETIME, SEALED, ClientId
from maskinporten.domain.grant import ALGORITHMS, Certificates, Grant, Signer, UnverifiedGrant
from maskinporten.domain.registry import Registry
from maskinporten.domain.seal import Seal
from maskinporten.errors import Reason, Refused

Seals = Callable[[object, int], Seal]
"""From an `x5c` header and the time to the business it proves. Raises Refused."""
_ALL_ALGORITHMS: Final = frozenset(ALGORITHMS)


def find_seal(
    unverified: UnverifiedGrant,
    registry: Registry,
    certificates: Certificates,
    seals: Seals,
    now: int,
) -> Seal | None:
    """The seal that signed the grant; None where the grant is a registered client's to prove.

        header          the chain leads to          iss             who calls
        kid, or no x5c  -                           any             the client
        x5c             a Norwegian anchor          registered      the client
        x5c             a Norwegian anchor only     not registered  CLIENT_UNKNOWN
        x5c             a European anchor           any             the business of the seal
        x5c             neither                     registered      the client (refused there)
        x5c             neither                     not registered  why the seal does not hold

    An authority may be an anchor of both kinds; a registered client's `iss` then decides.
    Raises Refused: CLIENT_UNKNOWN, X5C_MALFORMED, CERTIFICATE_INVALID.
    """
    if unverified.kid is not None or unverified.x5c is None:
        return None
    registered = unverified.client_id in registry.clients
    try:
        seal = seals(unverified.x5c, now)
    except Refused as refusal:
        if registered:
            return None
        if _is_norwegian(unverified.x5c, certificates, now):
            raise Refused(Reason.CLIENT_UNKNOWN, repr(unverified.client_id)[:80]) from refusal
        raise
    return None if registered and _is_norwegian(unverified.x5c, certificates, now) else seal


def _is_norwegian(x5c: object, certificates: Certificates, now: int) -> bool:
    try:
        certificates(x5c, now)
    except Refused:
        return False
    return True


def seal_signer(seal: Seal) -> Signer:
    """The key that must have signed, and the name the caller goes by."""
    return Signer(
        seal.key,
        _ALL_ALGORITHMS,
        seal.client_amr,
        certificate=seal,
        client_id=ClientId(f"{SEALED}{seal.serial}"),
    )


def authorize_sealed(
    grant: Grant,
    seal: Seal,
    registry: Registry,
    lifetime_rule: LifetimeRule = LifetimeRule.OVERRIDE,
) -> Authorization:
    """All of the scopes, or none. The owner's word on European businesses is the only condition.

    A seal acts for nobody else. Raises Refused: CLAIM_INVALID, ON_BEHALF_OF_INVALID,
    DETAILS_TYPE_UNKNOWN, SCOPE_NOT_ON_CLIENT.
    """
    if grant.consumer_org is not None:
        raise Refused(Reason.CLAIM_INVALID, "consumer_org with a seal", named=("consumer_org",))
    if grant.iss_onbehalfof is not None:
        raise Refused(Reason.ON_BEHALF_OF_INVALID, "iss_onbehalfof with a seal")
    if grant.authorization_details is not None:
        raise Refused(Reason.DETAILS_TYPE_UNKNOWN, "authorization_details with a seal")
    scopes = []
    for name in grant.scopes:
        scope = registry.scopes.get(name)
        if scope is None or not scope.active or not scope.supports_european_businesses:
            raise Refused(Reason.SCOPE_NOT_ON_CLIENT, f"{name} with a seal", named=(name,))
        scopes.append(scope)
    return Authorization(
        client_id=grant.client_id,
        client_amr=grant.client_amr,
        consumer=seal.holder,
        supplier=None,
        scopes=grant.scopes,
        lifetime=scoped_lifetime(DEFAULT_TOKEN_LIFETIME, scopes, lifetime_rule),
        resources=grant.resources,
        pid=grant.pid,
    )
