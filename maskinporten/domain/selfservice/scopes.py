"""Scopes, by the owners of their prefixes (Maskinporten: self-service, scopes)."""

import itertools
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

from maskinporten.domain.declaration import dated, declare_scope
from maskinporten.domain.members import SCOPE_TEXT, Reader
from maskinporten.domain.registry import Registry
from maskinporten.domain.scope import Scope, ScopeName, Visibility
from maskinporten.domain.selfservice.case import (
    Case,
    Decision,
    Sparse,
    conflict,
    verify_flawless,
    without,
)
from maskinporten.errors import Fault, InvalidInput, Reason, Refused

_READ_ONLY: Final = (
    "owner_orgno", "created", "last_updated", "lastUpdated", "created_by", "last_updated_by",
    "protected", "organization_name", "owner_organization_name",
)  # fmt: skip
# Go and Java clients write an unset member as "".
_EMPTY_IS_ABSENT: Final = (
    "name", "visibility", "token_type", "delegation_source", "enforced_aud_for_access_token",
    "enforced_aud_for_introspection",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a reader of the public listing asks for; None: all the same."""

    prefix: str | None = None
    inactive: bool = False
    delegated: bool | None = None
    accessible_for_all: bool | None = None
    integration_type: str | None = None

    def fits(self, scope: Scope) -> bool:
        """Whether the scope is public, and what was asked for."""
        types = scope.allowed_integration_types
        return (
            scope.visibility is Visibility.PUBLIC
            and (scope.active or self.inactive)
            and self.delegated in (None, scope.delegation_source is not None)
            and self.accessible_for_all in (None, scope.accessible_for_all)
            and (self.integration_type is None or not types or self.integration_type in types)
        )


def public_scopes(registry: Registry, wanted: Wanted) -> Sparse[Scope]:
    """What anyone may see, by name."""
    names: Iterable[ScopeName] = registry.names("scopes")
    if wanted.prefix is not None:
        names = names_under(registry, wanted.prefix)
    scopes = (registry.scopes[name] for name in names)
    return (scope if wanted.fits(scope) else None for scope in scopes)


def names_under(registry: Registry, prefix: str) -> Iterable[ScopeName]:
    """The names of all scopes under a prefix."""
    names, beginning = registry.names("scopes"), ScopeName(prefix + ":")
    begun = itertools.islice(names, bisect_left(names, beginning), None)
    return itertools.takewhile(lambda name: name.startswith(beginning), begun)


def find_scopes(case: Case, *, name: str | None, inactive: bool) -> Sparse[Scope]:
    """The caller's own scopes, public or not."""
    names = case.registry.names("scopes", "owner_orgno", case.caller.orgno)
    scopes = (case.registry.scopes[one] for one in names)
    return (
        scope if (scope.active or inactive) and name in (None, scope.name) else None
        for scope in scopes
    )


def read_scope(case: Case, name: str, *, inactive: bool) -> Scope:
    """One scope of the caller's. Raises Refused: NOT_OWNER, NOT_YOURS."""
    scope = case.own_scope(name)
    if not scope.active and not inactive:
        raise Refused(Reason.NOT_YOURS, "deactivated", named=("scope",))
    return scope


def make_scope(case: Case, data: Any) -> Decision:
    """A new scope under a prefix of the caller's own.

    Raises InvalidInput; Refused: NOT_OWNER, STATE_CONFLICT.
    """
    members = _settable(data)
    reader = Reader("", tolerant=True)
    if isinstance(members, dict):
        name = members.get("name") or f"{members.get('prefix')}:{members.get('subscope')}"
        if isinstance(name, str) and (members.get("name") or members.get("prefix")):
            case.own_prefix(name.split(":", 1)[0])
            standing = case.registry.scopes.get(ScopeName(name))
            if standing is not None and not standing.active:
                conflict("The scope is deactivated; PUT it with active: true to bring it back")
            if standing is not None:
                conflict("There is a scope of this name")
    case.verify_room("scopes", "owner_orgno")
    scope = declare_scope(reader, members, {}, case.registry.prefixes, case.now)
    return _judged(case, reader, scope)


def change_scope(case: Case, name: str, data: Any) -> Decision:
    """The scope with the members that are given; its name cannot change.

    What is left out stays, but for the delegation source, the audiences and the lifetime of
    authorizations: those that write a whole scope leave them out where there are none.
    Raises InvalidInput; Refused: NOT_OWNER, NOT_YOURS, CHANGED_MEANWHILE.
    """
    before = case.own_scope(name)
    case.verify_unchanged(before)
    members = _settable(data)
    reader = Reader("", tolerant=True)
    texts = dict(before.texts)
    if isinstance(members, dict):
        parts = {"name": before.name, "prefix": before.prefix, "subscope": before.subscope}
        for member, value in parts.items():
            if members.get(member) not in (None, value):
                reader.fault(member, "cannot be changed; make another scope")
        texts = _texts(texts, members)
        members = {**without(members, parts), "name": before.name}
    cleared = replace(
        before,
        delegation_source=None,
        enforced_aud_for_access_token=None,
        enforced_aud_for_introspection=None,
        authorization_max_lifetime=0,
        texts=texts,
    )
    current = {before.name: cleared}
    scope = declare_scope(reader, members, current, case.registry.prefixes, case.now)
    if scope is not None:
        scope = dated(replace(scope, texts=texts), before, {}, case.now)
    return _judged(case, reader, scope, before)


def deactivate_scope(case: Case, name: str) -> Decision:
    """The scope, out of use from now on; who had access still has, should it come back."""
    before = case.own_scope(name)
    case.verify_unchanged(before)
    return case.decide(dated(replace(before, active=False), before, {}, case.now))


def _settable(data: Any) -> Any:
    members = without(data, _READ_ONLY)
    if isinstance(members, dict):
        for name in _EMPTY_IS_ABSENT:
            if members.get(name) == "":
                del members[name]
    return members


def _texts(texts: dict[str, str], members: dict[str, Any]) -> dict[str, str]:
    """Texts in other languages stay where a client that does not know them writes the scope."""
    given = {n: v for n, v in members.items() if n != "description" and SCOPE_TEXT.fullmatch(n)}
    merged = {**texts, **given}
    return {name: text for name, text in merged.items() if text is not None}


def _judged(
    case: Case, reader: Reader, scope: Scope | None, before: Scope | None = None
) -> Decision:
    known = {None, *case.registry.delegation_sources, before and before.delegation_source}
    if scope is not None and scope.delegation_source not in known:
        sentence = "is not the issuer of a delegation source; see /delegationsources"
        reader.fault("delegation_source", sentence)
    if scope is not None and not scope.description.strip():
        reader.fault("description", "must not be empty")
    verify_flawless(reader)
    if scope is None:
        raise InvalidInput((Fault("", "must be an object"),))
    return case.decide(scope)
