"""Certificates of a small true PKI, right in every way but the one named."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from maskinporten import pki
from maskinporten.domain.certificate import TrustStore
from maskinporten.domain.link import read_link
from maskinporten.domain.path import Authorities
from maskinporten.pki import DAY, Generation, Issued
from tests.world import CONSUMER, NOW, private_key

SEID1, SEID2 = Generation.SEID1, Generation.SEID2
POLICIES: Final = tuple(pki.TEST_POLICIES.values())
YEAR: Final = 365 * DAY


@cache
def root() -> Issued:
    """Our anchor, two years old."""
    return pki.make_root("Root", NOW - 2 * YEAR, private_key("root"))


@cache
def issuing() -> Issued:
    """The authority under it that issues to organisations."""
    return pki.make_issuing_authority(root(), "Issuing", NOW - 2 * YEAR, private_key("issuing"))


@cache
def enterprise(
    orgno: str = CONSUMER, generation: Generation = SEID2, name: str = "leaf", serial: int = 0
) -> Issued:
    """A certificate like those that real issuers deliver."""
    del serial
    return pki.issue_enterprise(
        issuing(), orgno, NOW - DAY, generation=generation, key=private_key(name)
    )


@dataclass
class Wrong:
    """A leaf with one thing wrong; every field has its right value until it is named."""

    subject: x509.Name | None = None
    by: Issued | None = None
    issuer: x509.Name | None = None
    signer: rsa.RSAPrivateKey | None = None
    key: Any = None
    dated: tuple[int, int] = (NOW - DAY, NOW + YEAR)
    policies: Sequence[str] = POLICIES
    without: Sequence[type[x509.ExtensionType]] = ()
    add: Sequence[tuple[x509.ExtensionType, bool]] = ()
    serial: int | None = None


def leaf(wrong: Wrong) -> Issued:
    """The leaf of that description."""
    by = wrong.by or issuing()
    own = {type(value) for value, _ in wrong.add} | set(wrong.without)
    extensions = [e for e in pki.leaf_extensions(wrong.policies) if type(e[0]) not in own]
    key = wrong.key or private_key("leaf")
    certificate = pki.certify(
        wrong.subject or pki.enterprise_name(CONSUMER, "Test AS", SEID2),
        key,
        (wrong.issuer or by.certificate.subject, wrong.signer or by.key),
        wrong.dated,
        [*extensions, *wrong.add],
        serial=wrong.serial,
    )
    return Issued(certificate, key)


def authority(
    name: str,
    by: Issued,
    *,
    path_length: int | None = None,
    dated: tuple[int, int] = (NOW - YEAR, NOW + YEAR),
    add: Sequence[tuple[x509.ExtensionType, bool]] = (),
) -> Issued:
    """An intermediate; its extensions of the same kind give way to those in `add`."""
    own = {type(value) for value, _ in add}
    extensions = [e for e in pki.authority_extensions(path_length) if type(e[0]) not in own]
    key = private_key(name)
    subject = pki.ca_name(name)
    certificate = pki.certify(
        subject, key, (by.certificate.subject, by.key), dated, [*extensions, *add]
    )
    return Issued(certificate, key)


def trust(
    *intermediates: Issued, anchors: Sequence[Issued] = (), policies: Sequence[str] = POLICIES
) -> TrustStore:
    """A store of the world's authorities, and these."""
    return TrustStore(
        Authorities(
            tuple(read_link(a.der) for a in (anchors or (root(),))),
            tuple(read_link(i.der) for i in (issuing(), *intermediates)),
        ),
        tuple(policies),
    )


def x5c(*chain: Issued) -> list[str]:
    """The header's value."""
    return [base64.b64encode(issued.der).decode() for issued in chain]


def trust_folder(folder: Path, *authorities: Issued, toml: Mapping[str, str] | None = None) -> Path:
    """A trust directory with the world's authorities, and these."""
    place = folder / "trust" / "test"
    place.mkdir(parents=True, exist_ok=True)
    quoted = ", ".join(f'"{policy}"' for policy in POLICIES)
    values = {"when_stale": '"refuse"', "without_source": '"accept"', **(toml or {})}
    authority_tables = values.pop("authority", "")
    revocation = "".join(f"{name} = {value}\n" for name, value in values.items())
    (place / "trust.toml").write_text(
        f'environment = "test"\npolicies = [{quoted}]\n[revocation]\n{revocation}{authority_tables}'
    )
    for number, issued in enumerate((root(), issuing(), *authorities)):
        (place / f"{number}.pem").write_bytes(pki.chain_pem(issued.certificate))
    return place
