"""The members that declarations have: names, types and limits, by the self-service API's words.

A shape only says what each member may be; what they mean together is `declaration`'s business.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from difflib import get_close_matches
from enum import StrEnum
from typing import Annotated, Any, Final, get_args

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from maskinporten.domain.orgno import find_orgno
from maskinporten.domain.scope import AccessState, IntegrationType, TokenType, Visibility
from maskinporten.errors import Fault

MAX_NAME: Final = 255  # characters
Name = Annotated[str, Meta(max_length=MAX_NAME)]
Text = Annotated[str, Meta(max_length=4000)]
LongText = Annotated[str, Meta(max_length=20_000)]
Uri = Annotated[str, Meta(max_length=2048)]
Seconds = Annotated[int, Meta(ge=0, le=10 * 365 * 24 * 3600)]
PositiveSeconds = Annotated[int, Meta(ge=1, le=24 * 3600)]
Uris = Annotated[tuple[Uri, ...], Meta(max_length=100)]

_SLIP: Final = 0.88  # likeness from which an unknown member is taken for a known one, misspelt
# What the library says, in sentences for whoever wrote the member.
_SENTENCES: Final = (
    (re.compile(r"^Expected `str` of length <= (\d+)$"), r"must have at most \1 characters"),
    (re.compile(r"^Expected `str` of length >= (\d+)$"), r"must have at least \1 character"),
    (re.compile(r"^Expected `array` of length <= (\d+)$"), r"must have at most \1 entries"),
    (re.compile(r"^Expected `int` >= (\d+)$"), r"must be at least \1"),
    (re.compile(r"^Expected `int` <= (\d+)$"), r"must be at most \1"),
    (re.compile(r"^Expected (`\w+`), got (`\w+`)$"), r"must be \1, not \2"),
)
_KINDS: Final[Mapping[str, str]] = {
    "`str`": "a text", "`int`": "a whole number", "`bool`": "true or false", "`float`": "a number",
    "`decimal`": "a number", "`array`": "an array", "`object`": "an object", "`null`": "null",
}  # fmt: skip
SCOPE_TEXT: Final = re.compile(r"(long_)?description(#[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*)?")


class PrefixMembers(Struct):
    """A prefix in a registry file."""

    prefix: str | UnsetType = UNSET
    owner_orgno: str | UnsetType = UNSET
    active: bool | UnsetType = UNSET
    organization_name: Name | UnsetType = UNSET
    created: Name | UnsetType = UNSET
    last_updated: Name | UnsetType = UNSET


class ScopeMembers(Struct):
    """A scope, by the names of the self-service API."""

    name: str | UnsetType = UNSET
    prefix: str | UnsetType = UNSET
    subscope: str | UnsetType = UNSET
    description: Text | UnsetType = UNSET
    active: bool | UnsetType = UNSET
    visibility: Visibility | UnsetType = UNSET
    allowed_integration_types: tuple[IntegrationType, ...] | UnsetType = UNSET
    token_type: TokenType | UnsetType = UNSET
    at_max_age: Seconds | UnsetType = UNSET
    authorization_max_lifetime: Seconds | UnsetType = UNSET
    authorization_max_age: Seconds | UnsetType = UNSET  # the older name of the same
    delegation_source: Uri | UnsetType = UNSET
    accessible_for_all: bool | UnsetType = UNSET
    requires_user_consent: bool | UnsetType = UNSET
    requires_user_authentication: bool | UnsetType = UNSET
    requires_pseudonymous_tokens: bool | UnsetType = UNSET
    enforced_aud_for_access_token: Uri | UnsetType = UNSET
    enforced_aud_for_introspection: Uri | UnsetType = UNSET
    protected: bool | UnsetType = UNSET
    supports_european_businesses: bool | UnsetType = UNSET
    consumer_prefix: bool | UnsetType = UNSET
    owner_orgno: str | UnsetType = UNSET
    created: Name | UnsetType = UNSET
    last_updated: Name | UnsetType = UNSET


class AccessMembers(Struct):
    """An access, by the names of the self-service API."""

    scope: str | UnsetType = UNSET
    consumer_orgno: str | UnsetType = UNSET
    state: AccessState | UnsetType = UNSET
    owner_orgno: str | UnsetType = UNSET
    owner_organization_name: Name | UnsetType = UNSET
    consumer_organization_name: Name | UnsetType = UNSET
    prefix: Name | UnsetType = UNSET
    created: Name | UnsetType = UNSET
    last_updated: Name | UnsetType = UNSET


class OnBehalfOfMembers(Struct):
    """A customer of a client, by the names of the self-service API."""

    onbehalfof: Annotated[str, Meta(min_length=1, max_length=255)] | UnsetType = UNSET
    name: Name | UnsetType = UNSET
    orgno: str | UnsetType = UNSET
    organization_name: Name | UnsetType = UNSET
    description: Text | UnsetType = UNSET
    uri: Uri | UnsetType = UNSET
    logo_uri: Uri | UnsetType = UNSET
    client_uri: Uri | UnsetType = UNSET  # the older name of uri
    created: Name | UnsetType = UNSET
    last_updated: Name | UnsetType = UNSET


class ClientMembers(Struct):
    """A client, by the names of the self-service API."""

    client_id: str | UnsetType = UNSET
    client_name: Name | UnsetType = UNSET
    client_orgno: str | UnsetType = UNSET
    supplier_orgno: str | UnsetType = UNSET
    description: Text | UnsetType = UNSET
    active: bool | UnsetType = UNSET
    integration_type: IntegrationType | UnsetType = UNSET
    scopes: Annotated[tuple[str, ...], Meta(max_length=1000)] | UnsetType = UNSET
    access_token_lifetime: PositiveSeconds | UnsetType = UNSET
    jwks: dict[str, Any] | UnsetType = UNSET
    onbehalfof: Annotated[tuple[Any, ...], Meta(max_length=1000)] | UnsetType = UNSET
    created: Name | UnsetType = UNSET
    last_updated: Name | UnsetType = UNSET
    # Passive: kept and shown, without effect on machine tokens.
    application_type: Name | UnsetType = UNSET
    grant_types: tuple[Name, ...] | UnsetType = UNSET
    token_endpoint_auth_method: Name | UnsetType = UNSET
    authorization_lifetime: Seconds | UnsetType = UNSET
    refresh_token_lifetime: Seconds | UnsetType = UNSET
    refresh_token_usage: Name | UnsetType = UNSET
    redirect_uris: Uris | UnsetType = UNSET
    post_logout_redirect_uris: Uris | UnsetType = UNSET
    frontchannel_logout_session_required: bool | UnsetType = UNSET
    frontchannel_logout_uri: Uri | UnsetType = UNSET
    sso_disabled: bool | UnsetType = UNSET
    code_challenge_method: Name | UnsetType = UNSET
    logo_uri: Uri | UnsetType = UNSET
    client_uri: Uri | UnsetType = UNSET


PASSIVE_CLIENT_MEMBERS: Final = tuple(ClientMembers.__struct_fields__[13:])


class KeyMembers(Struct):
    """A public RSA key as a JWK (RFC 7517), with when it expires (epoch seconds)."""

    kty: Annotated[str, Meta(pattern="^RSA$")]
    use: Annotated[str, Meta(pattern="^sig$")]
    kid: Annotated[str, Meta(pattern="^[A-Za-z0-9_.-]{1,255}$")]
    n: Annotated[str, Meta(max_length=1024)]
    e: Annotated[str, Meta(max_length=8)]
    alg: Name | UnsetType = UNSET
    x5c: tuple[str, ...] | UnsetType = UNSET
    exp: int | UnsetType = UNSET
    created: Name | UnsetType = UNSET
    last_updated: Name | UnsetType = UNSET


class KeySetMembers(Struct):
    """The keys of a client."""

    keys: Annotated[tuple[KeyMembers, ...], Meta(max_length=5)]
    created: Name | UnsetType = UNSET
    last_updated: Name | UnsetType = UNSET


class OnboardingMembers(Struct):
    """What the onboarding portal sends for a client."""

    description: Text | UnsetType = UNSET
    scopes: Annotated[tuple[str, ...], Meta(max_length=1000)] | UnsetType = UNSET
    keys: tuple[dict[str, Any], ...] | UnsetType = UNSET


class OnboardedMembers(Struct):
    """A client as the onboarding portal reads it."""

    clientId: str  # noqa: N815 - names of the original
    description: str
    consumerOrgNr: str  # noqa: N815
    scopes: tuple[str, ...]
    keys: tuple[KeyMembers, ...]


class UserMembers(Struct):
    """Whom a token speaks for."""

    authenticated_organization_number: str
    authenticated_organization_name: str | None
    is_synthetic_organization_number: bool
    has_consented: bool


class OrganizationMembers(Struct):
    """An organisation's name, for people to read."""

    orgnr: str | UnsetType = UNSET
    name: Name | UnsetType = UNSET


