"""A European trusted list (ETSI TS 119 612): which authorities a country vouches for, for seals.

Only what the scheme operator's own certificate signed is read: the elements that the signature
covers, never the file around them. Nothing outside the file is opened.
"""

import base64
import binascii
import datetime as dt
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from lxml import etree
from signxml.algorithms import DigestAlgorithm, SignatureMethod
from signxml.exceptions import SignXMLException
from signxml.verifier import SignatureConfiguration, XMLVerifier

from maskinporten.domain.link import Invalid, Link, read_link

MAX_LIST: Final = 32 * 1024 * 1024  # octets; the largest lists have some ten million
MAX_ANCHORS: Final = 5_000
_TSL: Final = "{http://uri.etsi.org/02231/v2#}"
_SERVICES: Final = "http://uri.etsi.org/TrstSvc/"
_QUALIFIED: Final = _SERVICES + "Svctype/CA/QC"
_UNQUALIFIED: Final = _SERVICES + "Svctype/CA/PKC"
_FOR_SEALS: Final = _SERVICES + "TrustedList/SvcInfoExt/ForeSeals"
# In force: qualified services are granted, others recognised (TS 119 612 section 5.5.4).
_IN_FORCE: Final = {
    _QUALIFIED: _SERVICES + "TrustedList/Svcstatus/granted",
    _UNQUALIFIED: _SERVICES + "TrustedList/Svcstatus/recognisedatnationallevel",
}
_UTF8: Final = re.compile(r"encoding\s*=\s*[\"']utf-8[\"']\s*", re.IGNORECASE)
_TERRITORY: Final = re.compile(r"[A-Z]{2}", re.ASCII)
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z", re.ASCII)
_METHODS: Final = frozenset(
    SignatureMethod[name.format(bits)]
    for name in ("RSA_SHA{}", "ECDSA_SHA{}", "SHA{}_RSA_MGF1")
    for bits in (256, 384, 512)
)
_DIGESTS: Final = frozenset(
    {DigestAlgorithm.SHA256, DigestAlgorithm.SHA384, DigestAlgorithm.SHA512}
)


class NotTrusted(ValueError):
    """The list does not hold; the text says why. Nothing of it may be used."""


@dataclass(frozen=True, slots=True, eq=False)
class ListedAuthority:
    """One authority that the list says may issue seals, now."""

    name: str
    link: Link
    qualified: bool


@dataclass(frozen=True, slots=True)
class TrustedList:
    """What a list says. Made by `read_trusted_list` only."""

    territory: str  # two capital letters
    sequence: int
    issued: int  # epoch seconds
    next_update: int
    authorities: tuple[ListedAuthority, ...]
    passed_over: int  # certificates of services in force that no path can use


def read_trusted_list(octets: bytes, signers: Sequence[x509.Certificate], now: int) -> TrustedList:
    """The list, if one of the scheme operator's certificates signed it and it is in force at `now`.

    Raises NotTrusted: too big, not plain XML (a DOCTYPE is enough), a signature that does not hold
    or is another's, a list of the future or past its next update.
    """
    _verify_plain(octets)
    root = _verify_signature(octets, signers, now)
    scheme = _child(root, "SchemeInformation")
    territory = _text(scheme, "SchemeTerritory")
    if not _TERRITORY.fullmatch(territory):
        raise NotTrusted("SchemeTerritory is not a country")
    sequence = _text(scheme, "TSLSequenceNumber")
    if not sequence.isascii() or not sequence.isdecimal() or len(sequence) > 9:  # noqa: PLR2004
        raise NotTrusted("TSLSequenceNumber is not a number")
    issued = _time(scheme, "ListIssueDateTime")
    if not len(_child(scheme, "NextUpdate")):
        raise NotTrusted("the list is closed: it has no NextUpdate")
    next_update = _time(scheme, "NextUpdate", "dateTime")
    if issued > now:
        raise NotTrusted("a list of the future")
    if next_update < now:
        raise NotTrusted("the list has expired: its NextUpdate has passed")
    found, passed_over = _authorities(root, now)
    return TrustedList(territory, int(sequence), issued, next_update, found, passed_over)


def _parser() -> Any:
    return etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, recover=False
    )


def _verify_plain(octets: bytes) -> None:
    """UTF-8 and no DOCTYPE: then there are no entities to expand or to fetch. Raises NotTrusted."""
    if len(octets) > MAX_LIST:
        raise NotTrusted(f"longer than {MAX_LIST} octets")
    try:
        # Whatever else the octets claim to be, they are read as UTF-8, where this is one spelling.
        text = octets.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError as fault:
        raise NotTrusted("not UTF-8") from fault
    if "<!DOCTYPE" in text or "<!ENTITY" in text or "\0" in text:
        raise NotTrusted("a document type or an entity in it")
    declaration = text.partition("?>")[0] if text.startswith("<?xml") else ""
    if "encoding" in declaration and not _UTF8.search(declaration):
        raise NotTrusted("not UTF-8, by its own words")


