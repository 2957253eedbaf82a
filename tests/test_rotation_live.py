"""Rotation, watched by other people's validators: under load, and killed in the middle."""

import asyncio
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import httpx
import jwt
import pytest
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import KeySet
from jwcrypto.jwk import JWKSet  # type: ignore[import-untyped]
from jwcrypto.jwt import JWT  # type: ignore[import-untyped]

from maskinporten.app import open_store
from maskinporten.domain.registry import Registry, Revision
from maskinporten.domain.rotation import DAY, HOUR, SETTLE, RotationPolicy, next_step
from maskinporten.domain.signing import PUBLISHED, SealedKey, Stage
from maskinporten.validator import Policy, TrustedIssuer, Validator
from tests.moving import FOLDER, tell
from tests.test_cli import (
    DEADLINE,
    database,
    environ,
    free_port,
    run,
    serving,
    wait_until_ready,
    written,
)
from tests.world import CONSUMER, NOW, Clock, assertion, client, document, form

ROOT: Final = Path(__file__).parent.parent
CLIENTS: Final = [f"c{n}" for n in range(4)]
# As tight as is allowed: a provider that keeps /jwk for a day has a minute to spare.
POLICY: Final = RotationPolicy(
    period=DAY + SETTLE + 6 * HOUR,
    lead=DAY + SETTLE,
    cache=DAY,
    margin=SETTLE,
    canary=(50,),
    ramp=6 * HOUR,
)
SETTINGS: Final = {
    "ROTATION_PERIOD": str(POLICY.period),
    "ROTATION_LEAD": str(POLICY.lead),
    "ROTATION_CACHE": str(POLICY.cache),
    "ROTATION_MARGIN": str(POLICY.margin),
    "ROTATION_CANARY": "50",
    "ROTATION_CANARY_TIME": str(POLICY.ramp),
    "SIGNING_KEY_BITS": "2048",
    "MAX_STALENESS": "0",  # a jump of the clock makes every registry look old for a moment
}


