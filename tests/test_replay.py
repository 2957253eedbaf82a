"""Spent grants while the database is there, away, and back."""

import asyncio
import resource
import signal
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from maskinporten.errors import Reason, Refused, Unavailable
from maskinporten.metrics import Metrics
from maskinporten.replay import SpentGrants, WithoutDatabase
from maskinporten.spool import SLICE, Spool
from maskinporten.store import Spending
from maskinporten.store.sqlite import SqliteStore, open_sqlite
from tests.world import NOW, Clock


class Plug(SqliteStore):
    """A real store whose plug can be pulled."""

    pulled = False
    calls = 0

    async def spend_grants(self, grants: Sequence[Spending], now: int) -> frozenset[bytes]:
        """As the store does, unless the plug is pulled."""
        self.calls += 1
        if self.pulled:
            raise Unavailable("the plug is pulled")
        return await super().spend_grants(grants, now)


async def plugged(folder: Path) -> Plug:
    """A store in `folder`."""
    store = await open_sqlite(folder / "registry.db")
    await store.migrate()
    return Plug(store._writer, store._reader)


@pytest.fixture(autouse=True)
def _temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spools that no test names lie in the test's own folder, and go with it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture
def metrics() -> Iterator[Metrics]:
    """Counters of one worker."""
    made = Metrics(None, refusals=[], methods=[])
    yield made
    made.close()


def spending(
    store: Plug,
    metrics: Metrics,
    mode: WithoutDatabase = WithoutDatabase.LOCAL,
    clock: Clock | None = None,
    folder: Path | None = None,
) -> SpentGrants:
    """Spent grants over that store; workers of one node share `folder`."""
    spool = Spool(folder or Path(tempfile.mkdtemp(prefix="maskinporten-spool-")))
    return SpentGrants(store, clock or Clock(), metrics, spool, mode)


def key(number: int) -> bytes:
    """A name of a grant."""
    return bytes([number]) * 32


async def test_requests_that_come_together_share_an_insert(
    tmp_path: Path, metrics: Metrics
) -> None:
    """A hundred grants cost a handful of inserts (group commit)."""
    store = await plugged(tmp_path)
    spent = spending(store, metrics)

    await asyncio.gather(*(spent.spend(key(n), NOW + 60) for n in range(100)))

    assert store.calls <= 3
    await store.close()


async def test_without_the_database_a_worker_still_refuses_what_it_has_seen(
    tmp_path: Path, metrics: Metrics
) -> None:
    """Mode local: new grants pass, old ones do not, whether spent before or after the plug."""
    store = await plugged(tmp_path)
    spent = spending(store, metrics)
    await spent.spend(key(1), NOW + 60)
    store.pulled = True

    await spent.spend(key(2), NOW + 60)
    assert spent.away
    await spent.spend(key(3), NOW + 60)
    for number in (1, 2, 3):
        with pytest.raises(Refused) as refusal:
            await spent.spend(key(number), NOW + 60)
        assert refusal.value.reason is Reason.GRANT_SPENT
    await spent.close()
    await store.close()


