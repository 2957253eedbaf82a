"""The registry as a value: the next version shares what did not change."""

import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskinporten.domain.client import ClientId
from maskinporten.domain.orgno import OrgNo, read_orgno
from maskinporten.domain.registry import Registry, Revision, Shelf
from maskinporten.domain.scope import Prefix
from tests.world import CONSUMER, PROVIDER, registry


@given(st.lists(st.lists(st.tuples(st.text(max_size=2), st.integers()), max_size=9), max_size=9))
def test_a_shelf_is_a_mapping_and_old_versions_stand_still(
    batches: list[list[tuple[str, int]]],
) -> None:
    """Against a dict, after every batch; no version ever changes."""
    shelf: Shelf[str, int] = Shelf()
    model: dict[str, int] = {}
    versions = [(shelf, dict(model))]
    for batch in batches:
        shelf = shelf.updated(batch)
        model.update(batch)
        versions.append((shelf, dict(model)))
    for version, expected in versions:
        assert dict(version.items()) == expected
        assert len(version) == len(expected)
        assert all(version[key] == value for key, value in expected.items())
        assert version.get("absent", 7) == expected.get("absent", 7)


def test_a_change_costs_what_changes() -> None:
    """Changing one entry of 200,000 takes a small share of building them."""
    began = time.perf_counter()
    shelf: Shelf[str, int] = Shelf[str, int]().updated((str(n), n) for n in range(200_000))
    built = time.perf_counter() - began
    began = time.perf_counter()
    for n in range(20):
        shelf.updated([(str(n), -n)])
    changed = (time.perf_counter() - began) / 20

    assert changed < built / 50


def test_nothing_new_is_the_same_shelf() -> None:
    """An empty change makes no version."""
    shelf: Shelf[str, int] = Shelf()

    assert shelf.updated([]) is shelf


def test_prefixes_of_an_organisation_are_the_active_ones_sorted() -> None:
    """For the consumer_prefix claim."""
    made = registry().with_entities(
        Revision(2),
        [
            Prefix(prefix="b", owner_orgno=CONSUMER),  # type: ignore[arg-type]
            Prefix(prefix="a", owner_orgno=CONSUMER),  # type: ignore[arg-type]
            Prefix(prefix="c", owner_orgno=CONSUMER, active=False),  # type: ignore[arg-type]
        ],
    )

    assert made.prefixes_of(CONSUMER) == ("a", "b")  # type: ignore[arg-type]
    assert made.prefixes_of(PROVIDER) == ("skatt",)  # type: ignore[arg-type]
    assert made.revision == 2
    assert Registry().prefixes_of(PROVIDER) == ()  # type: ignore[arg-type]


def test_names_by_owner_follow_every_change() -> None:
    """Found without a search: added, moved to another owner, and never twice."""
    made = [Prefix(prefix=f"p{n:02}", owner_orgno=read_orgno(PROVIDER)) for n in range(40)]
    all_names = tuple(prefix.prefix for prefix in made)
    registry = Registry().with_entities(Revision(1), reversed(made))
    moved = replace(made[3], owner_orgno=read_orgno(CONSUMER))

    after = registry.with_entities(Revision(2), [moved, moved, replace(made[4], active=False)])

    assert registry.names("prefixes") == after.names("prefixes") == all_names
    assert registry.names("prefixes", "owner_orgno", PROVIDER) == all_names
    assert after.names("prefixes", "owner_orgno", CONSUMER) == ("p03",)
    rest = tuple(name for name in all_names if name != "p03")
    assert after.names("prefixes", "owner_orgno", PROVIDER) == rest
    assert after.prefixes_of(read_orgno(PROVIDER)) == tuple(n for n in rest if n != "p04")
    assert after.names("prefixes", "owner_orgno", "nobody") == ()


def test_a_thing_written_twice_at_once_is_as_it_was_written_last() -> None:
    """Its name stands in the lists of the last version alone."""
    first = Prefix(prefix="a", owner_orgno=OrgNo(PROVIDER))
    second = Prefix(prefix="a", owner_orgno=OrgNo(CONSUMER))

    found = Registry().with_entities(Revision(1), [first, second])

    assert found.prefixes["a"] == second
    assert found.names("prefixes", "owner_orgno", PROVIDER) == ()
    assert found.names("prefixes", "owner_orgno", CONSUMER) == ("a",)


def test_a_client_is_unpacked_as_it_was_put_in() -> None:
    """Every member, whatever is in it."""
    clients = registry().clients

    for client in clients.values():
        again = Registry().with_entities(Revision(1), [client]).clients[client.client_id]
        assert again == client
        assert clients.get(client.client_id) == client
    assert clients.get(ClientId("nobody")) is None
    assert clients.get(ClientId("nobody"), 1) == 1
    with pytest.raises(KeyError):
        clients[ClientId("nobody")]
