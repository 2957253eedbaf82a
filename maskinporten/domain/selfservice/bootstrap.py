"""How the first admin client comes to be: as a registry document, like everything else."""

from collections.abc import Mapping
from typing import Any

from maskinporten.domain.selfservice.caller import ADMIN_SCOPES, OPERATOR_SCOPES, PREFIX


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
