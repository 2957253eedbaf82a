"""The enterprise certificate (virksomhetssertifikat): from `x5c` to an organisation that called.

The caller's certificates prove nothing by themselves: of its chain only the leaf is used, and the
path from there is built from the operator's own authorities.
"""

import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509.oid import ExtensionOID, NameOID

from maskinporten.domain.jwk import Unfit, verify_fit
from maskinporten.domain.link import Invalid, Link, read_link
from maskinporten.domain.orgno import OrgNo, find_orgno
from maskinporten.domain.path import Authorities, Path, find_path
from maskinporten.domain.policies import PolicyInputs
from maskinporten.errors import Reason, Refused

MAX_CERTIFICATES: Final = 6
MAX_CERTIFICATE_LENGTH: Final = 8 * 1024  # octets of DER
ENTERPRISE: Final = "virksomhetssertifikat"
_MAX_TEXT_LENGTH: Final = (MAX_CERTIFICATE_LENGTH + 2) // 3 * 4
_NOT_BASE64: Final = re.compile(r"[^A-Za-z0-9+/=]", re.ASCII)
# Digdir's validator: whatever else is critical is refused.
_LEAF_CRITICAL: Final = frozenset(
    {ExtensionOID.KEY_USAGE.dotted_string, ExtensionOID.BASIC_CONSTRAINTS.dotted_string}
)
_IDENTIFIER: Final = re.compile(r"(?:NTRNO-|PSDNO-FSA-)?([0-9]{9})", re.ASCII)
_NINE_DIGITS: Final = re.compile(r"[0-9]{9}", re.ASCII)
# A certificate made for these purposes alone was not made for an organisation that signs.
_FOREIGN_PURPOSES: Final = frozenset(
    {
        "1.3.6.1.5.5.7.3.1",  # serverAuth
        "1.3.6.1.5.5.7.3.3",  # codeSigning
        "1.3.6.1.5.5.7.3.8",  # timeStamping
        "1.3.6.1.5.5.7.3.9",  # OCSPSigning
    }
)


@dataclass(frozen=True, slots=True)
class TrustStore:
    """What one environment accepts as an enterprise certificate. A value; loaded at start-up.

    A policy with a trailing `*` stands for all that begin like it. Under `explicit_policy` the
    accepted policy must hold along the whole path (RFC 5280), not in the leaf alone.
    """

    authorities: Authorities
    policies: tuple[str, ...]
    explicit_policy: bool = False

    def accepts(self, policy: str) -> bool:
        """Whether the profile lists the policy."""
        return any(
            policy.startswith(listed[:-1]) if listed.endswith("*") else policy == listed
            for listed in self.policies
        )


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class ProvenCertificate:
    """A certificate that proves who its holder is; its path ends at an anchor of ours.

    Revocation is the next question (domain/revocation.py); `path` is what it is asked about.
    """

    issuer: str  # RFC 4514
    serial: int
    not_after: int  # epoch seconds
    client_amr: str
    sha256: str  # of the DER, in hexadecimal
    der: bytes
    key: RSAPublicKey
    path: Path
    evidence: tuple[str, ...] = ()  # by which it is held not to be revoked

    @property
    def link(self) -> Link:
        """The certificate itself, taken apart."""
        return self.path.links[0]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class EnterpriseCertificate(ProvenCertificate):
    """A certificate of a Norwegian organisation. Made by `verify_enterprise` only."""

    orgno: OrgNo


def read_x5c(x5c: object) -> tuple[bytes, ...]:
    """The DER of each certificate in the header. Raises Refused: X5C_MALFORMED.

    RFC 7515 section 4.1.6: an array of strings, standard base64 and not base64url, leaf first.
    """
    return tuple(map(_read_element, verify_x5c_shape(x5c)))


def verify_x5c_shape(x5c: object) -> list[str]:
    """An array of a few strings; what is in them stays unread. Raises Refused: X5C_MALFORMED."""
    if not isinstance(x5c, list) or not x5c:
        raise Refused(Reason.X5C_MALFORMED, "not an array of certificates")
    if len(x5c) > MAX_CERTIFICATES:
        raise Refused(Reason.X5C_MALFORMED, f"{len(x5c)} certificates")
    if not all(isinstance(e, str) and 0 < len(e) <= _MAX_TEXT_LENGTH for e in x5c):
        raise Refused(Reason.X5C_MALFORMED, "an element that is no string, or is too long")
    return x5c


def _read_element(element: str) -> bytes:
    if _NOT_BASE64.search(element):
        raise Refused(Reason.X5C_MALFORMED, "an element that is not standard base64")
    try:
        der = binascii.a2b_base64(element, strict_mode=True)
    except binascii.Error as fault:
        raise Refused(Reason.X5C_MALFORMED, "an element that is not base64") from fault
    if len(der) > MAX_CERTIFICATE_LENGTH:
        raise Refused(Reason.X5C_MALFORMED, f"a certificate of {len(der)} octets")
    return der


def read_leaf(chain: tuple[bytes, ...]) -> Link:
    """The caller's own certificate, read. Raises Refused: X5C_MALFORMED."""
    try:
        return read_link(chain[0])
    except Invalid as fault:
        raise Refused(Reason.X5C_MALFORMED, str(fault)) from fault


