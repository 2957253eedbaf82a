"""One certificate of a path, taken apart once: what the rules of RFC 5280 ask of it."""

import hashlib
import unicodedata
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDSA,
    SECP256R1,
    SECP384R1,
    SECP521R1,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.padding import PSS, PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ObjectIdentifier
from cryptography.x509.oid import ExtensionOID, SignatureAlgorithmOID

Name = tuple[frozenset[tuple[str, str]], ...]
"""A distinguished name in the form in which two of them are compared (RFC 5280 section 7.1)."""
Extension = TypeVar("Extension", bound=x509.ExtensionType)

ANY_POLICY: Final = "2.5.29.32.0"
MAX_POLICIES: Final = 64  # in one certificate; real ones have one to three
_MAX_SERIAL_BITS: Final = 160  # RFC 5280 section 4.1.2.2: at most 20 octets
_MIN_CA_BITS: Final = 2048
_MAX_CA_BITS: Final = 8192
_CURVES: Final = (SECP256R1, SECP384R1, SECP521R1)
_DIGESTS: Final = {"sha256": SHA256, "sha384": SHA384, "sha512": SHA512}
_RSA_PKCS1: Final = frozenset(
    {
        SignatureAlgorithmOID.RSA_WITH_SHA256,
        SignatureAlgorithmOID.RSA_WITH_SHA384,
        SignatureAlgorithmOID.RSA_WITH_SHA512,
    }
)
_ECDSA: Final = frozenset(
    {
        SignatureAlgorithmOID.ECDSA_WITH_SHA256,
        SignatureAlgorithmOID.ECDSA_WITH_SHA384,
        SignatureAlgorithmOID.ECDSA_WITH_SHA512,
    }
)


class Invalid(ValueError):
    """The certificate or its path does not hold. The text says why, for our log."""


@dataclass(frozen=True, slots=True, eq=False)
class Link:
    """A certificate and what it says. Made by `read_link` only; nothing is verified yet.

    It compares and hashes by identity; `der` tells two certificates apart.
    """

    der: bytes
    certificate: x509.Certificate
    subject: Name
    issuer: Name
    not_before: int  # epoch seconds, included
    not_after: int  # epoch seconds, included
    serial: int
    key_identifier: bytes | None
    authority_key_identifier: bytes | None
    is_ca: bool
    path_length: int | None
    key_usage: x509.KeyUsage | None
    policies: tuple[str, ...] | None  # None: the extension is absent
    mappings: tuple[tuple[str, str], ...]
    policy_constraints: tuple[int | None, int | None]  # explicit policy, inhibit mapping
    inhibit_any: int | None
    name_constraints: x509.NameConstraints | None
    alternative_names: tuple[x509.GeneralName, ...]
    critical: frozenset[str]

    def audited(self) -> dict[str, str | int]:
        """By what our audit names it."""
        return {
            "certificate_issuer": self.certificate.issuer.rfc4514_string(),
            "certificate_serial_number": str(self.serial),
            "certificate_not_after": self.not_after,
            "certificate_sha256": hashlib.sha256(self.der).hexdigest(),
        }

    @property
    def self_issued(self) -> bool:
        """RFC 5280 section 6.1: the same name stands in subject and issuer."""
        return self.subject == self.issuer

    @property
    def authority(self) -> bytes:
        """The name and key of an authority; cross-signed certificates share it."""
        return self.certificate.subject.public_bytes() + self.spki

    @property
    def key_bits(self) -> bytes:
        """What stands in SubjectPublicKeyInfo's BIT STRING, which OCSP names an issuer by."""
        _, bits = read_elements(self.spki)
        return bits[_header_length(bits) + 1 :]

    @property
    def spki(self) -> bytes:
        """SubjectPublicKeyInfo in DER."""
        key = self.certificate.public_key()
        return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def read_link(der: bytes) -> Link:
    """Parse one certificate in DER. Raises Invalid for whatever cannot be read exactly one way."""
    try:
        with warnings.catch_warnings():
            # What the parser only warns of (a serial number of zero, say) is no certificate here.
            warnings.simplefilter("error")
            return _read(der)
    except (ValueError, TypeError, UnsupportedAlgorithm, Warning, x509.DuplicateExtension) as fault:
        raise Invalid(f"unreadable: {fault}"[:200]) from fault


