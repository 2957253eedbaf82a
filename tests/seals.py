"""Seals of a small European PKI, right in every way but the one named."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.x509.oid import NameOID, ObjectIdentifier

from maskinporten import pki
from maskinporten.pki import DAY, Issued
from tests.chains import YEAR, authority, trust_folder
from tests.world import NOW, private_key

COMPLIANCE: Final = "0.4.0.1862.1.1"
QC_TYPE: Final = "0.4.0.1862.1.6"
FOR_SEALS, FOR_SIGNATURES, FOR_WEB = (f"{QC_TYPE}.{n}" for n in (2, 1, 3))
IDENTIFIER: Final = "VATDE-123456789"
SCOPE: Final = {
    "name": "skatt:eu",
    "description": "For European businesses",
    "supports_european_businesses": True,
}


def der(tag: int, *parts: bytes) -> bytes:
    """One DER element of fewer than 128 octets."""
    contents = b"".join(parts)
    return bytes([tag, len(contents)]) + contents


def oid(dotted: str) -> bytes:
    """An OBJECT IDENTIFIER."""
    first, second, *arcs = map(int, dotted.split("."))
    octets = bytearray()
    for arc in (40 * first + second, *arcs):
        groups = [arc & 0x7F]
        while arc := arc >> 7:
            groups.append(arc & 0x7F | 0x80)
        octets += bytes(reversed(groups))
    return der(0x06, bytes(octets))


def qc_statements(*kinds: str, compliance: bool = True) -> x509.UnrecognizedExtension:
    """QCStatements of ETSI EN 319 412-5: compliance, and what the certificate is for."""
    statements = [der(0x30, oid(COMPLIANCE))] if compliance else []
    if kinds:
        statements.append(der(0x30, oid(QC_TYPE), der(0x30, *map(oid, kinds))))
    octets = der(0x30, *statements)
    return x509.UnrecognizedExtension(ObjectIdentifier("1.3.6.1.5.5.7.1.3"), octets)


@cache
def eu_root() -> Issued:
    """An authority of another country, on its trusted list."""
    return pki.make_root("EU root", NOW - 2 * YEAR, private_key("eu root"))


@cache
def eu_issuing() -> Issued:
    """The authority under it that issues seals."""
    return authority("eu issuing", eu_root(), path_length=0)


NAME: Final = (
    (NameOID.COUNTRY_NAME, "DE"),
    (NameOID.ORGANIZATION_NAME, "Beispiel GmbH"),
    (NameOID.ORGANIZATIONAL_UNIT_NAME, "Zoll"),
    (NameOID.COMMON_NAME, "Beispiel Siegel"),
    (NameOID.ORGANIZATION_IDENTIFIER, IDENTIFIER),
)


def eu_name(*attributes: tuple[ObjectIdentifier, str]) -> x509.Name:
    """A subject of these attributes."""
    return x509.Name([x509.NameAttribute(kind, value) for kind, value in attributes])


@dataclass(frozen=True)
class SealOf:
    """A seal with one thing wrong; every field has its right value until it is named."""

    name: tuple[tuple[ObjectIdentifier, str], ...] = NAME
    by: Issued | None = None
    statements: x509.UnrecognizedExtension | None = None
    qualified: bool = True
    key: str = "seal"
    dated: tuple[int, int] = (NOW - DAY, NOW + YEAR)
    usage: Sequence[str] = ("digital_signature", "content_commitment")
    crl: str | None = None
    serial: int | None = None


def seal(wrong: SealOf | None = None) -> Issued:
    """The seal of that description."""
    wrong = wrong or SealOf()
    by = wrong.by or eu_issuing()
    extensions: list[Any] = [
        e
        for e in pki.leaf_extensions(["0.4.0.194112.1.1"], crl_url=wrong.crl)
        if not isinstance(e[0], x509.KeyUsage)
    ]
    extensions.append((pki.key_usage(*wrong.usage), True))
    if wrong.statements is not None or wrong.qualified:
        extensions.append((wrong.statements or qc_statements(FOR_SEALS), False))
    key = private_key(wrong.key)
    issuer = by.certificate.subject, by.key
    name = eu_name(*wrong.name)
    made = pki.certify(name, key, issuer, wrong.dated, extensions, serial=wrong.serial)
    return Issued(made, key)


@cache
def good_seal() -> Issued:
    """A qualified seal."""
    return seal()


def european_trust(folder: Path, *anchors: Issued, unqualified: Sequence[Issued] = ()) -> Path:
    """The world's trust directory, with European anchors (the root, unless told else)."""
    place = trust_folder(folder)
    for directory, found in (("eu", anchors or (eu_root(),)), ("eu/unqualified", unqualified)):
        (place / directory).mkdir(exist_ok=True)
        for number, issued in enumerate(found):
            pem = pki.chain_pem(issued.certificate)
            (place / directory / f"{number}.pem").write_bytes(pem)
    return place
