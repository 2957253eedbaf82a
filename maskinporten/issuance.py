"""From assertion to access token, in one straight line. No HTTP, no SQL, no rules."""

import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

from maskinporten.domain.altinn import (
    Confirmation,
    How,
    Question,
    at_time,
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
from maskinporten.domain.client import ClientId
from maskinporten.domain.details import Wish, read_wish
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
from maskinporten.errors import Reason, Refused, Unavailable

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
    clock: Callable[[], float] = time.time  # epoch seconds; looked at after others were asked


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
    was not spent and may be sent again, but where a token (HSM) fails at the signature itself:
    signing comes after, so that a grant sent again and again costs no signature.
    """
    unverified = read_assertion(assertion)
    registry = s.registry()
    seal = s.seals and find_seal(unverified, registry, s.certificates, s.seals, now)
    confirmations: tuple[Confirmation, ...] = ()
    signer = seal_signer(seal) if seal else _find_signer(s, unverified, registry, now)
    with _told_by(signer):
        if seal is not None:
            grant = _verify(s, unverified, signer, now)
            authorization = authorize_sealed(grant, seal, registry, s.lifetime_rule)
        else:
            weighed = _weigh(s, unverified, signer, registry, now)
            confirmations = await _ask(s, weighed, now)
            if any(each.how is not How.REMEMBERED for each in confirmations):
                # Time has passed: the client may have been shut out, the grant may have expired.
                now, registry = max(now, int(s.clock())), s.registry()
                signer = _find_signer(s, unverified, registry, now)
                weighed = _weigh(s, unverified, signer, registry, now)
            grant = weighed.grant
            authorization = _authorize(weighed, confirmations, now)
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


@dataclass(frozen=True, slots=True)
class _Weighed:
    """What our own registry says of a client's grant, at one moment."""

    grant: Grant
    wish: Wish | None
    entitlement: Entitlement


def _find_signer(s: Issuance, unverified: UnverifiedGrant, registry: Registry, now: int) -> Signer:
    client = registry.client(unverified.client_id)
    return find_signer(unverified, client, now, s.certificates)


def _weigh(
    s: Issuance, unverified: UnverifiedGrant, signer: Signer, registry: Registry, now: int
) -> _Weighed:
    client = registry.client(unverified.client_id)
    grant = _verify(s, unverified, signer, now)
    wish = read_wish(grant)
    return _Weighed(grant, wish, entitle(grant, client, registry, s.lifetime_rule))


async def _ask(s: Issuance, weighed: _Weighed, now: int) -> tuple[Confirmation, ...]:
    """Ask others, only where they are needed, and for details only once all else holds.

    Without anyone to ask nothing is delegated, and no type of `authorization_details` is known.
    """
    entitlement, wish = weighed.entitlement, weighed.wish
    questions = delegation_questions(entitlement)
    confirmations: tuple[Confirmation, ...] = ()
    if questions and s.delegations is not None:
        confirmations = await s.delegations.ask(entitlement.delegation_source, questions, now)
    if wish is None:
        return confirmations
    authorize(entitlement, delegation_of(entitlement, confirmations))
    if s.delegations is None:
        raise Refused(Reason.DETAILS_TYPE_UNKNOWN, "there is no line to Altinn")
    question = detail_question(wish, entitlement)
    return confirmations + await s.delegations.ask(None, (question,), now)


def _authorize(
    weighed: _Weighed, confirmations: tuple[Confirmation, ...], now: int
) -> Authorization:
    """The right to the token, if what was confirmed is what is needed, and still holds."""
    entitlement = weighed.entitlement
    authorization = authorize(entitlement, delegation_of(entitlement, confirmations))
    if weighed.wish is None:
        return authorization
    found = confirmations[-1]
    if found.question != detail_question(weighed.wish, entitlement):
        raise Unavailable("the client changed while others were asked")
    found = replace(found, answer=at_time(found.answer, now))
    return with_detail(authorization, verify_detail(found))


def _verify(s: Issuance, unverified: UnverifiedGrant, signer: Signer, now: int) -> Grant:
    refuse_unknown = s.refuse_unknown_claims
    return verify_grant(unverified, signer, s.audiences, now, refuse_unknown_claims=refuse_unknown)
