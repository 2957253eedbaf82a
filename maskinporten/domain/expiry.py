"""Which keys and certificates of whom will soon stop to work."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from maskinporten.domain.certificate import find_certified_orgno
from maskinporten.domain.client import Client
from maskinporten.domain.link import Invalid, Link
from maskinporten.domain.orgno import OrgNo

SOON: Final = 30 * 24 * 3600  # seconds


@dataclass(frozen=True, slots=True, order=True)
class Expiring:
    """One key or certificate that is still good, and will not be for long."""

    orgno: OrgNo
    at: int  # epoch seconds
    kind: str  # key, certificate
    name: str  # client and kid; or issuer and serial number


def expiring_keys(client: Client, now: int) -> Iterator[Expiring]:
    """The registered keys of an active client that end within SOON."""
    if client.active:
        for key in client.keys:
            if now < key.exp <= now + SOON:
                yield Expiring(client.client_orgno, key.exp, "key", f"{client.client_id} {key.kid}")


def expiring_certificates(links: Iterable[Link], now: int) -> Iterator[Expiring]:
    """Those of the certificates, accepted once, that end within SOON."""
    for link in links:
        if now <= link.not_after <= now + SOON:
            try:
                orgno = find_certified_orgno(link.certificate.subject)
            except Invalid:
                continue
            name = f"{link.certificate.issuer.rfc4514_string()} {link.serial}"
            yield Expiring(orgno, link.not_after, "certificate", name)


def expiring_by_organisation(found: Iterable[Expiring]) -> Mapping[tuple[OrgNo, str], int]:
    """How many, by organisation and kind."""
    return Counter((each.orgno, each.kind) for each in found)
