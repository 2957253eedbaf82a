"""The past from the audit trail: registries of earlier revisions, and who may read what."""

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maskinporten.administration import administer
from maskinporten.app import open_store
from maskinporten.audit import AuditEntry
from maskinporten.cli import main
from maskinporten.domain.explanation import explain
from maskinporten.domain.manifest import plan
from maskinporten.domain.registry import SHELVES, Registry, Revision
from maskinporten.domain.weighing import Question
from maskinporten.errors import InvalidInput
from maskinporten.history import entity_at, entry_members, find_moment, read_moment, registry_at
from maskinporten.replica import Replica
from maskinporten.store import AuditRecord, Store, rows
from tests.test_cli import database, written
from tests.world import CONSUMER, NOW, PROVIDER, STRANGER, SUPPLIER, Server, document

OPERATOR = {"kind": "operator"}


def denied(state: str) -> dict[str, Any]:
    """The access of the consumer to one scope, in that state."""
    access = {"scope": "skatt:inntekt.read", "consumer_orgno": CONSUMER, "state": state}
    return {"accesses": [access]}


STEPS: list[dict[str, Any]] = [
    document(),
    denied("DENIED"),
    {"clients": [{"client_id": "consumer", "client_orgno": CONSUMER, "active": False}]},
    {"scopes": [{"name": "skatt:inntekt.read", "at_max_age": 7, "description#en": "x"}]},
    {"clients": [{"client_id": "consumer", "client_orgno": CONSUMER, "active": True}]},
    denied("APPROVED"),
]


@pytest.fixture
def store(runner: asyncio.Runner, tmp_path: Path) -> Iterator[Store]:
    """An empty store, closed whatever happens."""
    made = runner.run(open_store(database(tmp_path)))
    runner.run(made.migrate())
    yield made
    runner.run(made.close())


async def played(store: Store) -> list[Registry]:
    """The registry after each step, beginning with the empty one."""
    replica = Replica(store, time.time)
    registries = [Registry()]
    for number, step in enumerate(STEPS):
        now = NOW + number
        await administer(store, replica, lambda r: plan(step, r, now), OPERATOR, "test", now)  # noqa: B023
        registries.append(replica.registry)
    return registries


async def test_every_entity_of_every_revision_comes_back_from_the_trail(store: Store) -> None:
    """Before and after images suffice: what is rebuilt is what was."""
    registries = await played(store)
    assert registries[-1].revision == len(STEPS)
    shelves = [shelf for shelf, _ in SHELVES.values() if shelf != "signing_keys"]
    labels = {
        "/".join(rows.identity(entity))
        for registry in registries
        for shelf in shelves
        for entity in getattr(registry, shelf).values()
    }

    for registry in registries:
        stood = {
            "/".join(rows.identity(entity)): entity
            for shelf in shelves
            for entity in getattr(registry, shelf).values()
        }
        for label in labels:
            assert await entity_at(store, registry.revision, label) == stood.get(label)


async def test_an_explanation_of_the_past_is_that_of_its_registry(store: Store) -> None:
    """The part that is rebuilt answers as the whole did."""
    registries = await played(store)
    questions = [
        Question(client_id="consumer", scope="skatt:inntekt.read skatt:open"),
        Question(client_id="vendor", scope="skatt:delegert", consumer_org=CONSUMER),
        Question(client_id="nobody", scope="skatt:kort", iss_onbehalfof="x"),
    ]
    seen = set()
    for question in questions:
        for registry in registries:
            rebuilt = await registry_at(store, question, registry.revision)
            told = explain(question, rebuilt, NOW)
            assert told == explain(question, registry, NOW)
            seen.add(told.reason)
    assert len(seen) == 3


async def test_a_moment_is_a_revision_or_a_time(server: Server) -> None:
    """Both give the revision in force and the time at which keys are weighed."""
    store, current = server.services.store, server.services.replica.registry.revision

    assert await find_moment(store, "0", current, NOW) == (0, NOW)
    assert await find_moment(store, str(current), current, NOW + 5) == (current, NOW)
    assert await find_moment(store, "2027-01-15T08:00:03Z", current, NOW + 5) == (current, NOW + 3)
    assert await find_moment(store, "1970-01-01T00:00:00Z", current, NOW) == (0, 0)


