"""A test PKI: a root, an issuing authority, enterprise certificates of both generations.

Shaped like the certificates that Norwegian issuers deliver, so that what works with these works
with those. It proves nothing to anyone who was not told to trust its root.
"""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    pkcs12,
)
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID

TEST_POLICIES: Final = {"seid1": "2.16.578.1.26.1.0.3.2", "seid2": "2.16.578.1.26.1.3.2"}
_ETSI_LEGAL_PERSON: Final = "0.4.0.194112.1.1"  # ETSI EN 319 411-2: QCP-l
_QC_STATEMENTS: Final = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.3")
# ETSI EN 319 412-5 in DER: QcCompliance, and QcType with the type for seals.
_QUALIFIED_SEAL: Final = bytes.fromhex(
    "301f3008060604008e4601013013060604008e4601063009060704008e46010602"
)
SHA256: Final = hashes.SHA256()
DAY: Final = 24 * 3600  # seconds
CA_LIFETIME: Final = 3650 * DAY
LEAF_LIFETIME: Final = 1095 * DAY  # three years, as the real ones
CRL_LIFETIME: Final = 7 * DAY
_BACKDATED: Final = 300  # seconds, for clocks that are behind
_CA_BITS: Final = 2048

Dated = tuple[int, int]
"""notBefore and notAfter in epoch seconds."""


class Generation(StrEnum):
    """Where the organisation number stands: serialNumber, or organizationIdentifier."""

    SEID1 = "seid1"
    SEID2 = "seid2"


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and the private key that belongs to it."""

    certificate: x509.Certificate
    key: rsa.RSAPrivateKey

    @property
    def der(self) -> bytes:
        """The certificate in DER."""
        return self.certificate.public_bytes(Encoding.DER)


def make_root(name: str, now: int, key: rsa.RSAPrivateKey | None = None) -> Issued:
    """A self-signed authority."""
    key = key or new_key(_CA_BITS)
    subject = ca_name(name)
    dated = (now - _BACKDATED, now + CA_LIFETIME)
    extensions = authority_extensions(None)
    return Issued(certify(subject, key, (subject, key), dated, extensions), key)


def make_issuing_authority(
    root: Issued, name: str, now: int, key: rsa.RSAPrivateKey | None = None
) -> Issued:
    """An authority under the root that issues to organisations only."""
    key = key or new_key(_CA_BITS)
    dated = (now - _BACKDATED, min(now + CA_LIFETIME, _end(root.certificate)))
    by = (root.certificate.subject, root.key)
    return Issued(certify(ca_name(name), key, by, dated, authority_extensions(0)), key)


def issue_enterprise(
    authority: Issued,
    orgno: str,
    now: int,
    *,
    name: str = "Test Organisation AS",
    generation: Generation = Generation.SEID2,
    key: rsa.RSAPrivateKey | None = None,
    lifetime: int = LEAF_LIFETIME,
    crl_url: str | None = None,
    ocsp_url: str | None = None,
) -> Issued:
    """An enterprise certificate for authentication and signature."""
    key = key or new_key(3072 if generation is Generation.SEID2 else 2048)
    dated = (now - _BACKDATED, min(now + lifetime, _end(authority.certificate)))
    subject = enterprise_name(orgno, name, generation)
    policies = [TEST_POLICIES[generation]]
    if generation is Generation.SEID2:
        policies.append(_ETSI_LEGAL_PERSON)
    extensions = leaf_extensions(policies, crl_url=crl_url, ocsp_url=ocsp_url)
    by = (authority.certificate.subject, authority.key)
    return Issued(certify(subject, key, by, dated, extensions), key)


def issue_seal(
    authority: Issued,
    identifier: str,
    now: int,
    *,
    name: str = "Test Business",
    country: str = "DE",
    qualified: bool = True,
    key: rsa.RSAPrivateKey | None = None,
    lifetime: int = LEAF_LIFETIME,
    crl_url: str | None = None,
) -> Issued:
    """A European electronic seal; `identifier` is its organizationIdentifier."""
    key = key or new_key(3072)
    dated = (now - _BACKDATED, min(now + lifetime, _end(authority.certificate)))
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, country),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, name),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
            x509.NameAttribute(NameOID.ORGANIZATION_IDENTIFIER, identifier),
        ]
    )
    extensions = list(leaf_extensions([_ETSI_LEGAL_PERSON], crl_url=crl_url))
    if qualified:
        extensions.append((x509.UnrecognizedExtension(_QC_STATEMENTS, _QUALIFIED_SEAL), False))
    by = (authority.certificate.subject, authority.key)
    return Issued(certify(subject, key, by, dated, extensions), key)


def enterprise_name(orgno: str, name: str, generation: Generation) -> x509.Name:
    """The subject, as the generation's issuers write it."""
    attributes = [
        x509.NameAttribute(NameOID.COUNTRY_NAME, "NO"),
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, name),
        x509.NameAttribute(NameOID.COMMON_NAME, name),
    ]
    if generation is Generation.SEID1:
        attributes.append(x509.NameAttribute(NameOID.SERIAL_NUMBER, orgno))
    else:
        identifier = f"NTRNO-{orgno}"
        attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_IDENTIFIER, identifier))
    return x509.Name(attributes)


