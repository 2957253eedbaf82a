"""The European electronic seal (eIDAS): from a whole chain in `x5c` to a business that called.

Nobody registers here. The anchors are authorities of the European trusted lists, kept apart from
the Norwegian ones: a path never mixes the two.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography import x509
from cryptography.x509.oid import NameOID, ObjectIdentifier

from maskinporten.domain.certificate import (
    ProvenCertificate,
    read_chain,
    signing_key,
    verify_leaf,
)
from maskinporten.domain.link import Invalid, Link, read_elements, read_oid, verify_sole
from maskinporten.domain.path import Authorities, Path, find_path
from maskinporten.errors import Reason, Refused

QUALIFIED: Final = "QCForESeal"
ADVANCED: Final = "CForESeal"  # not qualified
AUTHORITY: Final = "etsi-en-319-412"
_MAX_IDENTIFIER_LENGTH: Final = 200  # characters
_MAX_STATEMENTS: Final = 64
_QC_STATEMENTS: Final = ObjectIdentifier("1.3.6.1.5.5.7.1.3")  # RFC 3739 section 3.2.6
_QC_COMPLIANCE: Final = "0.4.0.1862.1.1"  # ETSI EN 319 412-5 section 4.2.1
_QC_TYPE: Final = "0.4.0.1862.1.6"  # section 4.2.3
_QC_TYPE_SEAL: Final = "0.4.0.1862.1.6.2"


@dataclass(frozen=True, slots=True)
class SealStore:
    """The authorities whose seals are accepted. A value; loaded at start-up.

    `unqualified` names those (by the DER of their anchor) under which no seal counts as qualified,
    whatever it says of itself.
    """

    authorities: Authorities
    unqualified: frozenset[bytes] = field(default=frozenset(), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SealHolder:
    """A business as its seal names it; it has no Norwegian organisation number to be known by."""

    identifier: str  # organizationIdentifier, such as VATDE-123456789
    common_name: str | None = None
    organization_name: str | None = None
    organizational_unit_name: str | None = None
    country_name: str | None = None

    def claim(self) -> dict[str, str]:
        """The `consumer` of a token, its members in Maskinporten's order."""
        members = {
            "commonName": self.common_name,
            "organizationName": self.organization_name,
            "organizationalUnitName": self.organizational_unit_name,
            "authority": AUTHORITY,
            "ID": self.identifier,
            "countryName": self.country_name,
        }
        return {name: value for name, value in members.items() if value is not None}


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Seal(ProvenCertificate):
    """A certificate for electronic seals that holds. Made by `verify_seal` only."""

    holder: SealHolder


def verify_seal(chain: tuple[bytes, ...], store: SealStore, now: int) -> Seal:
    """The business behind the chain, by every rule but revocation.

    The rules, in order: the leaf by itself, a path at `now` from it to an anchor through the
    presented certificates, that the chain is whole, what the seal says of its kind, its holder,
    its key. Raises Refused: X5C_MALFORMED, CERTIFICATE_INVALID.
    """
    leaf, *presented = read_chain(chain)
    try:
        verify_leaf(leaf)
        path = find_path(leaf, store.authorities.with_presented(presented), now)
        _verify_whole(path, presented)
        qualified = is_qualified(leaf.certificate)
        holder = read_holder(leaf.certificate.subject)
        key = signing_key(leaf)
    except Invalid as fault:
        raise Refused(Reason.CERTIFICATE_INVALID, f"seal: {fault}") from fault
    if path.links[-1].der in store.unqualified:
        qualified = False
    return Seal(
        holder=holder,
        issuer=leaf.certificate.issuer.rfc4514_string(),
        serial=leaf.serial,
        not_after=leaf.not_after,
        client_amr=QUALIFIED if qualified else ADVANCED,
        sha256=hashlib.sha256(leaf.der).hexdigest(),
        der=leaf.der,
        key=key,
        path=path,
    )


def _verify_whole(path: Path, presented: Sequence[Link]) -> None:
    """Every issuer was presented; a root above another issuer may be left out. Raises Invalid."""
    needed = path.links[1:]
    if len(needed) > 1 and needed[-1].self_issued:
        needed = needed[:-1]
    if not {link.der for link in needed} <= {link.der for link in presented}:
        raise Invalid("x5c does not hold the whole chain")


def is_qualified(certificate: x509.Certificate) -> bool:
    """Whether it says that it is a qualified certificate for electronic seals.

    Raises Invalid for statements that cannot be read, and for a certificate that says it is for
    something else (signatures of people, web sites).
    """
    statements = _read_statements(certificate)
    types = statements.get(_QC_TYPE)
    if types is None:
        return False
    kinds = [read_oid(element) for element in read_elements(types)]
    if _QC_TYPE_SEAL not in kinds:
        raise Invalid("not made for seals, by its QCStatements")
    return _QC_COMPLIANCE in statements


def _read_statements(certificate: x509.Certificate) -> dict[str, bytes]:
    """QCStatements (RFC 3739 section 3.2.6): each by its identifier, with its information."""
    try:
        value: Any = certificate.extensions.get_extension_for_oid(_QC_STATEMENTS).value
    except x509.ExtensionNotFound:
        return {}
    found: dict[str, bytes] = {}
    statements = read_elements(verify_sole(value.value))
    if len(statements) > _MAX_STATEMENTS:
        raise Invalid("too many QCStatements")
    for statement in statements:
        name, *information = read_elements(statement) or [b"\x05\x00"]
        if len(information) > 1 or (oid := read_oid(name)) in found:
            raise Invalid("QCStatements in another form than RFC 3739's")
        found[oid] = information[0] if information else b""
    return found


def read_holder(subject: x509.Name) -> SealHolder:
    """Who the subject names. Raises Invalid without exactly one organizationIdentifier."""
    identifier = _find(subject, NameOID.ORGANIZATION_IDENTIFIER)
    if identifier is None or len(identifier) > _MAX_IDENTIFIER_LENGTH:
        raise Invalid("no organizationIdentifier, or a long one")
    return SealHolder(
        identifier=identifier,
        common_name=_find(subject, NameOID.COMMON_NAME),
        organization_name=_find(subject, NameOID.ORGANIZATION_NAME),
        organizational_unit_name=_find(subject, NameOID.ORGANIZATIONAL_UNIT_NAME),
        country_name=_find(subject, NameOID.COUNTRY_NAME),
    )


def _find(subject: x509.Name, oid: ObjectIdentifier) -> str | None:
    """The attribute's only value, None where it is absent or blank. Raises Invalid for two."""
    values = [attribute.value for attribute in subject.get_attributes_for_oid(oid)]
    if oid != NameOID.ORGANIZATIONAL_UNIT_NAME and len(values) > 1:
        raise Invalid(f"two values of {oid.dotted_string} in the subject")
    text = values[0] if values else ""
    if not isinstance(text, str):
        raise Invalid("a name that is no text")
    return text.strip() or None
