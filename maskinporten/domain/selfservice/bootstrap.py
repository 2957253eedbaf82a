"""How the first admin client comes to be, and prefixes: the operator's word, as a change."""

from collections.abc import Mapping
from typing import Any, Final

from maskinporten.domain.client import ClientId
from maskinporten.domain.manifest import plan
from maskinporten.domain.orgno import OrgNo, find_orgno
from maskinporten.domain.registry import Change, Registry
from maskinporten.domain.scope import Prefix
from maskinporten.domain.selfservice.caller import ADMIN_SCOPES, OPERATOR_SCOPES, PREFIX, Caller
from maskinporten.domain.selfservice.case import Case
from maskinporten.domain.selfservice.prefixes import change_prefix, give_prefix
from maskinporten.errors import Fault, InvalidInput

_OPERATOR: Final = Caller(orgno=OrgNo(""), client_id=ClientId(""))


def admin_document(
    owner_orgno: str,
    orgno: str,
    client_id: str,
    jwks: Mapping[str, Any] | None = None,
    *,
    operator: bool = False,
) -> dict[str, Any]:
    """Digdir's own prefix with the admin scopes, and a client of `orgno` that may use them.

    `owner_orgno` runs the server and owns the prefix. With `operator` the client may do what only
    those who run the server may. Without `jwks` the client proves itself by its certificate.
    """
    scopes = {**ADMIN_SCOPES, **OPERATOR_SCOPES}
    granted = [*ADMIN_SCOPES, *(OPERATOR_SCOPES if operator else ())]
    return {
        "prefixes": [{"prefix": PREFIX, "owner_orgno": owner_orgno}],
        "scopes": [
            {"name": name, "description": description, "visibility": "PRIVATE"}
            for name, description in scopes.items()
        ],
        "accesses": [{"scope": name, "consumer_orgno": orgno} for name in granted],
        "clients": [
            {
                "client_id": client_id,
                "client_name": "Self-service",
                "description": "Runs the organisation's own affairs by the self-service API",
                "client_orgno": orgno,
                "scopes": granted,
                **({"jwks": dict(jwks)} if jwks else {}),
            }
        ],
    }


def admit(
    registry: Registry,
    now: int,
    orgno: str,
    client_id: str,
    jwks: Mapping[str, Any] | None,
    *,
    operator: bool,
) -> Change:
    """An admin client for the organisation. What is there of prefix and scopes stays as it is.

    Raises InvalidInput, also for a client that is another organisation's, and where the prefix is
    missing and it is not the operator that is let in.
    """
    prefix: Prefix | None = registry.prefixes.get(PREFIX)
    if prefix is None and not operator:
        sentence = "let yourself in first, with --operator: that makes the admin scopes"
        raise InvalidInput((Fault("", sentence),))
    if find_orgno(orgno) is None:
        sentence = "must be an organisation number: nine digits, the last a check digit"
        raise InvalidInput((Fault(orgno, sentence),))
    standing = registry.clients.get(ClientId(client_id))
    if standing is not None and standing.client_orgno != orgno:
        raise InvalidInput((Fault("client_id", f"{client_id} is another organisation's"),))
    owner = prefix.owner_orgno if prefix else orgno
    document = admin_document(owner, orgno, client_id, jwks, operator=operator)
    if prefix is not None:
        del document["prefixes"]
    document["scopes"] = [one for one in document["scopes"] if one["name"] not in registry.scopes]
    if standing is not None:
        (client,) = document["clients"]
        client["scopes"] = list(dict.fromkeys([*standing.scopes, *client["scopes"]]))
        del client["client_name"], client["description"]
    return plan(document, registry, now)


def give_out(registry: Registry, now: int, data: Mapping[str, Any]) -> Change:
    """The prefix as the operator's command gives it out or takes it back. Raises InvalidInput."""
    case = Case(caller=_OPERATOR, registry=registry, now=now)
    name = str(data["prefix"])
    if name in registry.prefixes:
        return change_prefix(case, name, dict(data)).change
    return give_prefix(case, dict(data)).change
