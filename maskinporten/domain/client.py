"""OAuth clients and the keys they have registered."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NewType

from maskinporten.domain.orgno import OrgNo
from maskinporten.domain.scope import IntegrationType, ScopeName

ClientId = NewType("ClientId", str)
"""An opaque name of ours; often a UUID, but `MOVE_IP_991825827` is one too."""

DEFAULT_TOKEN_LIFETIME: Final = 120  # seconds
MAX_TOKEN_LIFETIME: Final = 24 * 3600  # seconds; a retired signing key is published for longer
MAX_KEYS: Final = 5
MAX_KEY_LIFETIME: Final = 365 * 24 * 3600  # seconds, from the moment the key is posted
JWT_BEARER: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
SEALED: Final = "eidas-"
"""Begins the client_id of tokens for European seals, who are not registered."""
OURSELVES: Final = ClientId("maskinporten")
PROBE: Final = ClientId("maskinporten-probe")
OWN_NAMES: Final = frozenset({OURSELVES, PROBE})
"""The client_id of tokens that this server issues by itself: to ask others, and to be tested on."""
_CLIENT_ID: Final = re.compile(r"[A-Za-z0-9_.\-:]{1,255}", re.ASCII)
_KEY_ID: Final = re.compile(r"[A-Za-z0-9_.\-]{1,255}", re.ASCII)
# The kinds of client that use the JWT grant; the others belong to log-in servers.
MACHINE_CLIENTS: Final = frozenset(
    {
        IntegrationType.MASKINPORTEN,
        IntegrationType.KRR,
        IntegrationType.EFORMIDLING,
        IntegrationType.API_KLIENT,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientKey:
    """A public key that may sign this client's grants until `exp`."""

    kid: str
    n: str  # base64url, as in RFC 7518 section 6.3.1
    e: str
    exp: int  # epoch seconds; from then on the key is expired
    alg: str = "RS256"
    x5c: tuple[str, ...] = ()  # standard base64 of DER; locks the client to this certificate
    created: str = ""
    last_updated: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OnBehalfOf:
    """A customer that the client may act for by the owner's word alone, without Altinn."""

    onbehalfof: str
    name: str
    orgno: OrgNo
    description: str = ""
    uri: str | None = None
    logo_uri: str | None = None
    created: str = ""
    last_updated: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """What an organisation has registered in order to ask for tokens."""

    client_id: ClientId
    client_orgno: OrgNo
    client_name: str = ""
    supplier_orgno: OrgNo | None = None
    description: str = ""
    active: bool = True
    integration_type: IntegrationType = IntegrationType.MASKINPORTEN
    scopes: tuple[ScopeName, ...] = ()
    access_token_lifetime: int = DEFAULT_TOKEN_LIFETIME  # seconds
    keys: tuple[ClientKey, ...] = ()
    onbehalfof: tuple[OnBehalfOf, ...] = ()
    # Members that mean nothing to machine tokens but are the owner's to keep (redirect_uris, …).
    passive: Mapping[str, Any] = field(default_factory=dict)
    request: str | None = None  # SHA-256 of the request that made it, so that a repeat is known
    created: str = ""
    last_updated: str = ""

    def find_key(self, kid: str) -> ClientKey | None:
        """The registered key of that name; at most five are looked at."""
        return next((key for key in self.keys if key.kid == kid), None)

    def find_on_behalf_of(self, name: str) -> OnBehalfOf | None:
        """The internal delegation of that name."""
        return next((entry for entry in self.onbehalfof if entry.onbehalfof == name), None)


def is_client_id(text: Any) -> bool:
    """Whether `text` could be the id of a client: ASCII, at most 255 characters."""
    return isinstance(text, str) and _CLIENT_ID.fullmatch(text) is not None


def is_key_id(text: Any) -> bool:
    """Whether `text` could be a registered `kid`: letters, digits, `.`, `_`, `-`."""
    return isinstance(text, str) and _KEY_ID.fullmatch(text) is not None
