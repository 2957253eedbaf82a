"""What a self-service decision is made on; and whose things are, in one place."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from heapq import merge
from itertools import groupby
from typing import Any, Final, NoReturn, TypeVar

import msgspec

from maskinporten.domain.client import Client, ClientId
from maskinporten.domain.members import Reader
from maskinporten.domain.registry import SHELVES, Change, Entity, Registry
from maskinporten.domain.scope import Prefix, Scope, ScopeName
from maskinporten.domain.selfservice.caller import SUPPLIER, Caller, Right
from maskinporten.errors import InvalidInput, Reason, Refused

MAX_OWNED: Final = 100_000  # things of a kind that an organisation makes; all lie in memory
T = TypeVar("T")
Sparse = Iterable[T | None]
"""A listing with a None for each thing that was looked at and does not belong there.

Whoever reads it can pause after so many things, however few of them are shown.
"""

_ENCODER: Final = msgspec.json.Encoder(order="deterministic")

_NOTHING: Final = Change(())


@dataclass(frozen=True, slots=True)
class Decision:
    """What the caller is shown, and what is to be written; nothing where all is so already."""

    shown: Any
    change: Change = _NOTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A caller before the registry as it is now. `if_match` holds entity tags, None: no demand."""

    caller: Caller
    registry: Registry
    now: int  # epoch seconds
    if_match: frozenset[str] | None = None

    def own_client(self, client_id: str, right: Right) -> Client:
        """The client of that id, if the caller may exercise the right on it.

        Own clients are those of the caller's organisation; a supplier's are those it made for
        others. Raises Refused: NOT_YOURS, for an unknown and for a foreign client alike.
        """
        client: Client | None = self.registry.clients.get(ClientId(client_id))
        if client is not None and self._owns(client, right):
            return client
        raise Refused(Reason.NOT_YOURS, client_id[:300], named=("client",))

    def own_scope(self, name: str) -> Scope:
        """The scope of that name, if its prefix is the caller's.

        Raises Refused: NOT_OWNER, for an unknown and for a foreign scope alike; NOT_YOURS, for a
        scope that is missing under a prefix of the caller's own.
        """
        scope: Scope | None = self.registry.scopes.get(ScopeName(name))
        if scope is not None and scope.owner_orgno == self.caller.orgno:
            return scope
        if name.split(":", 1)[0] in self.registry.prefixes_of(self.caller.orgno):
            raise Refused(Reason.NOT_YOURS, name[:300], named=("scope",))
        raise Refused(Reason.NOT_OWNER, name[:300], named=("scope",))

    def own_prefix(self, name: str) -> Prefix:
        """The prefix, if it is the caller's and in use. Raises Refused: NOT_OWNER."""
        prefix: Prefix | None = self.registry.prefixes.get(name)
        if prefix is not None and prefix.active and prefix.owner_orgno == self.caller.orgno:
            return prefix
        raise Refused(Reason.NOT_OWNER, name[:300], named=("prefix",))

    def own_clients(self, right: Right) -> Sparse[Client]:
        """The clients on which the caller may exercise the right, by name; see `Sparse`."""
        own = self.registry.names("clients", "client_orgno", self.caller.orgno)
        supplied = self.registry.names("clients", "supplier_orgno", self.caller.orgno)
        clients = (self.registry.clients[name] for name, _ in groupby(merge(own, supplied)))
        return (client if self._owns(client, right) else None for client in clients)

    def _owns(self, client: Client, right: Right) -> bool:
        if client.client_orgno == self.caller.orgno:
            return not self.caller.scopes.isdisjoint(set(right.scopes) - {SUPPLIER})
        return client.supplier_orgno == self.caller.orgno and SUPPLIER in self.caller.scopes

    def verify_unchanged(self, current: object) -> None:
        """Raises Refused: CHANGED_MEANWHILE, unless `If-Match` fits (RFC 9110 section 13.1.1)."""
        if self.if_match is not None and not self.if_match & {"*", entity_tag(current)}:
            raise Refused(Reason.CHANGED_MEANWHILE)

    def verify_room(self, shelf: str, member: str) -> None:
        """Raises Refused: STATE_CONFLICT, where the organisation has as much as it may make."""
        if len(self.registry.names(shelf, member, self.caller.orgno)) >= MAX_OWNED:
            conflict(f"An organisation has at most {MAX_OWNED} {shelf}, deactivated ones included")

    def decide(self, entity: Entity, shown: Any = None) -> Decision:
        """The decision to have the entity as it is given; shown as `shown`, or as it is."""
        shelf, name_of = SHELVES[type(entity)]
        standing = getattr(self.registry, shelf).get(name_of(entity))
        change = Change(() if standing == entity else (entity,))
        return Decision(entity if shown is None else shown, change)


def entity_tag(thing: object) -> str:
    """A strong validator: 32 hexadecimal digits that change with every change (RFC 9110 8.8.3)."""
    return hashlib.sha256(_ENCODER.encode(thing)).hexdigest()[:32]


def without(data: Any, names: Iterable[str]) -> Any:
    """The members of `data` that the caller may set; others are shown, and ignored when sent."""
    if not isinstance(data, Mapping):
        return data
    barred = frozenset(names)
    return {name: value for name, value in data.items() if name not in barred}


def verify_flawless(reader: Reader) -> None:
    """Raises InvalidInput with every fault that was found."""
    if reader.faults:
        raise InvalidInput(tuple(reader.faults))


def conflict(sentence: str) -> NoReturn:
    """Raises Refused: STATE_CONFLICT, with a constant sentence."""
    raise Refused(Reason.STATE_CONFLICT, named=(sentence,))