def _read(der: bytes) -> Link:
    certificate = x509.load_der_x509_certificate(der)
    if certificate.version is not x509.Version.v3:
        raise Invalid("not version 3")
    if not 0 < certificate.serial_number < 1 << _MAX_SERIAL_BITS:
        raise Invalid("a serial number out of range")
    _verify_algorithms_agree(der, certificate)
    extensions = certificate.extensions
    find = _finder(extensions)
    basic = find(x509.BasicConstraints)
    own, authority = find(x509.SubjectKeyIdentifier), find(x509.AuthorityKeyIdentifier)
    policies = find(x509.CertificatePolicies)
    constraints = find(x509.PolicyConstraints)
    inhibit = find(x509.InhibitAnyPolicy)
    alternatives = find(x509.SubjectAlternativeName)
    certificate.public_key()
    return Link(
        der=der,
        certificate=certificate,
        subject=comparable_name(certificate.subject),
        issuer=comparable_name(certificate.issuer),
        not_before=int(certificate.not_valid_before_utc.timestamp()),
        not_after=int(certificate.not_valid_after_utc.timestamp()),
        serial=certificate.serial_number,
        key_identifier=own.digest if own else None,
        authority_key_identifier=authority.key_identifier if authority else None,
        is_ca=basic is not None and basic.ca,
        path_length=basic.path_length if basic else None,
        key_usage=find(x509.KeyUsage),
        policies=None if policies is None else _policies(policies),
        mappings=_mappings(extensions),
        policy_constraints=(
            constraints.require_explicit_policy if constraints else None,
            constraints.inhibit_policy_mapping if constraints else None,
        ),
        inhibit_any=inhibit.skip_certs if inhibit else None,
        name_constraints=find(x509.NameConstraints),
        alternative_names=tuple(alternatives) if alternatives else (),
        critical=frozenset(e.oid.dotted_string for e in extensions if e.critical),
    )


def _finder(
    extensions: x509.Extensions,
) -> "Callable[[type[Extension]], Extension | None]":
    by_type = {type(extension.value): extension.value for extension in extensions}

    def find(kind: type[Extension]) -> Extension | None:
        value = by_type.get(kind)
        return value if isinstance(value, kind) else None

    return find


def _policies(extension: x509.CertificatePolicies) -> tuple[str, ...]:
    found = tuple(policy.policy_identifier.dotted_string for policy in extension)
    if len(found) > MAX_POLICIES or len(set(found)) != len(found):
        raise Invalid("too many policies, or one twice")
    return found


def _mappings(extensions: x509.Extensions) -> tuple[tuple[str, str], ...]:
    """PolicyMappings (RFC 5280 section 4.2.1.5), which the library leaves as octets."""
    for extension in extensions:
        if extension.oid == ExtensionOID.POLICY_MAPPINGS:
            value = extension.value
            if not isinstance(value, x509.UnrecognizedExtension):
                raise Invalid("policy mappings in an unknown form")
            pairs = tuple(_oid_pair(element) for element in read_elements(verify_sole(value.value)))
            if not pairs or len(pairs) > MAX_POLICIES:
                raise Invalid("no policy mappings, or too many")
            return pairs
    return ()


def _oid_pair(element: bytes) -> tuple[str, str]:
    first, second = read_elements(element)
    return read_oid(first), read_oid(second)


