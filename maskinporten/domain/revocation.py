"""Whether a certificate has been revoked, as far as the evidence at hand can tell.

Evidence is fetched elsewhere and long before; here it is read, verified against its issuer, and
weighed. A revoked certificate is refused however old the evidence; only silence can grow stale.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from maskinporten.domain.link import (
    Invalid,
    Link,
    comparable_name,
    read_link,
    verify_signature_by,
    verify_signed,
)
from maskinporten.domain.path import Path
from maskinporten.errors import Reason, Refused

SKEW: Final = 300  # seconds an issuer's clock may be ahead of ours
_FOREVER: Final = 1 << 62
_LIST_CRITICAL: Final = frozenset({ExtensionOID.ISSUING_DISTRIBUTION_POINT})
_OCSP_SIGNING: Final = ExtendedKeyUsageOID.OCSP_SIGNING


class WhenStale(StrEnum):
    """What silence means once the evidence is older than its issuer promised."""

    ACCEPT = "accept"
    GRACE = "grace"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class RevocationPolicy:
    """One profile's answer to stale or missing evidence."""

    when_stale: WhenStale = WhenStale.GRACE
    grace: int = 3 * 24 * 3600  # seconds past the promised next update
    accept_without_source: bool = False  # for authorities that publish nothing we know of


@dataclass(frozen=True, slots=True, eq=False)
class RevocationList:
    """A CRL that its issuer signed. Made by `read_crl` only."""

    authority: bytes  # `authority_id` of the issuer
    this_update: int  # epoch seconds
    next_update: int
    sha256: str
    users_only: bool
    authorities_only: bool
    points: frozenset[str]  # where it was meant to lie; empty: it covers every certificate
    revoked: frozenset[int] = field(repr=False)  # serial numbers

    def covers(self, link: Link) -> bool:
        """Whether silence of this list says anything about the certificate."""
        if (self.users_only and link.is_ca) or (self.authorities_only and not link.is_ca):
            return False
        return not self.points or bool(self.points & distribution_points(link))


@dataclass(frozen=True, slots=True)
class CertificateStatus:
    """What a responder said of one certificate. Made by `read_ocsp` only."""

    authority: bytes
    serial: int
    revoked: bool
    this_update: int
    next_update: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that is known about revocation at this moment; a value, replaced as a whole."""

    lists: Mapping[bytes, tuple[RevocationList, ...]] = field(default_factory=dict)
    statuses: Mapping[tuple[bytes, int], CertificateStatus] = field(default_factory=dict)
    sources: frozenset[bytes] = frozenset()  # authorities that publish something we fetch


@dataclass(frozen=True, slots=True)
class Standing:
    """A path without a revoked certificate: until when that may be said, and on what evidence."""

    until: int  # epoch seconds
    evidence: tuple[str, ...]


def authority_id(link: Link) -> bytes:
    """Names an authority by its name and key, which cross-signed certificates share."""
    return hashlib.sha256(link.authority).digest()


def verify_not_revoked(
    path: Path, evidence: Evidence, policy: RevocationPolicy, now: int
) -> Standing:
    """Asked of every certificate below the anchor. Raises Refused: CERTIFICATE_INVALID."""
    until = _FOREVER
    used: list[str] = []
    for link, issuer in zip(path.links, path.links[1:], strict=False):
        standing = _standing(link, authority_id(issuer), evidence, policy, now)
        until = min(until, standing.until)
        used.extend(standing.evidence)
    return Standing(until, tuple(used))


def _standing(
    link: Link, authority: bytes, evidence: Evidence, policy: RevocationPolicy, now: int
) -> Standing:
    lists = evidence.lists.get(authority, ())
    status = evidence.statuses.get((authority, link.serial))
    if (status is not None and status.revoked) or any(
        link.serial in found.revoked for found in lists
    ):
        raise Refused(Reason.CERTIFICATE_INVALID, f"revoked: serial {link.serial}")
    silent = [(found.next_update, f"crl:{found.sha256}") for found in lists if found.covers(link)]
    if status is not None:
        silent.append((status.next_update, f"ocsp:{status.sha256}"))
    if not silent and authority not in evidence.sources:
        if policy.accept_without_source:
            return Standing(_FOREVER, ("none: the authority publishes nothing we know of",))
        raise Refused(Reason.CERTIFICATE_INVALID, "no source of revocation for the authority")
    promised, name = max(silent, default=(0, "none yet"))
    if now <= promised:
        return Standing(promised, (name,))
    if policy.when_stale is WhenStale.ACCEPT:
        return Standing(_FOREVER, (f"stale {name}",))
    if policy.when_stale is WhenStale.GRACE and now <= promised + policy.grace:
        return Standing(promised + policy.grace, (f"stale {name}",))
    raise Refused(Reason.CERTIFICATE_INVALID, f"revocation evidence is stale ({name})")


def distribution_points(link: Link) -> frozenset[str]:
    """The full names in the certificate's CRL distribution points."""
    try:
        found = link.certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints)
    except x509.ExtensionNotFound:
        return frozenset()
    points = [point for point in found.value if point.crl_issuer is None and point.reasons is None]
    return frozenset(str(name) for point in points for name in point.full_name or ())