def ca_name(name: str) -> x509.Name:
    """An authority's own name."""
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "NO"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Maskinporten test PKI"),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )


def key_usage(*names: str) -> x509.KeyUsage:
    """The usages of these names, and no other."""
    every = (
        "digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
        "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
    )  # fmt: skip
    return x509.KeyUsage(**{name: name in names for name in every})


Extensions = Sequence[tuple[x509.ExtensionType, bool]]
"""Each with whether it is critical."""


def authority_extensions(path_length: int | None) -> Extensions:
    """RFC 5280 section 4.2.1, for an authority."""
    return [
        (x509.BasicConstraints(ca=True, path_length=path_length), True),
        (key_usage("key_cert_sign", "crl_sign"), True),
        (x509.CertificatePolicies([_policy("2.5.29.32.0")]), False),
    ]


def leaf_extensions(
    policies: Sequence[str], *, crl_url: str | None = None, ocsp_url: str | None = None
) -> Extensions:
    """As Norwegian issuers write them."""
    found: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=False, path_length=None), False),
        (key_usage("digital_signature", "key_encipherment"), True),
        (x509.CertificatePolicies(list(map(_policy, policies))), False),
    ]
    if crl_url:
        names = [x509.UniformResourceIdentifier(crl_url)]
        point = x509.DistributionPoint(names, None, None, None)
        found.append((x509.CRLDistributionPoints([point]), False))
    if ocsp_url:
        access = x509.AccessDescription(
            AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier(ocsp_url)
        )
        found.append((x509.AuthorityInformationAccess([access]), False))
    return found


def certify(
    subject: x509.Name,
    key: rsa.RSAPrivateKey,
    by: tuple[x509.Name, rsa.RSAPrivateKey],
    dated: Dated,
    extensions: Extensions,
    *,
    serial: int | None = None,
    algorithm: hashes.SHA256 | hashes.SHA512 | None = None,
) -> x509.Certificate:
    """Any certificate; the two key identifiers stand in it unless `extensions` has its own."""
    issuer, issuer_key = by
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(_time(dated[0]))
        .not_valid_after(_time(dated[1]))
    )
    identifiers: Extensions = [
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), False),
    ]
    own = {value.oid for value, _ in extensions}
    for value, critical in [*extensions, *(e for e in identifiers if e[0].oid not in own)]:
        builder = builder.add_extension(value, critical)
    return builder.sign(issuer_key, algorithm or hashes.SHA256())