@contextmanager
def moving(what: str, folder: Path, **settings: str) -> Iterator["subprocess.Popen[str]"]:
    """A process of `tests.moving`, in a group of its own, of which nothing is left at the end."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.moving", what],
        cwd=folder,
        env={**environ(**settings), FOLDER: str(folder), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if what == "rotate" else subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            os.killpg(process.pid, signal.SIGKILL)


def signing_keys(url: str) -> list[SealedKey]:
    """The keys in the database."""

    async def read() -> Registry:
        store = await open_store(url)
        await store.migrate()
        revision, entities = await store.changes_since(Revision(0))
        await store.close()
        return Registry().with_entities(revision, entities)

    return list(asyncio.run(read()).signing_keys.values())


Verify = Callable[[str], object]


def validators(issuer: str, clock: Clock, stack: ExitStack) -> dict[str, Verify]:
    """Providers, each of which keeps /jwk for a day and does not look again before.

    Nothing is said of times in tokens here: only whether the key is known and the signature holds.
    """
    url = issuer + "jwk"
    pyjwt = jwt.PyJWKClient(url, lifespan=DAY, cooldown_duration=2 * DAY)
    options: Any = {"verify_exp": False, "verify_iat": False}

    def by_pyjwt(token: str) -> object:
        key = pyjwt.get_signing_key_from_jwt(token)
        return jwt.decode(token, key, algorithms=["RS256"], options=options)

    def kept(read: Callable[[str], Any]) -> Callable[[], Any]:
        """A cache as people write it themselves, with conditional requests."""
        http = stack.enter_context(httpx.Client(timeout=60))
        held: dict[str, Any] = {"at": -inf, "tag": ""}

        def keys() -> Any:
            if clock() - held["at"] >= DAY:
                at = clock()
                answer = http.get(url, headers={"if-none-match": held["tag"]})
                if answer.status_code != httpx.codes.NOT_MODIFIED:
                    held.update(keys=read(answer.text), tag=answer.headers["etag"])
                held["at"] = at
            return held["keys"]

        return keys

    joserfc_keys = kept(lambda text: KeySet.import_key_set(json.loads(text)))
    jwcrypto_keys = kept(JWKSet.from_json)

    def by_jwcrypto(token: str) -> object:
        read = JWT(algs=["RS256"])
        read.leeway = 10**10
        return read.deserialize(token, jwcrypto_keys())

    # Ours renews beside its callers, so it may use a copy for one movement of the clock longer.
    policy = Policy(cache_for=DAY / 2, cool_down=DAY / 2, timeout=60)
    ours = Validator([TrustedIssuer(issuer)], policy=policy, monotonic=clock)
    stack.callback(ours.close)

    def by_ours(token: str) -> object:
        claims = jwt.decode(token, options={"verify_signature": False})
        return ours.validate(token, scope="skatt:open", now=claims["iat"])

    return {
        "PyJWT": by_pyjwt,
        "joserfc": lambda token: joserfc_jwt.decode(token, joserfc_keys(), algorithms=["RS256"]),
        "jwcrypto": by_jwcrypto,
        "maskinporten.validator": by_ours,
    }


class Load:
    """Clients that fetch tokens without end, and providers that validate each of them twice."""

    def __init__(self, issuer: str, clock: Clock) -> None:
        self.issuer, self.clock = issuer, clock
        self.stop = threading.Event()
        self.validated: Counter[str] = Counter()
        self.kids: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.failures: list[tuple[str, str]] = []

    def run(self, number: int) -> None:
        """One thread of it: its own clients, and providers with copies of their own."""
        alive: list[tuple[float, str]] = []  # tokens and when they die
        with ExitStack() as stack, httpx.Client(timeout=60) as http:
            verifiers = validators(self.issuer, self.clock, stack)
            while not self.stop.is_set():
                now = int(self.clock())
                grant = assertion(
                    CLIENTS[(number + self.statuses.total()) % len(CLIENTS)],
                    scope="skatt:open", aud=self.issuer, iat=now, exp=now + 110,
                )  # fmt: skip
                answer = http.post(f"{self.issuer}token", data=form(grant))
                self.statuses[answer.status_code] += 1
                if answer.is_success:
                    token = answer.json()["access_token"]
                    self.kids[jwt.get_unverified_header(token)["kid"]] += 1
                    self.validate(verifiers, token)
                    alive.append((now + DAY, token))
                alive = [one for one in alive if self.clock() < one[0]]
                for _, old in alive[:1] + random.sample(alive, min(2, len(alive))):
                    self.validate(verifiers, old)
                time.sleep(0.005)

    def validate(self, verifiers: dict[str, Verify], token: str) -> None:
        """By all of them; whatever goes wrong is a failure."""
        for name, verify in verifiers.items():
            self.validated[name] += 1
            try:
                verify(token)
            except Exception as fault:  # noqa: BLE001 - libraries raise what they like
                self.failures.append((name, repr(fault)))


def settle(folder: Path, clock: Clock) -> list[SealedKey]:
    """Wait until every step is taken and both workers have seen it; the keys."""
    deadline = time.monotonic() + DEADLINE
    while True:
        with closing(sqlite3.connect(folder / "registry.db")) as db:
            (revision,) = db.execute("SELECT n FROM revision").fetchone()
        keys = signing_keys(database(folder))
        seen = [path.read_text() for path in folder.glob("seen-*")]
        due = next_step(keys, POLICY, int(clock()))
        if due is None and seen == [str(revision)] * 2:
            return keys
        assert time.monotonic() < deadline, (due, seen, revision)
        time.sleep(0.02)


def test_ten_rotations_under_load_fail_no_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two worker processes, canary and all; providers keep /jwk as long as they may.

    The clock moves by hours at a time, so that a day's cache ends while the test looks on.
    """
    clock = Clock(NOW)
    tell(tmp_path, clock.now)
    kept = SimpleNamespace(monotonic=clock, time=clock)
    monkeypatch.setattr("jwt.jwk_set_cache.time", kept)
    monkeypatch.setattr("jwt.jwks_client.time", kept)
    monkeypatch.setattr("jwt.api_jwk.time", kept)
    port = free_port()
    issuer = f"http://127.0.0.1:{port}/"
    settings = serving(tmp_path, ISSUER=issuer, PORT=str(port), WORKERS="2", **SETTINGS)
    world = document()
    world["clients"] = [
        client(name, CONSUMER, "skatt:open", access_token_lifetime=DAY) for name in CLIENTS
    ]
    applied = run("apply", written(tmp_path, world), DATABASE_URL=database(tmp_path))
    assert applied.returncode == 0, applied.stderr
    with moving("serve", tmp_path, **settings):
        wait_until_ready(issuer)
        settle(tmp_path, clock)
        load = Load(issuer, clock)
        threads = [threading.Thread(target=load.run, args=[number]) for number in range(2)]
        for thread in threads:
            thread.start()
        try:
            rotations = 0
            while rotations < 10:
                # Providers look at the clock first, so that none keeps its copy for too long.
                clock.now += random.randint(HOUR, 8 * HOUR)  # noqa: S311
                tell(tmp_path, clock.now)
                keys = settle(tmp_path, clock)
                rotations = sum(key.activated > 0 for key in keys) - 1
                seen = load.statuses.total()
                while load.statuses.total() < seen + 4 and not load.failures:
                    time.sleep(0.005)
        finally:
            load.stop.set()
            for thread in threads:
                thread.join()

    assert not load.failures
    assert set(load.statuses) <= {200, 400}  # 400: the clock moved while a grant was on its way
    assert load.statuses[200] > load.statuses.total() / 2
    assert len(load.kids) >= 10
    assert set(load.validated) == {"PyJWT", "joserfc", "jwcrypto", "maskinporten.validator"}
    assert min(load.validated.values()) > 100
    assert any(key.stage is Stage.REMOVED for key in keys)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh database of each kind."""
    if request.param == "sqlite":
        return database(tmp_path)
    found: str = request.getfixturevalue("postgres_url")
    return found


def test_kill_9_in_the_middle_of_any_step_leaves_a_consistent_set(tmp_path: Path, url: str) -> None:
    """A process that does nothing but rotate, killed at moments of chance, and started again.

    What it left is looked at each time: one key signs, what is published has its private half, what
    is removed has none; and the process that goes on with it opens them all and puts a spare there.
    """
    tell(tmp_path, NOW)
    settings = {**serving(tmp_path, **SETTINGS), "DATABASE_URL": url}
    acts: Counter[str] = Counter()
    for number in range(6):
        with moving("rotate", tmp_path, **settings) as process:
            assert process.stdout is not None
            shown = process.stdout.readline()
            assert shown == "begins\n", process.communicate(timeout=DEADLINE)
            for _ in range(0 if number == 0 else random.randint(1, 6)):  # noqa: S311
                acts[process.stdout.readline().strip()] += 1
            time.sleep(random.uniform(0, 0.25))  # noqa: S311
            assert process.poll() is None, process.communicate(timeout=DEADLINE)
        keys = signing_keys(url)
        stages = Counter(key.stage for key in keys)
        assert stages[Stage.ACTIVE] == (1 if keys else 0), stages
        assert all(bool(key.sealed) == (key.stage in PUBLISHED) for key in keys)
        assert not keys or stages[Stage.PREPARED] or stages[Stage.RETIRED], stages
    checked = run("check", **settings)
    assert checked.returncode == 0, checked.stderr
    stages = Counter(key.stage for key in signing_keys(url))
    assert (stages[Stage.ACTIVE], stages[Stage.PREPARED] >= 1) == (1, True)
    assert set(acts) - {""} >= {"prepare", "activate"}


def test_kill_9_of_a_server_that_rotates_under_load_loses_no_key(tmp_path: Path) -> None:
    """Both workers at once, at moments of chance after a step is due; tokens survive it."""
    tell(tmp_path, NOW)
    clock = Clock(NOW)
    port = free_port()
    issuer = f"http://127.0.0.1:{port}/"
    settings = serving(tmp_path, ISSUER=issuer, PORT=str(port), WORKERS="2", **SETTINGS)
    world = document()
    world["clients"] = [client("c", CONSUMER, "skatt:open", access_token_lifetime=DAY)]
    applied = run("apply", written(tmp_path, world), DATABASE_URL=database(tmp_path))
    assert applied.returncode == 0, applied.stderr
    tokens: list[tuple[float, str]] = []
    for _ in range(4):
        for path in tmp_path.glob("seen-*"):
            path.unlink()
        with moving("serve", tmp_path, **settings):
            wait_until_ready(issuer)
            settle(tmp_path, clock)
            key_set = KeySet.import_key_set(httpx.get(f"{issuer}jwk").json())
            for until, token in tokens:
                if clock() < until:
                    joserfc_jwt.decode(token, key_set, algorithms=["RS256"])
            now = int(clock())
            grant = assertion("c", scope="skatt:open", aud=issuer, iat=now, exp=now + 110)
            answer = httpx.post(f"{issuer}token", data=form(grant), timeout=60)
            tokens.append((now + DAY, answer.json()["access_token"]))
            clock.now += POLICY.period / 2
            tell(tmp_path, clock.now)
            time.sleep(random.choice([0, 0.1, 0.2, 0.3, 0.4]))  # noqa: S311
        stages = Counter(key.stage for key in signing_keys(database(tmp_path)))
        assert stages[Stage.ACTIVE] == 1, stages
    assert sum(key.activated > 0 for key in signing_keys(database(tmp_path))) >= 2