def read_crl(der: bytes, issuer: Link, now: int) -> RevocationList:
    """A complete list of the issuer's own, verified by its key. Raises Invalid.

    Delta, indirect and partial-reason lists are refused: no Norwegian issuer needs them, and what
    is only half understood must not vouch for anyone.
    """
    try:
        crl = x509.load_der_x509_crl(der)
        extensions = crl.extensions
        same_name = comparable_name(crl.issuer) == issuer.subject
        this_update, next_update = crl.last_update_utc, crl.next_update_utc
    except (ValueError, UnsupportedAlgorithm, x509.DuplicateExtension) as fault:
        raise Invalid(f"an unreadable list: {fault}"[:200]) from fault
    if not same_name:
        raise Invalid("a list of another issuer")
    if issuer.key_usage is not None and not issuer.key_usage.crl_sign:
        raise Invalid("a list by an authority that may not sign lists")
    verify_signed(crl, issuer)
    if next_update is None:
        raise Invalid("a list without next update")
    if this_update.timestamp() > now + SKEW:
        raise Invalid("a list of the future")
    if unknown := {e.oid for e in extensions if e.critical} - _LIST_CRITICAL:
        raise Invalid(f"a list with a critical extension {min(o.dotted_string for o in unknown)}")
    users_only, authorities_only, points = _scope(extensions)
    return RevocationList(
        authority=authority_id(issuer),
        this_update=int(this_update.timestamp()),
        next_update=int(next_update.timestamp()),
        sha256=hashlib.sha256(der).hexdigest(),
        users_only=users_only,
        authorities_only=authorities_only,
        points=points,
        # Read once, here, where nobody waits: the library's own search is linear for each question.
        revoked=frozenset(entry.serial_number for entry in crl),
    )


def _scope(extensions: x509.Extensions) -> tuple[bool, bool, frozenset[str]]:
    try:
        found = extensions.get_extension_for_class(x509.IssuingDistributionPoint).value
    except x509.ExtensionNotFound:
        return False, False, frozenset()
    if found.indirect_crl or found.only_some_reasons or found.only_contains_attribute_certs:
        raise Invalid("an indirect or a partial list")
    if found.relative_name is not None:
        raise Invalid("a list named relative to its issuer")
    points = frozenset(map(str, found.full_name or ()))
    return found.only_contains_user_certs, found.only_contains_ca_certs, points


def read_ocsp(der: bytes, link: Link, issuer: Link, now: int) -> CertificateStatus:
    """A responder's word on one certificate (RFC 6960), verified. Raises Invalid.

    The issuer signed it, or a responder to whom the issuer gave that right. An answer that does
    not know the certificate says nothing.
    """
    try:
        response = ocsp.load_der_ocsp_response(der)
        if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
            raise Invalid(f"the responder says {response.response_status.name}")
        answers = list(response.responses)
        digest = response.signature_hash_algorithm
        algorithm = response.signature_algorithm_oid
    except (ValueError, UnsupportedAlgorithm) as fault:
        raise Invalid(f"an unreadable answer: {fault}"[:200]) from fault
    signed = response.signature, response.tbs_response_bytes
    key = _responder(response, issuer, now)
    verify_signature_by(key, algorithm, None, digest, signed)
    answer = next((a for a in answers if _is_about(a, link, issuer)), None)
    if answer is None or answer.certificate_status is ocsp.OCSPCertStatus.UNKNOWN:
        raise Invalid("an answer about another certificate")
    this_update, next_update = answer.this_update_utc, answer.next_update_utc
    if next_update is None or this_update.timestamp() > now + SKEW:
        raise Invalid("an answer without next update, or of the future")
    return CertificateStatus(
        authority=authority_id(issuer),
        serial=link.serial,
        revoked=answer.certificate_status is ocsp.OCSPCertStatus.REVOKED,
        this_update=int(this_update.timestamp()),
        next_update=int(next_update.timestamp()),
        sha256=hashlib.sha256(der).hexdigest(),
    )


def _responder(response: ocsp.OCSPResponse, issuer: Link, now: int) -> object:
    """The key that may have signed: the issuer's, or that of a responder it certified."""
    if not response.certificates:
        return issuer.certificate.public_key()
    delegate = read_link(response.certificates[0].public_bytes(Encoding.DER))
    if delegate.der == issuer.der:
        return issuer.certificate.public_key()
    if delegate.issuer != issuer.subject or not delegate.not_before <= now <= delegate.not_after:
        raise Invalid("a responder of another issuer, or an expired one")
    verify_signed(delegate.certificate, issuer)
    try:
        found = delegate.certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    except x509.ExtensionNotFound as fault:
        raise Invalid("a responder without the right to answer") from fault
    if _OCSP_SIGNING not in found.value:
        raise Invalid("a responder without the right to answer")
    return delegate.certificate.public_key()


def _is_about(answer: ocsp.OCSPSingleResponse, link: Link, issuer: Link) -> bool:
    digest = hashes.Hash(answer.hash_algorithm)
    digest.update(issuer.certificate.subject.public_bytes())
    return answer.serial_number == link.serial and answer.issuer_name_hash == digest.finalize()
