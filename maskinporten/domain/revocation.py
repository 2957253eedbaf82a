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

RETRY: Final = 60  # seconds until the next try where there is a reason to hurry
SKEW: Final = 300  # seconds an issuer's clock may be ahead of ours
_FOREVER: Final = 1 << 62
_LIST_CRITICAL: Final = frozenset({ExtensionOID.ISSUING_DISTRIBUTION_POINT})
_MAX_RESPONDERS: Final = 4  # certificates in an answer that are looked at
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
    responder: int | None = None  # serial number of the delegate who signed; None: the issuer


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
    if status is not None and not any(status.responder in found.revoked for found in lists):
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
    return frozenset(map(str, _distribution_points(link)))


def list_urls(link: Link) -> tuple[str, ...]:
    """Where, by its own words, the list lies that would name the certificate; over HTTP alone."""
    urls = [
        name.value
        for name in _distribution_points(link)
        if isinstance(name, x509.UniformResourceIdentifier)
    ]
    return tuple(url for url in urls if url.startswith(("http://", "https://")))


def _distribution_points(link: Link) -> list[x509.GeneralName]:
    try:
        found = link.certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints)
    except x509.ExtensionNotFound:
        return []
    points = [point for point in found.value if point.crl_issuer is None and point.reasons is None]
    return [name for point in points for name in point.full_name or ()]


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
        responder = _responder(response, issuer, now)
        answers = [a for a in response.responses if _is_about(a, link, issuer)]
    except (ValueError, TypeError, UnsupportedAlgorithm) as fault:
        if isinstance(fault, Invalid):
            raise
        raise Invalid(f"an unreadable answer: {fault}"[:200]) from fault
    known = [a for a in answers if a.certificate_status is not ocsp.OCSPCertStatus.UNKNOWN]
    if not known:
        raise Invalid("an answer about another certificate")
    # Said twice, the worse counts.
    answer = max(known, key=lambda a: a.certificate_status is ocsp.OCSPCertStatus.REVOKED)
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
        responder=responder,
    )


def _responder(response: ocsp.OCSPResponse, issuer: Link, now: int) -> int | None:
    """Who signed: a delegate of that serial number, or None for the issuer. Raises Invalid."""
    candidates: list[tuple[Link, int | None]] = [(issuer, None)]
    fault = Invalid("nobody signed")
    for certificate in response.certificates[:_MAX_RESPONDERS]:
        delegate = read_link(certificate.public_bytes(Encoding.DER))
        if delegate.der != issuer.der:
            candidates.append((delegate, delegate.serial))
    signed = response.signature, response.tbs_response_bytes
    digest, algorithm = response.signature_hash_algorithm, response.signature_algorithm_oid
    for link, serial in candidates:
        try:
            if link is not issuer:
                _verify_delegate(link, issuer, now)
            verify_signature_by(link.certificate.public_key(), algorithm, None, digest, signed)
        except Invalid as found:
            fault = found
        else:
            return serial
    raise fault


def _verify_delegate(delegate: Link, issuer: Link, now: int) -> None:
    """RFC 6960 section 4.2.2.2: the issuer itself gave it the right to answer. Raises Invalid."""
    if delegate.issuer != issuer.subject or not delegate.not_before <= now <= delegate.not_after:
        raise Invalid("a responder of another issuer, or an expired one")
    verify_signed(delegate.certificate, issuer)
    usage = delegate.key_usage
    try:
        found = delegate.certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    except x509.ExtensionNotFound as fault:
        raise Invalid("a responder without the right to answer") from fault
    if _OCSP_SIGNING not in found.value or (usage is not None and not usage.digital_signature):
        raise Invalid("a responder without the right to answer")


def _is_about(answer: ocsp.OCSPSingleResponse, link: Link, issuer: Link) -> bool:
    """RFC 6960 section 4.1.1: the serial number, and the issuer by its name and by its key."""
    return (
        answer.serial_number == link.serial
        and answer.issuer_name_hash
        == _digest(answer.hash_algorithm, issuer.certificate.subject.public_bytes())
        and answer.issuer_key_hash == _digest(answer.hash_algorithm, issuer.key_bits)
    )


def _digest(algorithm: hashes.HashAlgorithm, octets: bytes) -> bytes:
    digest = hashes.Hash(algorithm)
    digest.update(octets)
    return digest.finalize()


def next_fetch(
    fetched: int, evidence: RevocationList | CertificateStatus | None, refresh: int
) -> int:
    """When to look again after a fetch that went well: by interval, and well before the promise.

    The last fifth of the promised time is for trying: until the publisher has something newer we
    look every RETRY seconds. Times in epoch seconds, `refresh` in seconds.
    """
    by_interval = fetched + refresh
    if evidence is None:
        return by_interval
    lead = max(0, evidence.next_update - evidence.this_update) // 5
    return min(by_interval, max(evidence.next_update - lead, fetched + RETRY))