async def test_what_was_accepted_meanwhile_is_written_when_the_database_returns(
    tmp_path: Path, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owed grants reach the database by themselves; another worker then refuses them."""
    monkeypatch.setattr("maskinporten.replay._PATIENCE", 0.02)
    store = await plugged(tmp_path)
    spent = spending(store, metrics)
    store.pulled = True
    await spent.spend(key(1), NOW + 60)
    await asyncio.sleep(0.05)
    store.pulled = False
    assert spent._mending is not None
    await asyncio.wait_for(spent._mending, 5)
    assert not spent.away

    with pytest.raises(Refused):
        await spending(store, metrics).spend(key(1), NOW + 60)
    await spent.spend(key(2), NOW + 60)
    await spent.close()
    await store.close()


async def test_under_refuse_nothing_is_spent_without_the_database(
    tmp_path: Path, metrics: Metrics
) -> None:
    """Mode refuse: 503, and the same grant may be sent again when the database is back."""
    store = await plugged(tmp_path)
    spent = spending(store, metrics, WithoutDatabase.REFUSE)
    store.pulled = True
    for _ in range(2):
        with pytest.raises(Unavailable):
            await spent.spend(key(1), NOW + 60)
    store.pulled = False
    await spent.close()

    await spending(store, metrics, WithoutDatabase.REFUSE).spend(key(1), NOW + 60)
    await store.close()


async def test_a_worker_forgets_what_has_expired(tmp_path: Path, metrics: Metrics) -> None:
    """Memory is bounded by the life of a grant."""
    store, clock = await plugged(tmp_path), Clock()
    spent = spending(store, metrics, clock=clock)
    await spent.spend(key(1), NOW + 10)
    clock.now = NOW + 10
    await spent.spend(key(2), NOW + 100)
    assert key(1) in spent._seen
    clock.now = NOW + 11
    await spent.spend(key(3), NOW + 100)
    assert key(1) not in spent._seen
    await store.close()


async def test_a_worker_forgets_what_has_expired_while_the_database_is_away(
    tmp_path: Path, metrics: Metrics
) -> None:
    """An outage of hours does not fill its memory, grant by grant."""
    store, clock = await plugged(tmp_path), Clock()
    spent = spending(store, metrics, clock=clock)
    store.pulled = True
    await spent.spend(key(1), NOW + 10)
    clock.now = NOW + 11
    await spent.spend(key(2), NOW + 100)

    remembered = set(spent._seen)
    await spent.close()
    await store.close()
    assert remembered == {key(2)}


async def test_two_workers_of_a_node_without_the_database_accept_a_grant_once(
    tmp_path: Path, metrics: Metrics
) -> None:
    """Whether it was spent before the plug was pulled, or after, by the one or the other."""
    store = await plugged(tmp_path)
    one, other = (spending(store, metrics, folder=tmp_path / "spool") for _ in range(2))
    await one.spend(key(1), NOW + 60)
    store.pulled = True

    await other.spend(key(2), NOW + 60)
    for worker, number in ((other, 1), (one, 2)):
        with pytest.raises(Refused):
            await worker.spend(key(number), NOW + 60)
    outcomes = await asyncio.gather(
        *(worker.spend(key(3), NOW + 60) for worker in (one, other)), return_exceptions=True
    )
    assert sum(outcome is None for outcome in outcomes) == 1
    await one.close()
    await other.close()
    await store.close()


async def test_the_database_away_for_one_worker_alone_gives_no_second_token(
    tmp_path: Path, metrics: Metrics
) -> None:
    """What one worker claimed, another that still reaches the database does not get."""
    cut, whole = await plugged(tmp_path), await plugged(tmp_path)
    one = spending(cut, metrics, folder=tmp_path / "spool")
    other = spending(whole, metrics, folder=tmp_path / "spool")
    cut.pulled = True
    await one.spend(key(1), NOW + 60)

    with pytest.raises(Refused):
        await other.spend(key(1), NOW + 60)
    await one.close()
    await cut.close()
    await whole.close()


async def test_what_a_dead_worker_owed_is_paid_by_the_next(
    tmp_path: Path, metrics: Metrics
) -> None:
    """A worker killed while the database is away takes nothing with it."""
    store = await plugged(tmp_path)
    store.pulled = True
    dead = spending(store, metrics, folder=tmp_path / "spool")
    await dead.spend(key(1), NOW + 60)
    await dead.close()
    store.pulled = False

    await spending(store, metrics, folder=tmp_path / "spool").recover()

    with pytest.raises(Refused):
        await spending(store, metrics).spend(key(1), NOW + 60)
    await store.close()


async def test_without_database_and_spool_nothing_is_spent(
    tmp_path: Path, metrics: Metrics
) -> None:
    """Where nobody can write a grant down it is not used up, and may be sent again."""
    store = await plugged(tmp_path)
    spent = spending(store, metrics, folder=tmp_path / "spool")
    store.pulled = True
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limit[1]))
    try:
        for _ in range(2):
            with pytest.raises(Unavailable):
                await spent.spend(key(1), NOW + 60)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, ignored)
    await spent.spend(key(1), NOW + 60)
    await spent.close()
    await store.close()


def test_the_spool_forgets_a_slice_after_the_next(tmp_path: Path) -> None:
    """A slice and those beside it lie on the disk; a torn record does not hide the others."""
    spool = Spool(tmp_path)
    spool.note([Spending(key(1), NOW + 60)], NOW)
    with (tmp_path / f"owed-{NOW // SLICE}").open("ab") as torn:
        torn.write(b"half")
    assert not spool.claim(Spending(key(1), NOW + 60), NOW)
    assert spool.claim(Spending(key(2), NOW + 60), NOW)
    assert [grant.key for grant in Spool(tmp_path).owed(NOW)] == [key(2)]

    later = NOW + 2 * SLICE
    assert spool.claim(Spending(key(1), later), later)
    numbers = {path.name for path in tmp_path.glob("*-*")}
    assert numbers == {f"{k}-{later // SLICE + n}" for k in ("spent", "owed") for n in (-1, 0, 1)}
    assert [grant.key for grant in spool.owed(later)] == [key(1)]
    spool.close()


def test_a_clock_that_is_set_back_forgets_nothing(tmp_path: Path) -> None:
    """Nor does a worker whose clock is a moment behind at the turn of a slice (attack 38)."""
    turn = NOW - NOW % SLICE + SLICE
    one, behind = Spool(tmp_path), Spool(tmp_path)
    assert behind.owed(turn - 1) == []
    assert one.claim(Spending(key(1), turn + 60), turn)

    for spool in (one, behind):
        assert not spool.claim(Spending(key(1), turn + 60), turn - 1)
        assert [grant.key for grant in spool.owed(turn - 1)] == [key(1)]
    assert behind.claim(Spending(key(2), turn + 60), turn - 1)
    assert not one.claim(Spending(key(2), turn + 60), turn)
    one.close()
    behind.close()
