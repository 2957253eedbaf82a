"""Prefixes: seen by their owners, given out and taken back by whoever runs the server."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from maskinporten.domain.declaration import dated, declare_prefix
from maskinporten.domain.members import Reader
from maskinporten.domain.orgno import OrgNo
from maskinporten.domain.registry import Change, Entity, Registry
from maskinporten.domain.scope import Prefix
from maskinporten.domain.selfservice.case import Case, Decision, conflict, verify_flawless, without
from maskinporten.domain.selfservice.scopes import names_under
from maskinporten.errors import Fault, InvalidInput, Reason, Refused

_READ_ONLY: Final = ("created", "last_updated", "organization_name")


def find_prefixes(case: Case, *, inactive: bool) -> Iterable[Prefix]:
    """The caller's own."""
    names = case.registry.names("prefixes", "owner_orgno", case.caller.orgno)
    return _in_use(case.registry, names, inactive=inactive)


def all_prefixes(registry: Registry, *, inactive: bool) -> Iterable[Prefix]:
    """Everybody's; who owns a prefix is public."""
    return _in_use(registry, registry.names("prefixes"), inactive=inactive)


def _in_use(registry: Registry, names: Iterable[str], *, inactive: bool) -> Iterable[Prefix]:
    prefixes = (registry.prefixes[name] for name in names)
    return (prefix for prefix in prefixes if prefix.active or inactive)


def give_prefix(case: Case, data: Any) -> Decision:
    """A new prefix for an organisation. Raises InvalidInput; Refused: STATE_CONFLICT."""
    name = data.get("prefix") if isinstance(data, dict) else None
    if isinstance(name, str) and name in case.registry.prefixes:
        conflict("The prefix has been given out; PUT it to change its owner")
    return _declared(case, data, {})


def change_prefix(case: Case, name: str, data: Any) -> Decision:
    """The prefix under another owner, whose its scopes become; with `active`, brought back.

    Raises InvalidInput; Refused: NOT_YOURS, CHANGED_MEANWHILE.
    """
    before = _prefix(case, name)
    case.verify_unchanged(before)
    if isinstance(data, dict):
        if data.get("prefix") not in (None, name):
            raise InvalidInput((Fault("prefix", "cannot be changed; it is in the address"),))
        kept = {"owner_orgno": before.owner_orgno, "active": before.active}
        given = {member: value for member, value in data.items() if value is not None}
        data = {**kept, **given, "prefix": name}
    decision = _declared(case, data, {name: before})
    owner = decision.shown.owner_orgno
    if owner == before.owner_orgno:
        return decision
    moved = tuple(_moved(case, name, owner))
    return Decision(decision.shown, Change((*decision.change.entities, *moved)))


def take_prefix(case: Case, name: str) -> Decision:
    """The prefix out of use: no scope can be made under it. Its scopes stay as they are."""
    before = _prefix(case, name)
    case.verify_unchanged(before)
    return case.decide(dated(replace(before, active=False), before, {}, case.now))


def _prefix(case: Case, name: str) -> Prefix:
    found: Prefix | None = case.registry.prefixes.get(name)
    if found is None:
        raise Refused(Reason.NOT_YOURS, name[:300], named=("prefix",))
    return found


def _declared(case: Case, data: Any, current: dict[str, Prefix]) -> Decision:
    reader = Reader("", tolerant=True)
    prefix = declare_prefix(reader, without(data, _READ_ONLY), current, case.now)
    verify_flawless(reader)
    if prefix is None:
        raise InvalidInput((Fault("", "must be an object"),))
    return case.decide(prefix)


def _moved(case: Case, prefix: str, owner: OrgNo) -> Iterable[Entity]:
    """The scopes under the prefix, and the accesses to them, in their new owner's name."""
    registry = case.registry
    for name in names_under(registry, prefix):
        scope = registry.scopes[name]
        yield dated(replace(scope, owner_orgno=owner), scope, {}, case.now)
        for key in registry.names("accesses", "scope", name):
            access = registry.accesses[key]
            yield dated(replace(access, owner_orgno=owner), access, {}, case.now)
