"""The trust directory: which authorities and policies an operator accepts, read at start-up."""

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from maskinporten.domain.certificate import TrustStore
from maskinporten.domain.link import Invalid, Link, read_link, verify_signed
from maskinporten.domain.path import Authorities
from maskinporten.domain.revocation import RevocationPolicy, WhenStale
from maskinporten.domain.seal import SealStore
from maskinporten.errors import Fault, InvalidInput

TRUST_FILE: Final = "trust.toml"
PUBLISHED_FILE: Final = "published.toml"  # one level up: it is about both environments
ANCHORS: Final = "anchors"
EUROPEAN: Final = "eu"  # anchors of seals; each certificate in here is one
UNQUALIFIED: Final = "unqualified"  # within it: those under which no seal is a qualified one
SUFFIXES: Final = frozenset({".pem", ".crt", ".cer", ".der"})
_MEMBERS: Final = frozenset(
    {"environment", "policies", "explicit_policy", "revocation", "authority"}
)
_REVOCATION_MEMBERS: Final = frozenset(
    {"when_stale", "grace", "without_source", "private_addresses"}
)
_PEM: Final = b"-----BEGIN"


@dataclass(frozen=True, slots=True)
class Published:
    """An authority as someone published it: what its file must be, and where its list lies."""

    name: str
    sha256: str
    environment: str = ""
    role: str = ""
    crl: tuple[str, ...] = ()
    ocsp: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Authority:
    """One accepted authority: its file, and where to ask about what it issued."""

    path: Path
    link: Link
    is_anchor: bool
    published: Published | None
    crl: tuple[str, ...] = ()
    ocsp: tuple[str, ...] = ()

    @property
    def sha256(self) -> str:
        """The fingerprint, as issuers publish it."""
        return fingerprint(self.link.der)


@dataclass(frozen=True, slots=True)
class Trust:
    """A trust directory as it was read."""

    store: TrustStore
    authorities: tuple[Authority, ...]
    revocation: RevocationPolicy
    private_addresses: bool = False  # lists may lie within one's own network
    seals: SealStore = field(default_factory=lambda: SealStore(Authorities(())))
    european: tuple[Authority, ...] = ()  # the authorities of the seals

    @property
    def publishers(self) -> tuple[Authority, ...]:
        """Every authority once, whichever store it is in."""
        return tuple({a.sha256: a for a in (*self.european, *self.authorities)}.values())

    @property
    def measured(self) -> tuple[Authority, ...]:
        """Those whose lists stand in the metrics; not those whose places are learned from seals."""
        return tuple(a for a in self.publishers if a.crl or a in self.authorities)


def read_trust(folder: Path, environment: str) -> Trust:
    """The directory's whole content. Raises InvalidInput with every fault that was found."""
    path = folder / TRUST_FILE
    document = _read_toml(path)
    faults: list[Fault] = []
    if document.get("environment") != environment:
        faults.append(Fault(str(path), f"is not for the environment {environment}"))
    faults += [Fault(f"{path}: {name}", "is unknown") for name in document.keys() - _MEMBERS]
    policies = document.get("policies", [])
    if not isinstance(policies, list) or not all(isinstance(p, str) and p for p in policies):
        faults.append(Fault(f"{path}: policies", "must be a list of object identifiers"))
        policies = []
    known = read_published(folder.parent / PUBLISHED_FILE)
    listed = {entry.sha256: entry for entry in _published(document.get("authority", []), path)}
    read = partial(_read_authorities, known, listed, faults)
    authorities = [
        *read(folder / ANCHORS, anchor=True),
        *read(folder, anchor=False),
    ]
    for authority in authorities:
        faults += _foreign(authority, environment)
    european = read(folder / EUROPEAN, anchor=True)
    unqualified = read(folder / EUROPEAN / UNQUALIFIED, anchor=True)
    try:
        revocation = _read_revocation(document.get("revocation", {}))
    except ValueError as fault:
        faults.append(Fault(f"{path}: revocation", str(fault)))
        revocation = RevocationPolicy()
    if faults:
        raise InvalidInput(tuple(faults))
    store = TrustStore(
        Authorities(
            tuple(a.link for a in authorities if a.is_anchor),
            tuple(a.link for a in authorities if not a.is_anchor),
        ),
        tuple(policies),
        explicit_policy=document.get("explicit_policy") is True,
    )
    private = document.get("revocation", {}).get("private_addresses") is True
    european += unqualified
    seals = SealStore(
        Authorities(tuple(a.link for a in european)), frozenset(a.link.der for a in unqualified)
    )
    return Trust(store, tuple(authorities), revocation, private, seals, tuple(european))


def read_published(path: Path) -> Mapping[str, Published]:
    """Published fingerprints, by SHA-256; none where there is no such file. Raises InvalidInput."""
    if not path.exists():
        return {}
    entries = _read_toml(path).get("authority", [])
    return {entry.sha256: entry for entry in _published(entries, path)}


@dataclass(frozen=True, slots=True)
class ListState:
    """The trusted list that a country's anchors in the folder `eu` came from."""

    territory: str
    sequence: int
    next_update: int  # epoch seconds