class DelegationSourceMembers(Struct):
    """Where delegations are registered."""

    name: Name | UnsetType = UNSET
    issuer: Uri | UnsetType = UNSET


class Reader:
    """Collects the faults of one declaration, each with its path.

    A tolerant one passes over members that nobody knows, as the self-service API has always done,
    unless they look like a slip of the pen.
    """

    def __init__(self, path: str, *, tolerant: bool = False) -> None:
        self.path = path
        self.faults: list[Fault] = []
        self._tolerant = tolerant
        self._is_object = True

    def fault(self, member: str, sentence: str) -> None:
        """Note that something is wrong at `member`."""
        joined = f"{self.path}.{member}" if self.path and member else self.path or member
        self.faults.append(Fault(joined, sentence))

    def members(self, data: Any, shape: type[Struct], also: Iterable[str] = ()) -> dict[str, Any]:
        """The members that stand in `data` and have the shape's types. null counts as absent."""
        if not isinstance(data, dict):
            self.fault("", "must be an object")
            self._is_object = False
            return {}
        types = {field.name: field.type for field in msgspec.structs.fields(shape)}
        found: dict[str, Any] = {}
        for name, value in data.items():
            if name not in types:
                if name not in also and not self._passes_over(name, types):
                    self.fault(name, "is not a member; " + _nearest(name, [*types, *also]))
            elif value is not None:
                try:
                    found[name] = msgspec.convert(value, types[name])
                except msgspec.ValidationError as fault:
                    self._mistyped(name, str(fault), types[name])
        return found

    def _passes_over(self, name: str, known: Iterable[str]) -> bool:
        return self._tolerant and not get_close_matches(name, known, n=1, cutoff=_SLIP)

    def _mistyped(self, name: str, said: str, kind: Any) -> None:
        sentence, _, place = said.partition(" - at `$")
        if sentence.startswith("Invalid enum value"):
            sentence = f"must be one of {', '.join(_choices(kind))}"
        for pattern, words in _SENTENCES:
            sentence = pattern.sub(words, sentence)
        for code, word in _KINDS.items():
            sentence = sentence.replace(code, word)
        self.fault(name + place.rstrip("`"), sentence)

    def orgno(self, found: Mapping[str, Any], name: str) -> Any:
        """The organisation number of that member, or None with a fault where it is none."""
        orgno = find_orgno(found.get(name))
        if orgno is None:
            self.fault(name, "must be an organisation number: nine digits, the last a check digit")
        return orgno

    def required(self, found: Mapping[str, Any], *names: str) -> bool:
        """Whether all of them are there; a fault for each that is not."""
        missing = [name for name in names if name not in found]
        for name in missing if self._is_object else ():
            self.fault(name, "must be given")
        return not missing


def _choices(kind: Any) -> list[str]:
    """The values of the enumeration within a type."""
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return list(kind)
    return [choice for part in get_args(kind) for choice in _choices(part)]


def instant(now: int) -> str:
    """Epoch seconds as RFC 3339 in UTC with milliseconds, as the self-service API writes time."""
    return datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def _nearest(name: str, names: Iterable[str]) -> str:
    near = get_close_matches(name, list(names), n=1)
    return f"did you mean {near[0]}?" if near else "see the README for the members there are"