def sign_crl(
    authority: Issued,
    revoked: Sequence[tuple[int, int]],
    now: int,
    *,
    number: int = 1,
    lifetime: int = CRL_LIFETIME,
) -> bytes:
    """The authority's revocation list in DER; `revoked` holds serial number and time."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(_time(now))
        .next_update(_time(now + lifetime))
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()),
            critical=False,
        )
    )
    for serial, at in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(_time(at))
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(authority.key, hashes.SHA256()).public_bytes(Encoding.DER)


def answer_ocsp(
    authority: Issued,
    request: bytes,
    certificates: Sequence[x509.Certificate],
    revoked: Sequence[tuple[int, int]],
    now: int,
    *,
    lifetime: int = DAY,
    delegate: Issued | None = None,
) -> bytes:
    """The authority's answer (RFC 6960) about one certificate, in DER; unknown ones are told so.

    The authority signs, or a delegate of its own, whose certificate then stands in the answer.
    """
    try:
        asked = ocsp.load_der_ocsp_request(request)
        serial, algorithm = asked.serial_number, asked.hash_algorithm
    except (ValueError, UnsupportedAlgorithm):
        unsuccessful = ocsp.OCSPResponseStatus.MALFORMED_REQUEST
        refused = ocsp.OCSPResponseBuilder.build_unsuccessful(unsuccessful)
        return refused.public_bytes(Encoding.DER)
    found = [c for c in certificates if c.serial_number == serial]
    if not found:
        unknown = ocsp.OCSPResponseStatus.UNAUTHORIZED
        return ocsp.OCSPResponseBuilder.build_unsuccessful(unknown).public_bytes(Encoding.DER)
    at = dict(revoked).get(serial)
    builder = ocsp.OCSPResponseBuilder().add_response(
        cert=found[0],
        issuer=authority.certificate,
        algorithm=algorithm,  # those who ask look for their own name of it
        cert_status=ocsp.OCSPCertStatus.GOOD if at is None else ocsp.OCSPCertStatus.REVOKED,
        this_update=_time(now),
        next_update=_time(now + lifetime),
        revocation_time=None if at is None else _time(at),
        revocation_reason=None,
    )
    by = delegate or authority
    builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, by.certificate)
    if delegate is not None:
        builder = builder.certificates([delegate.certificate])
    return builder.sign(by.key, hashes.SHA256()).public_bytes(Encoding.DER)


def write_pkcs12(issued: Issued, chain: Sequence[x509.Certificate], password: bytes) -> bytes:
    """Key, certificate and chain in one file, as issuers deliver them."""
    return pkcs12.serialize_key_and_certificates(
        b"enterprise", issued.key, issued.certificate, chain, BestAvailableEncryption(password)
    )


def read_pkcs12(octets: bytes, password: bytes | None) -> tuple[Issued, list[x509.Certificate]]:
    """Key and certificate, and the rest of the chain. Raises ValueError with a sentence."""
    key, certificate, chain = pkcs12.load_key_and_certificates(octets, password)
    if not isinstance(key, rsa.RSAPrivateKey) or certificate is None:
        raise ValueError("holds no RSA key with its certificate")
    return Issued(certificate, key), chain


def new_key(bits: int) -> rsa.RSAPrivateKey:
    """A fresh RSA key."""
    return rsa.generate_private_key(65537, bits)


def key_pem(key: rsa.RSAPrivateKey) -> bytes:
    """PKCS #8, unencrypted: it opens nothing but a sandbox."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def chain_pem(*certificates: x509.Certificate) -> bytes:
    """Certificates one after the other, leaf first."""
    return b"".join(c.public_bytes(Encoding.PEM) for c in certificates)


def _policy(oid: str) -> x509.PolicyInformation:
    return x509.PolicyInformation(x509.ObjectIdentifier(oid), None)


def _time(at: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(at, dt.UTC)


def _end(certificate: x509.Certificate) -> int:
    return int(certificate.not_valid_after_utc.timestamp())
