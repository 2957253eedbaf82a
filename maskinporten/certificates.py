"""Remembers what was found out about certificates, for exactly as long as it may be believed."""

import contextlib
import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Final, Generic, TypeVar

from cachetools import LRUCache

from maskinporten.domain.certificate import (
    EnterpriseCertificate,
    ProvenCertificate,
    TrustStore,
    read_leaf,
    read_x5c,
    verify_enterprise,
)
from maskinporten.domain.link import Invalid, read_link
from maskinporten.domain.path import Path
from maskinporten.domain.revocation import Evidence, RevocationPolicy, verify_not_revoked
from maskinporten.domain.seal import Seal, SealStore, verify_seal
from maskinporten.errors import Refused, Unavailable

_AWAITED: Final = 5  # seconds until evidence is fetched and read by every worker
MAX_AGE: Final = 900  # seconds an accepted chain is believed at most
MAX_REFUSAL_AGE: Final = 10  # seconds a refused one is; short, for a path may mend
MAX_VERDICTS: Final = 20_000  # more than Norway has callers
MAX_REFUSALS: Final = 2_000


Proven = TypeVar("Proven", bound=ProvenCertificate)
Judge = Callable[[tuple[bytes, ...], int], Proven]
"""From a chain in DER and the time to what it proves, revocation apart. Raises Refused."""


def enterprise_verdicts(
    trust: TrustStore, policy: RevocationPolicy, evidence: Evidence
) -> "Verdicts[EnterpriseCertificate]":
    """The `Certificates` of issuance."""
    return Verdicts(lambda c, now: verify_enterprise(read_leaf(c), trust, now), policy, evidence)


def seal_verdicts(
    store: SealStore, policy: RevocationPolicy, evidence: Evidence
) -> "Verdicts[Seal]":
    """The `Seals` of issuance."""
    return Verdicts(lambda c, now: verify_seal(c, store, now), policy, evidence)


class Verdicts(Generic[Proven]):
    """What each chain proves, remembered: the first call pays for the path, the next do not.

    Accepted and refused chains are kept apart, so that a hostile caller cannot push the honest
    out. New evidence of revocation makes every verdict begin anew.
    """

    def __init__(self, judge: Judge[Proven], policy: RevocationPolicy, evidence: Evidence) -> None:
        self._judge_chain = judge
        self._policy = policy
        self._evidence = evidence
        self.watch: Callable[[Path], bool] = _watch_nothing
        self._accepted: LRUCache[bytes, tuple[int, Proven]] = LRUCache(MAX_VERDICTS)
        self._refused: LRUCache[bytes, tuple[int, Refused]] = LRUCache(MAX_REFUSALS)

    def __call__(self, x5c: object, now: int) -> Proven:
        """What the header proves. Raises Refused; or Unavailable, while it cannot be told yet."""
        name = _digest(x5c)
        if name is None:
            chain = read_x5c(x5c)  # which says what is wrong
            return self._judge(chain, now)[1]
        if (accepted := self._accepted.get(name)) is not None and now <= accepted[0]:
            return accepted[1]
        if (refused := self._refused.get(name)) is not None and now < refused[0]:
            raise _again(refused[1])
        try:
            self._accepted[name] = verdict = self._judge(read_x5c(x5c), now)
        except Refused as refusal:
            # A copy: the one that was raised holds on to every frame it went through.
            self._refused[name] = now + MAX_REFUSAL_AGE, _again(refusal)
            raise
        return verdict[1]

    def heard(self, evidence: Evidence) -> None:
        """Judge every chain anew, by this evidence, from now on."""
        self._evidence = evidence
        self._accepted.clear()
        self._refused.clear()

    def _judge(self, chain: tuple[bytes, ...], now: int) -> tuple[int, Proven]:
        try:
            return self._weigh(chain, now)
        except Refused as refusal:
            with contextlib.suppress(Invalid):
                refusal.certificate = read_link(chain[0]).audited()
            raise

    def _weigh(self, chain: tuple[bytes, ...], now: int) -> tuple[int, Proven]:
        certificate = self._judge_chain(chain, now)
        awaited = self.watch(certificate.path)
        try:
            standing = verify_not_revoked(certificate.path, self._evidence, self._policy, now)
        except Refused as refusal:
            if awaited:
                # The first caller under an authority that nobody configured; soon we shall know.
                raise Unavailable(f"not known yet: {refusal.detail}", _AWAITED) from refusal
            raise
        until = min(certificate.path.until, standing.until, now + MAX_AGE)
        return until, replace(certificate, evidence=standing.evidence)


def _again(refusal: Refused) -> Refused:
    copy = Refused(refusal.reason, refusal.detail, named=refusal.named)
    copy.certificate = refusal.certificate
    return copy


def _watch_nothing(_path: Path) -> bool:
    """Where no responder is asked."""
    return False


def _digest(x5c: object) -> bytes | None:
    """A name for the header as it was sent; None for what is no array of strings."""
    if not isinstance(x5c, list) or not all(isinstance(element, str) for element in x5c):
        return None
    try:
        return hashlib.sha256("|".join(x5c).encode("ascii")).digest()
    except UnicodeEncodeError:
        return None