def _verify_signature(octets: bytes, signers: Sequence[x509.Certificate], now: int) -> Any:
    """The signed list itself, as the signature covers it. Raises NotTrusted."""
    config = SignatureConfiguration(
        location="./",  # a child of the root, where TS 119 612 puts it
        expect_references=True,  # the list, and the signature's own properties (XAdES)
        signature_methods=_METHODS,
        digest_algorithms=_DIGESTS,
        verification_time=dt.datetime.fromtimestamp(now, dt.UTC),
    )
    fault: Exception = NotTrusted("no signer was given")
    for signer in signers:
        try:
            verified = XMLVerifier().verify(
                octets, x509_cert=signer, expect_config=config, parser=_parser()
            )
        except (SignXMLException, ValueError, TypeError, etree.LxmlError, UnsupportedAlgorithm,
                AttributeError, KeyError) as found:  # fmt: skip
            fault = found
            continue
        results = verified if isinstance(verified, list) else [verified]
        lists = [
            result.signed_xml
            for result in results
            if result.signed_xml is not None
            and result.signed_xml.tag == f"{_TSL}TrustServiceStatusList"
        ]
        if len(lists) != 1:
            raise NotTrusted("the signature does not cover one trusted list")
        return lists[0]
    raise NotTrusted(f"the signature does not hold: {fault}"[:300]) from fault


def _authorities(root: Any, now: int) -> tuple[tuple[ListedAuthority, ...], int]:
    found: dict[bytes, ListedAuthority] = {}
    passed_over = 0
    for service, qualified in _services(root, now):
        name = service.findtext(f"{_TSL}ServiceName/{_TSL}Name", "").strip()
        for element in service.iterfind(
            f"{_TSL}ServiceDigitalIdentity/{_TSL}DigitalId/{_TSL}X509Certificate"
        ):
            try:
                octets = base64.b64decode("".join((element.text or "").split()), validate=True)
                link = read_link(octets)
            except (Invalid, binascii.Error):
                passed_over += 1
                continue
            if not link.is_ca or not link.not_before <= now <= link.not_after:
                passed_over += 1
                continue
            known = found.get(link.der)
            if known is None or (qualified and not known.qualified):
                found[link.der] = ListedAuthority(name[:200], link, qualified)
    if len(found) > MAX_ANCHORS:
        raise NotTrusted(f"more than {MAX_ANCHORS} authorities")
    return tuple(found.values()), passed_over


def _services(root: Any, now: int) -> Iterator[tuple[Any, bool]]:
    """The services for seals that are in force, with whether they are qualified.

    What a service was earlier (ServiceHistory) does not count: we accept no old signatures.
    """
    for service in root.iterfind(
        f"{_TSL}TrustServiceProviderList/{_TSL}TrustServiceProvider/{_TSL}TSPServices/"
        f"{_TSL}TSPService/{_TSL}ServiceInformation"
    ):
        kind = service.findtext(f"{_TSL}ServiceTypeIdentifier", "").strip()
        status = service.findtext(f"{_TSL}ServiceStatus", "").strip()
        uses = {
            (uri.text or "").strip()
            for uri in service.iterfind(
                f"{_TSL}ServiceInformationExtensions/{_TSL}Extension/"
                f"{_TSL}AdditionalServiceInformation/{_TSL}URI"
            )
        }
        in_force = kind in _IN_FORCE and status == _IN_FORCE[kind] and _FOR_SEALS in uses
        if in_force and _time(service, "StatusStartingTime") <= now:
            yield service, kind == _QUALIFIED


def _child(element: Any, name: str) -> Any:
    found = element.findall(_TSL + name)
    if len(found) != 1:
        raise NotTrusted(f"{len(found)} elements {name}")
    return found[0]


def _text(element: Any, *path: str) -> str:
    for name in path:
        element = _child(element, name)
    return (element.text or "").strip()


def _time(element: Any, *path: str) -> int:
    """Epoch seconds of an xs:dateTime in UTC (TS 119 612 section 5.1.4)."""
    text = _text(element, *path)
    try:
        if not _TIME.fullmatch(text):
            raise ValueError(text)
        whole = text.rstrip("Z").partition(".")[0]
        return int(dt.datetime.fromisoformat(f"{whole}+00:00").timestamp())
    except ValueError as fault:
        raise NotTrusted(f"{path[0]} is not a time in UTC") from fault
