"""Everything Maskinporten has registered, as one value at one revision."""

from bisect import insort
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Final, Generic, NewType, Self, TypeVar

import msgspec

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

    @staticmethod
    def packed(value: Any) -> Any:
        """The form in which a value lies on the shelf."""
        return value

    def updated(self, entries: Iterable[tuple[K, Any]]) -> Self:
        """The next version, with these entries put in or replaced; each value as `packed`."""
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
        return type(self)(tuple(shards))


class ClientShelf(Shelf[ClientId, Client]):
    """Clients, each packed into one string of octets and unpacked when it is looked at.

    A million clients as objects would be a million things, and their members several more, that
    the garbage collector walks again and again; and take three times the memory. Unpacking one
    costs some three microseconds.
    """

    __slots__ = ()

    def __getitem__(self, key: ClientId) -> Client:
        return _CLIENTS.decode(super().__getitem__(key))  # type: ignore[arg-type]

    def get(self, key: ClientId, default: Any = None) -> Any:
        """As `dict.get`."""
        packed = super().get(key)
        return default if packed is None else _CLIENTS.decode(packed)

    @staticmethod
    def packed(value: Any) -> Any:
        """See `Shelf.packed`."""
        return _PACKER.encode(value)


_PACKER: Final = msgspec.msgpack.Encoder()
_CLIENTS: Final = msgspec.msgpack.Decoder(Client)


@dataclass(frozen=True, slots=True)
class Registry:
    """The whole registry at `revision`. A value: applying changes gives another one."""

    revision: Revision = Revision(0)
    prefixes: Shelf[str, Prefix] = field(default_factory=Shelf)
    scopes: Shelf[ScopeName, Scope] = field(default_factory=Shelf)
    accesses: Shelf[tuple[ScopeName, OrgNo], ScopeAccess] = field(default_factory=Shelf)
    clients: ClientShelf = field(default_factory=ClientShelf)
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
        """The registry after these entities were written; costs what is written.

        Each entity is let go of before the next is looked at, so that a whole registry can be read
        from a feed without ever standing there as objects.
        """
        written: dict[str, dict[Any, Any]] = defaultdict(dict)
        come: dict[tuple[str, str, Any], list[Any]] = defaultdict(list)
        gone: dict[tuple[str, str, Any], set[Any]] = defaultdict(set)
        rest = iter(entities)
        for entity in rest:
            shelf, key_of = SHELVES[type(entity)]
            name, standing = key_of(entity), getattr(self, shelf)
            if name in written[shelf]:
                # Written twice at once: the second is a change to what the first has made.
                first = self._with(revision, written, come, gone)
                return first.with_entities(revision, chain([entity], rest))
            written[shelf][name] = standing.packed(entity)
            tags, before = _tags(entity), _tags(standing.get(name))
            for tag in tags - before:
                come[shelf, *tag].append(name)
            for tag in before - tags:
                gone[shelf, *tag].add(name)
        return self._with(revision, written, come, gone)

    def _with(
        self,
        revision: Revision,
        written: Mapping[str, Mapping[Any, Any]],
        come: Mapping[tuple[str, str, Any], list[Any]],
        gone: Mapping[tuple[str, str, Any], set[Any]],
    ) -> "Registry":
        """The next registry, with the lists of names that are others now; most need none."""
        index = []
        for key in come.keys() | gone.keys():
            found, leaving = list(self.index.get(key, ())), gone.get(key)
            if leaving:
                found = [name for name in found if name not in leaving]
            index.append((key, _with_names(found, come.get(key, []))))
        shelves = {n: getattr(self, n).updated(some.items()) for n, some in written.items()}
        return replace(self, revision=revision, index=self.index.updated(index), **shelves)


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