def read_chain(chain: tuple[bytes, ...]) -> tuple[Link, ...]:
    """Every certificate of the header, read. Raises Refused: X5C_MALFORMED."""
    try:
        return tuple(map(read_link, chain))
    except Invalid as fault:
        raise Refused(Reason.X5C_MALFORMED, str(fault)) from fault


def verify_enterprise(leaf: Link, trust: TrustStore, now: int) -> EnterpriseCertificate:
    """The organisation behind the leaf, by every rule but revocation. Raises Refused.

    The rules, in order: the leaf by itself, its key, a path to an anchor at `now`, a listed
    policy, the organisation number. All of them answer CERTIFICATE_INVALID.
    """
    try:
        verify_leaf(leaf)
        key = signing_key(leaf)
        inputs = PolicyInputs(trust.accepts, explicit=trust.explicit_policy)
        path = find_path(leaf, trust.authorities, now, inputs)
        if not any(map(trust.accepts, leaf.policies or ())):
            raise Invalid("no certificate policy that is accepted")
        orgno = find_certified_orgno(leaf.certificate.subject)
    except Invalid as fault:
        raise Refused(Reason.CERTIFICATE_INVALID, str(fault)) from fault
    return EnterpriseCertificate(
        orgno=orgno,
        issuer=leaf.certificate.issuer.rfc4514_string(),
        serial=leaf.serial,
        not_after=leaf.not_after,
        client_amr=ENTERPRISE,
        sha256=hashlib.sha256(leaf.der).hexdigest(),
        der=leaf.der,
        key=key,
        path=path,
    )


def verify_leaf(leaf: Link) -> None:
    """What a certificate of an organisation must be, whoever issued it. Raises Invalid."""
    usage = leaf.key_usage
    if leaf.is_ca or leaf.path_length is not None:
        raise Invalid("an authority as the leaf")
    if leaf.self_issued:
        raise Invalid("self-signed")
    if usage is None or ExtensionOID.KEY_USAGE.dotted_string not in leaf.critical:
        raise Invalid("no key usage, or not critical")
    if usage.key_cert_sign or usage.crl_sign:
        raise Invalid("a leaf that may sign certificates")
    if not (usage.digital_signature or usage.content_commitment):
        raise Invalid("a key that may not sign")
    if unknown := leaf.critical - _LEAF_CRITICAL:
        raise Invalid(f"a critical extension {min(unknown)}")
    if leaf.name_constraints is not None or leaf.mappings:
        raise Invalid("an authority's extension in the leaf")
    purposes = _purposes(leaf.certificate)
    if purposes and purposes <= _FOREIGN_PURPOSES:
        raise Invalid("made for other purposes")


def _purposes(certificate: x509.Certificate) -> frozenset[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    except x509.ExtensionNotFound:
        return frozenset()
    return frozenset(purpose.dotted_string for purpose in found.value)


def signing_key(leaf: Link) -> RSAPublicKey:
    """The leaf's key, held to the same measure as a registered one. Raises Invalid."""
    key = leaf.certificate.public_key()
    if not isinstance(key, RSAPublicKey):
        raise Invalid("not an RSA key")
    numbers = key.public_numbers()
    try:
        verify_fit(numbers.n, numbers.e)
    except Unfit as fault:
        raise Invalid(str(fault)) from fault
    return key


def find_certified_orgno(subject: x509.Name) -> OrgNo:
    """The organisation number in the subject, in Digdir's order. Raises Invalid.

    serialNumber if it is nine digits (SEID 1), else the end of the organisation's name, else the
    organizationIdentifier (SEID 2.0). Ours on top: the check digit, and where both generations'
    attributes stand they must not name two organisations.
    """
    serials = [text for text in _values(subject, NameOID.SERIAL_NUMBER) if _is_nine_digits(text)]
    names = [
        text[-9:] for text in _values(subject, NameOID.ORGANIZATION_NAME) if _ends_in_orgno(text)
    ]
    identifiers = _values(subject, NameOID.ORGANIZATION_IDENTIFIER)
    identified = [match[1] for text in identifiers if (match := _IDENTIFIER.fullmatch(text))]
    if len({*serials, *identified}) > 1:
        raise Invalid("two organisation numbers")
    found = next(iter([*serials, *names, *identified]), None)
    if found is None:
        raise Invalid("no organisation number")
    orgno = find_orgno(found)
    if orgno is None:
        raise Invalid("an organisation number with a wrong check digit")
    return orgno


def _is_nine_digits(text: str) -> bool:
    return _NINE_DIGITS.fullmatch(text) is not None


def _ends_in_orgno(name: str) -> bool:
    r"""Digdir's `^.+-\W*([0-9]{9})$`, without its square cost on a name of hyphens alone."""
    if not _is_nine_digits(name[-9:]):
        return False
    end = start = len(name) - 9
    while start > 0 and not (name[start - 1].isascii() and _is_word(name[start - 1])):
        start -= 1
    return "-" in name[max(start, 1) : end]


def _is_word(character: str) -> bool:
    return character.isalnum() or character == "_"


def _values(subject: x509.Name, oid: x509.ObjectIdentifier) -> list[str]:
    attributes = subject.get_attributes_for_oid(oid)
    return [value for a in attributes if isinstance(value := a.value, str)]
