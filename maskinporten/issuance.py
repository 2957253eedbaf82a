"""From assertion to access token, in one straight line. No HTTP, no SQL, no rules."""

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from maskinporten.domain.altinn import (
    Confirmation,
    Question,
    delegation_of,
    delegation_questions,
    detail_question,
    verify_detail,
)
from maskinporten.domain.authorization import (
    Authorization,
    Entitlement,
    LifetimeRule,
    authorize,
    entitle,
    with_detail,
)
from maskinporten.domain.client import Client, ClientId
from maskinporten.domain.details import read_wish
from maskinporten.domain.grant import (
    Assertion,
    Certificates,
    Grant,
    Signer,
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
    """Whoever knows what was delegated, approved or consented to; in practice Altinn."""

    async def ask(
        self, source: str | None, questions: Sequence[Question], now: float
    ) -> tuple[Confirmation, ...]:
        """An answer to each question, or none at all where the source is unknown.

        `source` is as in a scope's `delegation_source`; None: whoever answers for system users
        and consents. `now` is in epoch seconds. Raises Unavailable.
        """
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
    confirmations: tuple[Confirmation, ...] = ()


async def issue_token(s: Issuance, assertion: Assertion, now: int) -> Issued:
    """One grant, at most one token. The grant is spent last, when nothing else can refuse it.

    `now` is in epoch seconds. Raises Refused with the first fault, or Unavailable; then the grant
    was not spent and may be sent again.
    """
    registry = s.registry()
    unverified = read_assertion(assertion)
    seal = s.seals and find_seal(unverified, registry, s.certificates, s.seals, now)
    confirmations: tuple[Confirmation, ...] = ()
    if seal is not None:
        signer = seal_signer(seal)
    else:
        client = registry.client(unverified.client_id)
        signer = find_signer(unverified, client, now, s.certificates)
    with _told_by(signer):
        grant = verify_grant(
            unverified, signer, s.audiences, now, refuse_unknown_claims=s.refuse_unknown_claims
        )
        if seal is not None:
            authorization = authorize_sealed(grant, seal, registry, s.lifetime_rule)
        else:
            authorization, confirmations = await _authorize(s, grant, client, registry, now)
        key = s.signing_key(authorization.client_id)
        await s.spend(grant.spend_key, grant.spent_until)
    jti = secrets.token_urlsafe(_JTI_OCTETS)
    token = sign_token(authorization, key, s.issuer, now, jti)
    return Issued(token, authorization, grant, signer, confirmations)


@contextmanager
def _told_by(signer: Signer) -> Iterator[None]:
    """What is refused from here on was asked for by the holder of this certificate, if any."""
    try:
        yield
    except Refused as refused:
        if signer.certificate is not None:
            refused.certificate = signer.certificate.link.audited()
        raise


async def _authorize(
    s: Issuance, grant: Grant, client: Client, registry: Registry, now: int
) -> tuple[Authorization, tuple[Confirmation, ...]]:
    """The right to the token, once everyone who must be asked has been."""
    wish = read_wish(grant)
    entitlement = entitle(grant, client, registry, s.lifetime_rule)
    confirmations = await _find_delegations(s, entitlement, now)
    authorization = authorize(entitlement, delegation_of(entitlement, confirmations))
    if wish is not None:
        found = await _find_detail(s, detail_question(wish, entitlement), now)
        authorization = with_detail(authorization, verify_detail(found))
        confirmations = (*confirmations, found)
    return authorization, confirmations


async def _find_delegations(
    s: Issuance, entitlement: Entitlement, now: int
) -> tuple[Confirmation, ...]:
    """Ask only where a delegation is needed; without anyone to ask there is none."""
    questions = delegation_questions(entitlement)
    if not questions or s.delegations is None:
        return ()
    return await s.delegations.ask(entitlement.delegation_source, questions, now)


async def _find_detail(s: Issuance, question: Question, now: int) -> Confirmation:
    """Without anyone to ask, a server knows no type of `authorization_details`."""
    if s.delegations is None:
        raise Refused(Reason.DETAILS_TYPE_UNKNOWN, "there is no line to Altinn")
    (confirmation,) = await s.delegations.ask(None, (question,), now)
    return confirmation