@pytest.mark.parametrize(
    "at", ["", "x", "-1", "99999999999999999999999", "2027-01-15", "9999-01-01T00:00:00Z", "²",
           "2027-01-15T08:00:01Z", "1969-12-31T23:59:59Z"],
)  # fmt: skip
async def test_no_moment(server: Server, at: str) -> None:
    """A sentence, whatever it is."""
    with pytest.raises(InvalidInput) as invalid:
        await find_moment(server.services.store, at, Revision(9), NOW)
    assert invalid.value.faults[0].path == "at"


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(max_size=40))
def test_any_text_is_a_moment_or_a_sentence(at: str) -> None:
    """No text breaks it."""
    with suppress(InvalidInput):
        revision, seconds = read_moment(at, Revision(5), NOW)
        assert (revision is None) is not (seconds is None)


def record(caller: dict[str, str]) -> AuditRecord:
    """One commit about two organisations' things."""
    images = {
        "client/mine": {"client_orgno": CONSUMER},
        "client/supplied": {"client_orgno": STRANGER, "supplier_orgno": CONSUMER},
        "client/theirs": {"client_orgno": SUPPLIER},
        "access/s c": {"owner_orgno": PROVIDER, "consumer_orgno": CONSUMER},
        "scope/s": {"owner_orgno": PROVIDER},
    }
    entry = AuditEntry(at=NOW, caller=caller, command="x", before=images, after=images)
    return AuditRecord(Revision(3), entry)


def test_an_organisation_reads_its_own_part_of_an_entry() -> None:
    """One commit by the operator touches many; each sees its own (attack 30)."""
    caller = {"kind": "client", "client_id": "c", "orgno": PROVIDER, "token_jti": "j"}
    own = entry_members(record(caller), CONSUMER)  # type: ignore[arg-type]

    assert set(own["before"]) == set(own["after"]) == {
        "client/mine", "client/supplied", "access/s c",
    }  # fmt: skip
    assert own["caller"] == {"kind": "client", "orgno": PROVIDER}
    provider = entry_members(record(caller), PROVIDER)  # type: ignore[arg-type]
    assert set(provider["after"]) == {"access/s c", "scope/s"}
    assert provider["caller"] == caller
    assert len(entry_members(record(caller))["after"]) == 5


def test_what_was_an_organisations_once_is_shown_to_it_with_what_became_of_it() -> None:
    """An entity that changes hands: both see the change."""
    before, after = {"client_orgno": CONSUMER}, {"client_orgno": SUPPLIER}
    entry = AuditEntry(at=NOW, caller=OPERATOR, command="x", before={"client/c": before},
                       after={"client/c": after})  # fmt: skip
    shown = entry_members(AuditRecord(Revision(1), entry), CONSUMER)  # type: ignore[arg-type]

    assert (shown["before"], shown["after"]) == ({"client/c": before}, {"client/c": after})


def test_explain_and_audit_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As an operator uses them: what is wrong, since when, who did it."""
    url = database(tmp_path)

    def said(*command: str, code: int = 0) -> str:
        assert main([*command, "--database", url]) == code
        out, err = capsys.readouterr()
        return err if code else out

    for name, step in (("1.json", document()), ("2.json", denied("DENIED"))):
        said("apply", written(tmp_path, step, name))
    asked = ("explain", "--client", "consumer", "--scope", "skatt:inntekt.read")

    refused = said(*asked)
    assert refused.startswith("refused: MP-250 SCOPE_NOT_GRANTED: "), refused
    assert "  FAILS   skatt:inntekt.read: is open to the consumer. " in refused
    assert f"-> give {CONSUMER} access to the scope: the scope's owner, {PROVIDER}" in refused
    granted = said(*asked, "--at", "1")
    assert granted.startswith(f"granted: a token for {CONSUMER}\nat revision 1, ")
    told = json.loads(said(*asked, "--json"))
    assert (told["code"], told["revision"]) == ("MP-250", 2)
    assert "at: must be a revision" in said(*asked, "--at", "yesterday", code=1)

    lines = [json.loads(line) for line in said("audit").splitlines()]
    assert [line["revision"] for line in lines] == [2, 1]
    label = f"access/skatt:inntekt.read {CONSUMER}"
    assert lines[0]["caller"] == OPERATOR
    assert (lines[0]["before"][label]["state"], lines[0]["after"][label]["state"]) == (
        "APPROVED", "DENIED",
    )  # fmt: skip
    of = said("audit", "--org", SUPPLIER, "--limit", "1")
    assert [json.loads(line)["revision"] for line in of.splitlines()] == [1]
    old = said("audit", "--before", "2", "--entity", label)
    assert [json.loads(line)["revision"] for line in old.splitlines()] == [1]
    for wrong_option in (("--org", "1"), ("--limit", "-1"), ("--before", "-1")):
        said("audit", *wrong_option, code=1)