def read_oid(element: bytes) -> str:
    """An OBJECT IDENTIFIER as dotted text (X.690 section 8.19). Raises Invalid."""
    contents = element[_header_length(element) :]
    if element[0] != 0x06 or not contents or contents[-1] & 0x80:  # noqa: PLR2004 - tag, last flag
        raise Invalid("not an object identifier")
    arcs, number = [], 0
    for octet in contents:
        if number == 0 and octet == 0x80:  # noqa: PLR2004 - a leading zero
            raise Invalid("an object identifier with a leading zero")
        number = number << 7 | octet & 0x7F
        if not octet & 0x80:
            arcs.append(number)
            number = 0
    first = min(arcs[0] // 40, 2)
    return ".".join(map(str, [first, arcs[0] - 40 * first, *arcs[1:]]))


def _verify_algorithms_agree(der: bytes, certificate: x509.Certificate) -> None:
    """RFC 5280 section 4.1.1.2: the algorithm outside must be the one that was signed."""
    to_be_signed, outer, _ = read_elements(der)
    fields = read_elements(to_be_signed)
    inner = fields[2]  # version, serialNumber, signature
    if inner != outer or to_be_signed != certificate.tbs_certificate_bytes:
        raise Invalid("two signature algorithms")


def _header_length(element: bytes) -> int:
    if len(element) < 2:  # noqa: PLR2004 - tag and length
        raise Invalid("a truncated element")
    return 2 + (element[1] & 0x7F if element[1] & 0x80 else 0)


def _element_length(octets: bytes) -> int:
    """How many octets the first DER element takes."""
    header = _header_length(octets)
    if not octets[1] & 0x80:
        return header + octets[1]
    return header + int.from_bytes(octets[2:header], "big")


def read_elements(sequence: bytes) -> list[bytes]:
    """The members of a constructed DER element. Raises Invalid."""
    rest = sequence[_header_length(sequence) :]
    found = []
    while rest:
        length = _element_length(rest)
        if length > len(rest):
            raise Invalid("a truncated element")
        found.append(rest[:length])
        rest = rest[length:]
    return found


def verify_sole(octets: bytes) -> bytes:
    """The octets, if they are one DER element and no more. Raises Invalid."""
    if _element_length(octets) != len(octets):
        raise Invalid("stray octets")
    return octets


def comparable_name(name: x509.Name) -> Name:
    """Compared without case and without surplus spaces, whatever the string type (RFC 4518)."""
    return tuple(
        frozenset((attribute.oid.dotted_string, _folded(attribute.value)) for attribute in rdn)
        for rdn in name.rdns
    )


def _folded(value: str | bytes) -> str:
    if isinstance(value, bytes):
        return value.hex()
    if value.isascii():
        return " ".join(value.lower().split())
    return " ".join(unicodedata.normalize("NFKC", value).casefold().split())


def verify_signed(certificate: x509.Certificate | x509.CertificateRevocationList, by: Link) -> None:
    """The signature over a certificate or a CRL, with the algorithms of today. Raises Invalid."""
    to_be_signed = (
        certificate.tbs_certificate_bytes
        if isinstance(certificate, x509.Certificate)
        else certificate.tbs_certlist_bytes
    )
    try:
        parameters = certificate.signature_algorithm_parameters
        digest = certificate.signature_hash_algorithm
    except (ValueError, UnsupportedAlgorithm) as fault:
        raise Invalid("an unknown signature algorithm") from fault
    verify_signature_by(
        by.certificate.public_key(),
        certificate.signature_algorithm_oid,
        parameters,
        digest,
        (certificate.signature, to_be_signed),
    )


def verify_signature_by(
    key: object,
    algorithm: ObjectIdentifier,
    parameters: object,
    digest: HashAlgorithm | None,
    signed: tuple[bytes, bytes],
) -> None:
    """RSA with PKCS #1 v1.5 or PSS, or ECDSA on a NIST curve; SHA-2 only. Raises Invalid.

    `signed` is the signature and the octets it stands under.
    """
    signature, octets = signed
    if digest is None or digest.name not in _DIGESTS:
        raise Invalid(f"signed with {algorithm.dotted_string}, which is not accepted")
    try:
        if isinstance(key, RSAPublicKey):
            if not _MIN_CA_BITS <= key.key_size <= _MAX_CA_BITS:
                raise Invalid(f"signed with a key of {key.key_size} bits")
            key.verify(signature, octets, _rsa_padding(algorithm, parameters, digest), digest)
        elif isinstance(key, EllipticCurvePublicKey):
            if algorithm not in _ECDSA or not isinstance(key.curve, _CURVES):
                raise Invalid("signed with a curve or an algorithm that is not accepted")
            key.verify(signature, octets, ECDSA(digest))
        else:
            raise Invalid(f"signed with {algorithm.dotted_string}, which is not accepted")
    except InvalidSignature as fault:
        raise Invalid("the signature does not hold") from fault


def _rsa_padding(
    algorithm: ObjectIdentifier, parameters: object, digest: HashAlgorithm
) -> PSS | PKCS1v15:
    if algorithm in _RSA_PKCS1:
        return PKCS1v15()
    if algorithm == SignatureAlgorithmOID.RSASSA_PSS and isinstance(parameters, PSS):
        # RFC 4055 section 3.1: the mask's digest is the signature's, the salt as long as it.
        mask: HashAlgorithm = parameters.mgf._algorithm  # noqa: SLF001 - has no public name
        if mask.name == digest.name and parameters._salt_length == digest.digest_size:  # noqa: SLF001
            return parameters
    raise Invalid(f"signed with {algorithm.dotted_string}, which is not accepted")