def read_list_states(folder: Path) -> list[ListState]:
    """Every list that was imported into the trust directory. Raises InvalidInput."""
    found = []
    for path in sorted((folder / EUROPEAN).glob("*.toml")):
        state = _read_toml(path)
        sequence, next_update = state.get("sequence"), state.get("next_update")
        if not isinstance(sequence, int) or not isinstance(next_update, int):
            raise InvalidInput((Fault(str(path), "needs the numbers sequence and next_update"),))
        found.append(ListState(path.stem.upper(), sequence, next_update))
    return found


def read_certificates(path: Path) -> list[Link]:
    """Every certificate in a PEM or DER file. Raises ValueError with a sentence."""
    try:
        octets = path.read_bytes()
    except OSError as fault:
        raise ValueError(f"cannot be read: {fault.strerror}") from fault
    try:
        if _PEM in octets:
            found = x509.load_pem_x509_certificates(octets)
            ders = [certificate.public_bytes(Encoding.DER) for certificate in found]
        else:
            ders = [octets]
        return [read_link(der) for der in ders]
    except Invalid as fault:
        raise ValueError(f"is not a certificate we can use: {fault}") from fault
    except ValueError as fault:
        raise ValueError("is not a certificate in PEM or DER") from fault


def is_self_signed(link: Link) -> bool:
    """Whether the certificate's own key signed it."""
    try:
        verify_signed(link.certificate, link)
    except Invalid:
        return False
    return link.self_issued


def fingerprint(der: bytes) -> str:
    """SHA-256 of the DER, in hexadecimal."""
    return hashlib.sha256(der).hexdigest()


def _authority(
    file: Path,
    link: Link,
    known: Mapping[str, Published],
    listed: Mapping[str, Published],
    *,
    anchor: bool,
) -> Authority:
    if not link.is_ca:
        raise ValueError("is not the certificate of an authority")
    name = fingerprint(link.der)
    places = listed.get(name) or known.get(name) or Published("", name)
    is_anchor = anchor or is_self_signed(link)
    return Authority(file, link, is_anchor, known.get(name), places.crl, places.ocsp)


def _foreign(authority: Authority, environment: str) -> list[Fault]:
    published = authority.published
    if published is None or published.environment in {"", environment}:
        return []
    return [Fault(str(authority.path), f"{published.name} belongs to {published.environment}")]


def _read_authorities(
    known: Mapping[str, Published],
    listed: Mapping[str, Published],
    faults: list[Fault],
    folder: Path,
    *,
    anchor: bool,
) -> list[Authority]:
    """The authorities of the files in a folder; what is wrong with a file goes to `faults`."""
    found: list[Authority] = []
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        if file.suffix.lower() in SUFFIXES and file.is_file():
            try:
                links = read_certificates(file)
                found += [_authority(file, link, known, listed, anchor=anchor) for link in links]
            except ValueError as fault:
                faults.append(Fault(str(file), str(fault)))
    return found


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as fault:
        raise InvalidInput((Fault(str(path), f"cannot be read: {fault.strerror}"),)) from fault
    except ValueError as fault:
        raise InvalidInput((Fault(str(path), f"is not TOML: {fault}"),)) from fault


def _published(entries: Any, path: Path) -> list[Published]:
    if not isinstance(entries, list):
        raise InvalidInput((Fault(str(path), "authority must be a list of tables"),))
    return [_published_entry(entry, f"{path}: authority[{n}]") for n, entry in enumerate(entries)]


def _published_entry(entry: Any, where: str) -> Published:
    if not isinstance(entry, dict) or len(str(entry.get("sha256", ""))) != 64:  # noqa: PLR2004
        raise InvalidInput((Fault(where, "needs sha256: 64 hexadecimal digits"),))
    return Published(
        name=str(entry.get("name", "")),
        sha256=entry["sha256"].lower(),
        environment=str(entry.get("environment", "")),
        role=str(entry.get("role", "")),
        crl=_urls(entry.get("crl", []), f"{where}.crl"),
        ocsp=_urls(entry.get("ocsp", []), f"{where}.ocsp"),
    )


def _urls(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(
        isinstance(url, str) and url.startswith(("http://", "https://")) for url in value
    ):
        raise InvalidInput((Fault(where, "must be a list of http or https addresses"),))
    return tuple(value)


def _read_revocation(table: Any) -> RevocationPolicy:
    if not isinstance(table, dict) or table.keys() - _REVOCATION_MEMBERS:
        raise ValueError(f"knows {', '.join(sorted(_REVOCATION_MEMBERS))}")
    grace = table.get("grace", 0)
    if not isinstance(grace, int) or grace < 0:
        raise ValueError("grace must be a number of seconds")
    without = table.get("without_source", "refuse")
    if without not in {"accept", "refuse"}:
        raise ValueError("without_source must be accept or refuse")
    try:
        when = WhenStale(table.get("when_stale", "refuse"))
    except ValueError as fault:
        raise ValueError("when_stale must be accept, grace or refuse") from fault
    return RevocationPolicy(when, grace, without == "accept")
