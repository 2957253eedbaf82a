"""Prefixes, scopes, and who has been given access to them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NewType

from maskinporten.domain.orgno import OrgNo

ScopeName = NewType("ScopeName", str)
"""`prefix:subscope`, as Maskinporten compares it: exactly, without wildcards or hierarchy."""

PROBE_SCOPE: Final = ScopeName("maskinporten:probe")  # grants nothing (`domain.probe`)
MAX_SCOPE_LENGTH: Final = 255  # characters
MAX_SCOPES_PER_GRANT: Final = 200
# RFC 6749 section 3.3, and the Norwegian letters that registered subscopes may hold.
_SCOPE_TOKEN: Final = re.compile(r"[\x21\x23-\x5b\x5d-\x7eæøåÆØÅ]+")
_PREFIX: Final = re.compile(r"[a-zæøå0-9][a-zæøå0-9_.\-]{0,63}")


class Visibility(StrEnum):
    """Who sees the scope in public listings. It decides nothing about access."""

    PUBLIC = "PUBLIC"
    PRIVATE = "PRIVATE"
    INTERNAL = "INTERNAL"


class TokenType(StrEnum):
    """The form of the token; Maskinporten issues self-contained ones whatever stands here."""

    SELF_CONTAINED = "SELF_CONTAINED"
    OPAQUE = "OPAQUE"


class IntegrationType(StrEnum):
    """What kind of client this is; the token endpoint serves those that use the JWT grant."""

    ANSATTPORTEN = "ansattporten"
    API_KLIENT = "api_klient"
    EFORMIDLING = "eformidling"
    IDPORTEN = "idporten"
    IDPORTEN_SAML2 = "idporten_saml2"
    KRR = "krr"
    MASKINPORTEN = "maskinporten"


class AccessState(StrEnum):
    """Where an organisation's access to a scope stands. Only APPROVED opens it."""

    REQUESTED = "REQUESTED"
    APPROVED = "APPROVED"
    DENIED = "DENIED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefix:
    """The first part of scope names, allotted to one organisation by the operator."""

    prefix: str
    owner_orgno: OrgNo
    active: bool = True
    created: str = ""  # RFC 3339 instant, kept as it was given
    last_updated: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """A right to call an API, owned by the organisation that owns its prefix."""

    name: ScopeName
    owner_orgno: OrgNo
    description: str
    active: bool = True
    visibility: Visibility = Visibility.PUBLIC
    allowed_integration_types: tuple[IntegrationType, ...] = ()  # empty: no restriction
    token_type: TokenType = TokenType.SELF_CONTAINED
    at_max_age: int = 0  # seconds; 0: the client's lifetime decides
    authorization_max_lifetime: int = 0  # seconds; without effect on machine tokens
    delegation_source: str | None = None  # issuer URL; None: the scope cannot be delegated
    accessible_for_all: bool = False
    requires_user_consent: bool = False
    requires_user_authentication: bool = False
    requires_pseudonymous_tokens: bool = False
    enforced_aud_for_access_token: str | None = None
    enforced_aud_for_introspection: str | None = None
    protected: bool = False
    supports_european_businesses: bool = False
    consumer_prefix: bool = False  # whether tokens list the consumer's prefixes
    texts: Mapping[str, str] = field(default_factory=dict)  # long_description, description#en, …
    created: str = ""
    last_updated: str = ""

    @property
    def prefix(self) -> str:
        """What stands before the first colon."""
        return self.name.split(":", 1)[0]

    @property
    def subscope(self) -> str:
        """What stands after the first colon; it may hold further colons."""
        return self.name.split(":", 1)[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeAccess:
    """What the owner of a scope has decided about one consumer."""

    scope: ScopeName
    owner_orgno: OrgNo
    consumer_orgno: OrgNo
    state: AccessState = AccessState.APPROVED
    created: str = ""
    last_updated: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DelegationSource:
    """Where delegations of scopes are registered; in practice Altinn."""

    name: str
    issuer: str  # as it stands in `delegation_source`, with the slash
    created: str = ""
    last_updated: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Organization:
    """The name that goes with an organisation number, for people to read."""

    orgnr: OrgNo
    name: str


def is_scope_token(text: Any) -> bool:
    """Whether `text` can be a scope at all, wherever it comes from (RFC 6749 section 3.3)."""
    return len(text) <= MAX_SCOPE_LENGTH and _SCOPE_TOKEN.fullmatch(text) is not None


def read_scope_name(text: str) -> ScopeName:
    """A name for the registry: prefix, colon, subscope. Raises ValueError with a sentence."""
    prefix, colon, subscope = text.partition(":")
    if not colon or not subscope:
        raise ValueError("must have the form prefix:subscope")
    if text == PROBE_SCOPE:
        raise ValueError("is the scope of /jwk/probe, which grants nothing")
    read_prefix(prefix)
    if not is_scope_token(text):
        raise ValueError(
            f"must be at most {MAX_SCOPE_LENGTH} characters, without spaces, quotes or backslashes"
        )
    return ScopeName(text)


def read_prefix(text: str) -> str:
    """A prefix for the registry. Raises ValueError with a sentence."""
    if _PREFIX.fullmatch(text) is None:
        raise ValueError(
            "a prefix is at most 64 lower-case letters, digits, '-', '_' or '.', "
            "and begins with a letter or digit"
        )
    return text
