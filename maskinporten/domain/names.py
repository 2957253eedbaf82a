"""Name constraints (RFC 5280 section 4.2.1.10): which names an authority may certify."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Final
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.x509.oid import NameOID

from maskinporten.domain.link import Invalid, Link, Name, comparable_name

MAX_COMPARISONS: Final = 10_000  # names times constraints in one path; real ones need a handful


class Budget:
    """How many comparisons one path may still cost; a bomb stops here (x509-limbo)."""

    def __init__(self, comparisons: int = MAX_COMPARISONS) -> None:
        self._left = comparisons

    def spend(self, comparisons: int) -> None:
        """Raises Invalid when the path has cost too much."""
        self._left -= comparisons
        if self._left < 0:
            raise Invalid("names and constraints without end")


def verify_names(link: Link, constraints: Iterable[x509.NameConstraints], budget: Budget) -> None:
    """Every name of the certificate lies within every authority's constraints. Raises Invalid.

    A permitted list binds only names of the kinds it lists; an excluded one always refuses.
    Several authorities' lists all hold (their intersection).
    """
    names = _names(link)
    for constraint in constraints:
        permitted = tuple(constraint.permitted_subtrees or ())
        excluded = tuple(constraint.excluded_subtrees or ())
        budget.spend(len(names) * (len(permitted) + len(excluded)))
        for kind, name in names:
            if any(_within(kind, name, base) for base in excluded if _kind(base) is kind):
                raise Invalid("a name is excluded by its authority")
            own = [base for base in permitted if _kind(base) is kind]
            if own and not any(_within(kind, name, base) for base in own):
                raise Invalid("a name is not among those permitted to its authority")


def _kind(name: x509.GeneralName) -> type[x509.GeneralName]:
    return type(name)


def _names(link: Link) -> list[tuple[type[x509.GeneralName], object]]:
    found: list[tuple[type[x509.GeneralName], object]] = []
    if link.subject:
        found.append((x509.DirectoryName, link.subject))
    for name in link.alternative_names:
        value: object = name.value
        if isinstance(name, x509.DirectoryName):
            value = comparable_name(name.value)
        found.append((type(name), value))
    if not any(kind is x509.RFC822Name for kind, _ in found):
        # An address in the subject counts where there is none among the alternative names.
        emails = link.certificate.subject.get_attributes_for_oid(NameOID.EMAIL_ADDRESS)
        found += [(x509.RFC822Name, str(email.value)) for email in emails]
    return found


def _within(kind: type[x509.GeneralName], name: object, base: x509.GeneralName) -> bool:
    """Whether the name lies in the subtree. Both are of this kind. Raises Invalid."""
    if kind is x509.DirectoryName:
        return isinstance(name, tuple) and _is_below(name, comparable_name(base.value))
    if kind is x509.IPAddress:
        return _is_in_network(name, base.value)
    if not isinstance(name, str):
        raise Invalid("a constraint on names of a kind that is not understood")
    if kind is x509.RFC822Name:
        return _is_mailbox_of(name.lower(), str(base.value).lower())
    if kind is x509.DNSName:
        return _is_domain_of(name.lower(), str(base.value).lower())
    if kind is x509.UniformResourceIdentifier:
        return _is_host_of(_uri_host(name), str(base.value).lower())
    raise Invalid("a constraint on names of a kind that is not understood")


def _is_below(name: Name, base: Name) -> bool:
    return name[: len(base)] == base


def _is_in_network(name: object, base: object) -> bool:
    if not isinstance(name, IPv4Address | IPv6Address):
        raise Invalid("an address that is a network")
    network = ip_network(str(base))
    return name.version == network.version and name in network


def _is_mailbox_of(mailbox: str, base: str) -> bool:
    local, at, host = mailbox.rpartition("@")
    if not at or not local or not host:
        raise Invalid("a mail address that is none")
    if "@" in base:
        return mailbox == base
    return _is_host_of(host, base)


def _is_host_of(host: str, base: str) -> bool:
    """RFC 5280: with a leading dot any host below, without it that host alone."""
    return host.endswith(base) if base.startswith(".") else host == base


def _is_domain_of(name: str, base: str) -> bool:
    if base.startswith("."):
        raise Invalid("a DNS constraint with a leading dot")
    return not base or name == base or name.endswith("." + base)


def _uri_host(uri: str) -> str:
    """The host of a URI; one without a host, or with an address, cannot be constrained."""
    try:
        host = urlsplit(uri).hostname
    except ValueError as fault:
        raise Invalid("a URI that is none") from fault
    if not host or ":" in host or host.replace(".", "").isdigit():
        raise Invalid("a URI without a host name under a constraint on hosts")
    return host.lower()
