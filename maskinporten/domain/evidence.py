"""Who has fetched which of our keys: what is kept of a fetch of /jwk, and what it tells.

A caller is told apart by its library (the first word of User-Agent) and by its network: a /16 of
IPv4 or a /32 of IPv6, which is about what one internet provider is allotted. No address and no
person is kept, nor what a User-Agent says beyond its first word.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, NamedTuple

DAY: Final = 24 * 3600  # seconds
WINDOW: Final = 7 * DAY  # seconds within which a caller must have been seen, to be counted
FORGET_AFTER: Final = 30 * DAY  # seconds
MAX_CALLERS: Final = 2000
MAX_CALLERS_OF_NETWORK: Final = 20  # a User-Agent is easily invented, a network is not
UNNAMED: Final = "unnamed"
_LIBRARY: Final = re.compile(r"[A-Za-z0-9_.+-]{1,32}(/[A-Za-z0-9_.+-]{1,24})?(?=[ (]|$)", re.ASCII)
_PREFIX: Final = {4: 16, 6: 32}  # bits of an address that are kept

Network = IPv4Network | IPv6Network


class Caller(NamedTuple):
    """Whoever fetches /jwk, as coarsely as we care to know."""

    library: str
    network: str


class Fetch(NamedTuple):
    """When a caller last fetched a key set that held a key (epoch seconds)."""

    library: str
    network: str
    kid: str
    at: int

    @property
    def caller(self) -> Caller:
        """Who fetched."""
        return Caller(self.library, self.network)


@dataclass(frozen=True, slots=True)
class Reach:
    """How many callers there are, and how many of them have fetched a key."""

    callers: int
    fetched: int

    @property
    def percent(self) -> int:
        """Rounded down; 0 where nobody was seen, for then nothing is known."""
        return 100 * self.fetched // self.callers if self.callers else 0


def reach(fetches: Iterable[Fetch], kid: str, since: int) -> Reach:
    """The callers seen at `since` (epoch seconds) or later, and those who have fetched the key."""
    found = list(fetches)
    seen = {fetch.caller for fetch in found if fetch.at >= since}
    return Reach(len(seen), len(seen & {fetch.caller for fetch in found if fetch.kid == kid}))


def behind(fetches: Iterable[Fetch], kid: str, since: int) -> dict[Caller, int]:
    """The callers counted in `reach` that lack the key, and when each was last seen."""
    last: dict[Caller, int] = {}
    having: set[Caller] = set()
    for fetch in fetches:
        last[fetch.caller] = max(fetch.at, last.get(fetch.caller, 0))
        if fetch.kid == kid:
            having.add(fetch.caller)
    return {who: at for who, at in sorted(last.items()) if at >= since and who not in having}


def library(user_agent: str) -> str:
    """The first word of a User-Agent (RFC 9110 section 10.1.5), where it is a name and a version.

    What stands behind it, such as an operator's address, is personal more often than useful.
    """
    found = _LIBRARY.match(user_agent)
    return found.group() if found else UNNAMED


def network(address: str) -> str:
    """The network an address lies in; of an IPv4 address inside IPv6, the IPv4 one."""
    try:
        found = ip_address(address)
    except ValueError:
        return UNNAMED
    if isinstance(found, IPv6Address) and found.ipv4_mapped:
        found = found.ipv4_mapped
    return str(ip_network((int(found), _PREFIX[found.version]), strict=False))


def origin(peer: str, forwarded: str, trusted: Sequence[Network]) -> str:
    """The address a request came from: the peer, or what proxies we trust say of it.

    `forwarded` is X-Forwarded-For. It is read from its end, for as long as a trusted proxy wrote
    it; anything further to the left is the caller's own invention.
    """
    hops = [hop.strip() for hop in forwarded.split(",")] if forwarded else []
    while hops and _among(peer, trusted):
        peer = hops.pop()
    return peer


def _among(address: str, trusted: Sequence[Network]) -> bool:
    try:
        found = ip_address(address)
    except ValueError:
        return False
    if isinstance(found, IPv6Address) and found.ipv4_mapped:
        found = found.ipv4_mapped
    return any(found in net for net in trusted if net.version == found.version)


def admitted(known: Iterable[Caller], met: Iterable[Caller], most: int) -> frozenset[Caller]:
    """Those of `met` that are remembered: the known, and new ones while there is room.

    There is room for `most` callers, and for few of each network, so that a stranger who invents
    names neither fills the memory nor pushes anyone out of it.
    """
    inside = set(known)
    places = Counter(caller.network for caller in inside)
    taken: set[Caller] = set()
    for caller in met:
        if caller not in inside:
            if len(inside) >= most or places[caller.network] >= MAX_CALLERS_OF_NETWORK:
                continue
            inside.add(caller)
            places[caller.network] += 1
        taken.add(caller)
    return frozenset(taken)
