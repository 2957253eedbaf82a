"""Everything Maskinporten has registered, as one value at one revision."""

from bisect import insort
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Generic, NewType, TypeVar

from maskinporten.domain.client import Client, ClientId
from maskinporten.domain.orgno import OrgNo
from maskinporten.domain.scope import (
    DelegationSource,
    Organization,
    Prefix,
    Scope,
    ScopeAccess,
    ScopeName,
)
from maskinporten.domain.signing import SealedKey, SigningRequest
from maskinporten.errors import Reason, Refused

Revision = NewType("Revision", int)
"""Counts the commits; 0 is the empty registry."""

Entity = (
    Prefix | Scope | ScopeAccess | Client | DelegationSource | Organization | SealedKey
    | SigningRequest
)  # fmt: skip
"""What the registry is made of. Nothing is ever deleted; things are deactivated."""

_SHARDS: Final = 512

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Shelf(Mapping[K, V], Generic[K, V]):
    """An immutable mapping whose next version costs what changed, not what it holds.

    The entries lie in a fixed number of dicts by the hash of their key. A new version copies the
    dicts it changes (one in 512) and shares the others, so that a change to one client among a
    million takes microseconds and the version a request holds never moves under it.
    """

    __slots__ = ("_shards",)

    def __init__(self, shards: tuple[dict[K, V], ...] = ({},) * _SHARDS) -> None:
        self._shards = shards

    def __getitem__(self, key: K) -> V:
        return self._shards[hash(key) % _SHARDS][key]

    def __iter__(self) -> Iterator[K]:
        for shard in self._shards:
            yield from shard

    def __len__(self) -> int:
        return sum(map(len, self._shards))

    def get(self, key: K, default: Any = None) -> Any:
        """As `dict.get`."""
        return self._shards[hash(key) % _SHARDS].get(key, default)

    def updated(self, entries: Iterable[tuple[K, V]]) -> "Shelf[K, V]":
        """The next version, with these entries put in or replaced."""
        touched: dict[int, dict[K, V]] = {}
        for key, value in entries:
            number = hash(key) % _SHARDS
            if number not in touched:
                touched[number] = self._shards[number].copy()
            touched[number][key] = value
        if not touched:
            return self
        shards = list(self._shards)
        for number, shard in touched.items():
            shards[number] = shard
        return Shelf(tuple(shards))


@dataclass(frozen=True, slots=True)
class Registry:
    """The whole registry at `revision`. A value: applying changes gives another one."""

    revision: Revision = Revision(0)
    prefixes: Shelf[str, Prefix] = field(default_factory=Shelf)
    scopes: Shelf[ScopeName, Scope] = field(default_factory=Shelf)
    accesses: Shelf[tuple[ScopeName, OrgNo], ScopeAccess] = field(default_factory=Shelf)
    clients: Shelf[ClientId, Client] = field(default_factory=Shelf)
    delegation_sources: Shelf[str, DelegationSource] = field(default_factory=Shelf)
    organizations: Shelf[OrgNo, Organization] = field(default_factory=Shelf)
    signing_keys: Shelf[str, SealedKey] = field(default_factory=Shelf)
    signing_requests: Shelf[str, SigningRequest] = field(default_factory=Shelf)
    index: Shelf[tuple[str, str, Any], tuple[Any, ...]] = field(default_factory=Shelf)

    def names(self, shelf: str, member: str = "", value: Any = "") -> tuple[Any, ...]:
        """The names, sorted, of what on that shelf has that value; found without a search.

        Members: see `TAGS`. Without one, everything on the shelf (scopes and prefixes only).
        """
        found: tuple[Any, ...] = self.index.get((shelf, member, value), ())
        return found

    def client(self, client_id: ClientId) -> Client:
        """The active client of that id. Raises Refused: CLIENT_UNKNOWN."""
        client: Client | None = self.clients.get(client_id)
        if client is None or not client.active:
            raise Refused(Reason.CLIENT_UNKNOWN, repr(client_id)[:300])
        return client

    def prefixes_of(self, orgno: OrgNo) -> tuple[str, ...]:
        """The active prefixes an organisation owns, sorted."""
        owned = self.names("prefixes", "owner_orgno", orgno)
        return tuple(name for name in owned if self.prefixes[name].active)

    def with_entities(self, revision: Revision, entities: Iterable[Entity]) -> "Registry":
        """The registry after these entities were written; costs what is written."""
        changes: dict[str, dict[Any, Entity]] = defaultdict(dict)
        for entity in entities:
            shelf, key_of = SHELVES[type(entity)]
            changes[shelf][key_of(entity)] = entity
        shelves = {n: getattr(self, n).updated(found.items()) for n, found in changes.items()}
        index = self.index.updated(self._reindexed(changes))
        return replace(self, revision=revision, index=index, **shelves)

    def _reindexed(
        self, changes: Mapping[str, Mapping[Any, Entity]]
    ) -> Iterator[tuple[tuple[str, str, Any], tuple[Any, ...]]]:
        """The lists of names that become others; most changes touch none."""
        come: dict[tuple[str, str, Any], list[Any]] = defaultdict(list)
        gone: dict[tuple[str, str, Any], set[Any]] = defaultdict(set)
        for shelf, written in changes.items():
            standing = getattr(self, shelf)
            for name, entity in written.items():
                replaced = standing.get(name)
                tags, before = _tags(entity), _tags(replaced)
                for tag in tags - before:
                    come[shelf, *tag].append(name)
                for tag in before - tags:
                    gone[shelf, *tag].add(name)
        for key in come.keys() | gone.keys():
            found, leaving = list(self.index.get(key, ())), gone.get(key)
            if leaving:
                found = [name for name in found if name not in leaving]
            yield key, _with_names(found, come.get(key, []))


@dataclass(frozen=True, slots=True)
class Change:
    """Entities to be written as one revision: all of them or none."""

    entities: tuple[Entity, ...]


SHELVES: Final[Mapping[type, tuple[str, Callable[[Any], Any]]]] = {
    Prefix: ("prefixes", lambda prefix: prefix.prefix),
    Scope: ("scopes", lambda scope: scope.name),
    ScopeAccess: ("accesses", lambda access: (access.scope, access.consumer_orgno)),
    Client: ("clients", lambda client: client.client_id),
    DelegationSource: ("delegation_sources", lambda source: source.issuer),
    Organization: ("organizations", lambda organization: organization.orgnr),
    SealedKey: ("signing_keys", lambda key: key.kid),
    SigningRequest: ("signing_requests", lambda request: request.kid),
}
"""For each kind of entity: the shelf it stands on, and what it is called there."""

TAGS: Final[Mapping[type, tuple[str, ...]]] = {
    Prefix: ("owner_orgno", ""),
    Scope: ("owner_orgno", "accessible_for_all", ""),
    ScopeAccess: ("owner_orgno", "consumer_orgno", "scope"),
    Client: ("client_orgno", "supplier_orgno"),
}
"""By which members each kind of entity can be found without a search; "" stands for all of them."""

_FEW: Final = 16  # names that are put in their places one by one


def _tags(entity: Entity | None) -> frozenset[tuple[str, Any]]:
    members = TAGS.get(type(entity), ())
    values = ((m, getattr(entity, m) if m else "") for m in members)
    return frozenset((m, value) for m, value in values if value not in {None, False})


def _with_names(names: list[Any], further: list[Any]) -> tuple[Any, ...]:
    if len(further) <= _FEW:
        for name in further:
            insort(names, name)
    else:
        names.extend(further)
        names.sort()
    return tuple(names)
