"""From assertion to access token, in one straight line. No HTTP, no SQL, no rules."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from maskinporten.domain.authorization import (
    Authorization,
    Delegation,
    Entitlement,
    LifetimeRule,
    authorize,
    entitle,
)
from maskinporten.domain.client import ClientId
from maskinporten.domain.grant import (
    Assertion,
    Certificates,
    Grant,
    Signer,
    UnverifiedGrant,
    find_signer,
    read_assertion,
    refuse_certificates,
    verify_grant,
)
from maskinporten.domain.registry import Registry
from maskinporten.domain.sealed import Seals, authorize_sealed, find_seal, seal_signer
from maskinporten.domain.signing import SigningKey
from maskinporten.domain.token import AccessToken, sign_token
from maskinporten.errors import Reason, Refused

_JTI_OCTETS = 32  # 256 random bits, 43 characters


class Delegations(Protocol):
    """Whoever knows which consumer has delegated what to whom; in practice Altinn."""

    async def find(self, entitlement: Entitlement) -> Delegation | None:
        """The delegation that the entitlement needs, or None. Raises Unavailable."""
        ...


class Spend(Protocol):
    """Uses a grant up, everywhere at once. Raises Refused: GRANT_SPENT; or Unavailable."""

    async def __call__(self, key: bytes, until: int) -> None:
        """Return the first time and only then."""
        ...


@dataclass(frozen=True, slots=True)
class Issuance:
    """What issuing needs of the world. Everything real in it is chosen in `app`."""

    issuer: str
    audiences: frozenset[str]
    registry: Callable[[], Registry]
    signing_key: Callable[[ClientId], SigningKey]
    spend: Spend
    delegations: Delegations | None = None
    lifetime_rule: LifetimeRule = LifetimeRule.OVERRIDE
    refuse_unknown_claims: bool = False
    certificates: Certificates = refuse_certificates
    seals: Seals | None = None  # None: no European seal is accepted


@dataclass(frozen=True, slots=True)
class Issued:
    """The token, and what the audit says about how it came to be."""

    token: AccessToken
    authorization: Authorization
    grant: Grant
    signer: Signer


async def issue_token(s: Issuance, assertion: Assertion, now: int) -> Issued:
    """One grant, at most one token. The grant is spent last, when nothing else can refuse it.

    `now` is in epoch seconds. Raises Refused with the first fault, or Unavailable; then the grant
    was not spent and may be sent again.
    """
    registry = s.registry()
    unverified = read_assertion(assertion)
    seal = s.seals and find_seal(unverified, registry, s.certificates, s.seals, now)
    if seal is not None:
        signer = seal_signer(seal)
        grant = _verify(s, unverified, signer, now)
        authorization = authorize_sealed(grant, seal, registry, s.lifetime_rule)
    else:
        client = registry.client(unverified.client_id)
        signer = find_signer(unverified, client, now, s.certificates)
        grant = _verify(s, unverified, signer, now)
        entitlement = entitle(grant, client, registry, s.lifetime_rule)
        authorization = authorize(entitlement, await _find_delegation(s, entitlement))
    key = s.signing_key(authorization.client_id)
    await s.spend(grant.spend_key, grant.spent_until)
    jti = secrets.token_urlsafe(_JTI_OCTETS)
    return Issued(sign_token(authorization, key, s.issuer, now, jti), authorization, grant, signer)


def _verify(s: Issuance, unverified: UnverifiedGrant, signer: Signer, now: int) -> Grant:
    refuse_unknown = s.refuse_unknown_claims
    return verify_grant(unverified, signer, s.audiences, now, refuse_unknown_claims=refuse_unknown)


async def _find_delegation(s: Issuance, entitlement: Entitlement) -> Delegation | None:
    """Ask only where a delegation is needed; without anyone to ask there is none."""
    if entitlement.grant.authorization_details is not None:
        raise Refused(Reason.DETAILS_TYPE_UNKNOWN)
    if entitlement.delegation_source is None or s.delegations is None:
        return None
    return await s.delegations.find(entitlement)
