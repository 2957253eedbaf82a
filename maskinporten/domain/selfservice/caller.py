"""Who calls the self-service API, and what its admin scopes allow (Maskinporten: self-service)."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from maskinporten.domain.client import ClientId
from maskinporten.domain.orgno import OrgNo
from maskinporten.domain.registry import Registry
from maskinporten.domain.scope import AccessState, ScopeName
from maskinporten.errors import Reason, Refused

PREFIX: Final = "idporten"  # Digdir's own
SUPPLIER: Final = "idporten:dcr.supplier"
ADMIN_SCOPES: Final[Mapping[str, str]] = {
    "idporten:dcr.read": "Read own clients, their keys and customers",
    "idporten:dcr.modify": "Change own clients, their keys and customers",
    "idporten:dcr.write": "Make, change and deactivate own clients",
    "idporten:dcr/onbehalfof.write": "Change the customers of own clients",
    "idporten:dcr/onbehalfof:write": "Change the customers of own clients (older spelling)",
    SUPPLIER: "Manage clients that a supplier has made for other organisations",
    "idporten:dcr.datasharing": "Make and deactivate own clients in the onboarding portal",
    "idporten:scopes.read": "Read own scopes, accesses and prefixes",
    "idporten:scopes.write": "Make, change and deactivate own scopes; grant and withdraw access",
}
"""What organisations are granted in order to run their own affairs, with a description each."""

OPERATOR_SCOPES: Final[Mapping[str, str]] = {
    "idporten:operator.read": "Read what all organisations have changed",
    "idporten:operator.write": "Give out and take back prefixes",
}
"""What only those who run the server are granted."""

_CLIENT_WRITERS: Final = ("idporten:dcr.write", SUPPLIER)


@dataclass(frozen=True, slots=True)
class Right:
    """What an endpoint asks of the token: one of these scopes."""

    scopes: tuple[str, ...]


READ_CLIENTS: Final = Right(("idporten:dcr.read", "idporten:dcr.modify", *_CLIENT_WRITERS))
MAKE_CLIENTS: Final = Right(_CLIENT_WRITERS)
CHANGE_CLIENTS: Final = Right((*_CLIENT_WRITERS, "idporten:dcr.modify"))
CHANGE_CUSTOMERS: Final = Right(
    (*CHANGE_CLIENTS.scopes, "idporten:dcr/onbehalfof.write", "idporten:dcr/onbehalfof:write")
)
READ_CUSTOMERS: Final = Right(
    tuple(dict.fromkeys((*READ_CLIENTS.scopes, *CHANGE_CUSTOMERS.scopes)))
)
READ_SCOPES: Final = Right(("idporten:scopes.read", "idporten:scopes.write"))
WRITE_SCOPES: Final = Right(("idporten:scopes.write",))
SHARE_DATA: Final = Right(("idporten:dcr.datasharing",))
ANY_ADMIN: Final = Right(tuple(ADMIN_SCOPES))
ANY_TOKEN: Final = Right(())
READ_AS_OPERATOR: Final = Right(tuple(OPERATOR_SCOPES))
WRITE_AS_OPERATOR: Final = Right(("idporten:operator.write",))


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """An organisation, by a token of ours. `orgno` is the token's consumer, as providers see it.

    The token's `jti` leads to the line of the token log that names the key or certificate.
    """

    orgno: OrgNo
    client_id: ClientId
    scopes: frozenset[str] = field(default_factory=frozenset)
    client_amr: str = ""
    jti: str = ""

    def may(self, right: Right) -> bool:
        """Whether the token has one of the scopes that the right asks for."""
        return not right.scopes or not self.scopes.isdisjoint(right.scopes)

    def verify(self, right: Right) -> None:
        """Raises Refused: ADMIN_SCOPE_MISSING."""
        if not self.may(right):
            raise Refused(Reason.ADMIN_SCOPE_MISSING, named=(" ".join(right.scopes),))

    def audited(self) -> Mapping[str, str]:
        """The caller as the audit remembers it."""
        return {
            "kind": "client",
            "client_id": self.client_id,
            "orgno": self.orgno,
            "client_amr": self.client_amr,
            "token_jti": self.jti,
        }


def living_scopes(
    client_id: ClientId, orgno: OrgNo, scopes: Collection[str], registry: Registry
) -> frozenset[str]:
    """Those of a token's scopes that would be issued still; a token must not outlive its right.

    An organisation speaks here by a client of its own alone. Whom a supplier acts for is what the
    supplier has written down itself, as a customer of its client or as its client's organisation.

    Raises Refused: ACCESS_TOKEN_INVALID, where the client is out of use, or a supplier's.
    """
    client = registry.clients.get(client_id)
    if client is None or not client.active:
        raise Refused(Reason.ACCESS_TOKEN_INVALID, named=("Its client is out of use",))
    if client.client_orgno != orgno or client.supplier_orgno not in {None, orgno}:
        sentence = "It is a supplier's, and here each organisation speaks for itself"
        raise Refused(Reason.ACCESS_TOKEN_INVALID, named=(sentence,))
    return frozenset(
        name
        for name in scopes
        if name in client.scopes and _is_open(ScopeName(name), orgno, registry)
    )


def _is_open(name: ScopeName, orgno: OrgNo, registry: Registry) -> bool:
    scope = registry.scopes.get(name)
    if scope is None or not scope.active:
        return False
    access = registry.accesses.get((name, orgno))
    granted = access is not None and access.state is AccessState.APPROVED
    return granted or bool(scope.accessible_for_all)
