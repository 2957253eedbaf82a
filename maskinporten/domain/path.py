"""From a certificate to an anchor of ours, by RFC 5280 section 6; anchors come from us alone.

Our own code on the library's parsed certificates: its verifier knows no policies, no directory
name constraints and no revocation, and takes an authority for a leaf (DESIGN.md).
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from maskinporten.domain.link import Invalid, Link, Name, verify_signed
from maskinporten.domain.names import Budget, verify_names
from maskinporten.domain.policies import PolicyInputs, verify_policies

MAX_PATH: Final = 8  # certificates, leaf and anchor included
MAX_SIGNATURES: Final = 32  # checked in search of one path
_PROCESSED: Final = frozenset(
    oid.dotted_string
    for oid in (
        ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.KEY_USAGE,
        ExtensionOID.CERTIFICATE_POLICIES,
        ExtensionOID.POLICY_MAPPINGS,
        ExtensionOID.POLICY_CONSTRAINTS,
        ExtensionOID.INHIBIT_ANY_POLICY,
        ExtensionOID.NAME_CONSTRAINTS,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
    )
)


@dataclass(frozen=True, slots=True)
class Authorities:
    """The certificates a path may be built from: where it may end, and what may lie between."""

    anchors: tuple[Link, ...]
    intermediates: tuple[Link, ...] = ()
    by_subject: Mapping[Name, tuple[tuple[Link, bool], ...]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Sorted once, so that a search looks at the issuer's namesakes alone."""
        anchors = {link.der for link in self.anchors}
        found: defaultdict[Name, list[tuple[Link, bool]]] = defaultdict(list)
        for link in self.anchors:
            found[link.subject].append((link, True))
        for link in self.intermediates:
            if link.der not in anchors:
                found[link.subject].append((link, False))
        frozen = {name: tuple(links) for name, links in found.items()}
        object.__setattr__(self, "by_subject", frozen)

    def with_presented(self, links: Sequence[Link]) -> "Authorities":
        """The same anchors, with a caller's own certificates in between (European seals only)."""
        return Authorities(self.anchors, (*self.intermediates, *links))


@dataclass(frozen=True, slots=True)
class Path:
    """A path that holds: leaf first, anchor last. Made by `find_path` only."""

    links: tuple[Link, ...]
    policies: frozenset[str]

    @property
    def until(self) -> int:
        """The last second at which every certificate of it is valid."""
        return min(link.not_after for link in self.links)


def find_path(
    leaf: Link,
    authorities: Authorities,
    now: int,
    inputs: PolicyInputs | None = None,
) -> Path:
    """The first path from the leaf to an anchor that holds at `now`. Raises Invalid.

    What the leaf itself must be is the caller's question; here it is any end of a path.
    """
    fault = Invalid("no path to an anchor of ours")
    for links in _candidates((leaf,), authorities, _Search()):
        try:
            policies = _verify_path(links, now, inputs or PolicyInputs())
        except Invalid as found:
            fault = found
        else:
            return Path(links, policies)
    raise fault


class _Search:
    """Counts the signatures of one search, and remembers what each said."""

    def __init__(self) -> None:
        self._signed: dict[tuple[int, int], bool] = {}

    def is_signed(self, link: Link, issuer: Link) -> bool:
        """Whether `issuer`'s key signed `link`. Raises Invalid when the search costs too much."""
        pair = id(link), id(issuer)
        if pair not in self._signed:
            if len(self._signed) >= MAX_SIGNATURES:
                raise Invalid("a search for a path without end")
            try:
                verify_signed(link.certificate, issuer)
            except Invalid:
                self._signed[pair] = False
            else:
                self._signed[pair] = True
        return self._signed[pair]


def _candidates(
    links: tuple[Link, ...], authorities: Authorities, search: _Search
) -> Iterator[tuple[Link, ...]]:
    """Every chain of signatures from the leaf to an anchor, depth first, no certificate twice."""
    if len(links) >= MAX_PATH:
        return
    last = links[-1]
    for issuer, is_anchor in authorities.by_subject.get(last.issuer, ()):
        if (
            _names_key(last, issuer)
            and not any(issuer.der == link.der for link in links)
            and search.is_signed(last, issuer)
        ):
            if is_anchor:
                yield (*links, issuer)
            else:
                yield from _candidates((*links, issuer), authorities, search)


def _names_key(link: Link, issuer: Link) -> bool:
    """RFC 5280 section 4.2.1.1: where both name the issuer's key, they name the same one."""
    wanted, found = link.authority_key_identifier, issuer.key_identifier
    return wanted is None or found is None or wanted == found


def _verify_path(links: tuple[Link, ...], now: int, inputs: PolicyInputs) -> frozenset[str]:
    """RFC 5280 section 6.1, signatures and names already in order; the anchor is held to it too.

    An anchor is a certificate an operator chose, and what it says of itself binds (RFC 5937).
    """
    *_, anchor = links
    for link in links:
        if not link.not_before <= now <= link.not_after:
            raise Invalid("a certificate of the path is expired or not yet valid")
        if link is not anchor and link.authority_key_identifier is None:
            raise Invalid("no authority key identifier (RFC 5280 section 4.2.1.1)")
    budget = Budget()
    room: int | None = None
    constraints: list[x509.NameConstraints] = []
    for link in reversed(links[1:]):
        _verify_authority(link, is_anchor=link is anchor)
        if constraints and not link.self_issued:
            verify_names(link, constraints, budget)
        if link is not anchor and not link.self_issued and room is not None:
            if room == 0:
                raise Invalid("the path is longer than an authority allows")
            room -= 1
        if link.path_length is not None:
            room = link.path_length if room is None else min(room, link.path_length)
        if link.name_constraints is not None:
            constraints.append(link.name_constraints)
    verify_names(links[0], constraints, budget)
    return verify_policies(links[-2::-1], inputs)


def _verify_authority(link: Link, *, is_anchor: bool) -> None:
    """RFC 5280 section 6.1.4, steps (k), (n) and (o)."""
    if not link.is_ca:
        raise Invalid("an issuer that is no authority")
    if link.key_usage is None and not is_anchor:
        raise Invalid("an issuer without key usage (RFC 5280 section 4.2.1.3)")
    if link.key_usage is not None and not link.key_usage.key_cert_sign:
        raise Invalid("an issuer that may not sign certificates")
    if unknown := link.critical - _PROCESSED:
        raise Invalid(f"an issuer with a critical extension {min(unknown)}")
    if link.key_identifier is None and not is_anchor:
        raise Invalid("an issuer without subject key identifier (RFC 5280 section 4.2.1.2)")
