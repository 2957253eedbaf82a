"""kill -9 in the middle of each step by hand: all of it or nothing, and the keys still open."""

import asyncio
import base64
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg

from maskinporten import pki
from maskinporten.app import open_store
from maskinporten.domain.registry import Registry
from maskinporten.domain.rotation import RotationPolicy, next_step
from maskinporten.domain.signing import SealedKey, SigningRequest, Stage
from maskinporten.keyring import Keyring
from tests.test_cli import DEADLINE, KEY, environ, run, serving
from tests.test_keys import issued, keys
from tests.world import ISSUER

OTHER = base64.b64encode(bytes(range(32))).decode()
LOG_HEADER = 32  # octets of a log in which nothing is written yet


def seen(settings: dict[str, str]) -> Registry:
    """The registry as another process finds it."""

    async def read() -> Registry:
        store = await open_store(settings["DATABASE_URL"])
        revision, entities = await store.changes_since(Registry().revision)
        await store.close()
        return Registry().with_entities(revision, entities)

    return asyncio.run(read())


def sound(registry: Registry) -> str:
    """One key signs, a spare waits, each opens, and no rule sees anything to repair."""
    found: list[SealedKey] = list(registry.signing_keys.values())
    stages = [key.stage for key in found]
    assert stages.count(Stage.ACTIVE) == 1
    assert Stage.PREPARED in stages
    old, new = base64.b64decode(KEY), base64.b64decode(OTHER)
    policy, now = RotationPolicy(), int(time.time())
    keyring = Keyring(new, ISSUER, policy, time.time, old)
    keyring.load(registry)
    held: list[SealedKey | SigningRequest] = [*found, *registry.signing_requests.values()]
    for key in held:
        if key.sealed:
            keyring.private_key(key)
    assert next_step(found, policy, now) is None
    rows = sorted((k.kid, k.stage, k.sealed) for k in found)
    return json.dumps([registry.revision, rows, sorted(registry.signing_requests)])


@contextlib.contextmanager
def stepping(settings: dict[str, str], *step: str) -> Iterator["subprocess.Popen[bytes]"]:
    """The command, and at the end its violent death."""
    command = [sys.executable, "-m", "maskinporten", "keys", *step]
    nothing = subprocess.DEVNULL
    with subprocess.Popen(
        command, env=environ(**settings), stdout=nothing, stderr=nothing
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def steps(folder: Path, settings: dict[str, str]) -> list[tuple[dict[str, str], list[str]]]:
    """Every step that writes, with its settings; a request that was answered lies ready."""
    assert run("check", **settings).returncode == 0
    keys("csr", "--out", str(folder / "request.pem"), **settings)
    chain = issued(folder / "request.pem", int(time.time()))
    (folder / "answer.pem").write_bytes(pki.chain_pem(*chain))
    (active,) = (k.kid for k in seen(settings).signing_keys.values() if k.stage is Stage.ACTIVE)
    both = {**settings, "KEY_ENCRYPTION_KEY": OTHER, "KEY_ENCRYPTION_KEY_PREVIOUS": KEY}
    return [
        (settings, ["prepare"]),
        (settings, ["rotate", "--yes"]),
        (settings, ["retire", "--yes", "--", active]),
        (settings, ["revoke", "--yes", "--", active]),
        (settings, ["csr", "--out", str(folder / "second.pem")]),
        (settings, ["import", str(folder / "answer.pem")]),
        (both, ["rewrap"]),
    ]


def test_killed_in_the_middle_of_a_transaction(
    tmp_path: Path, postgres_url: str, runner: asyncio.Runner
) -> None:
    """PostgreSQL: the keys are written, the audit is not; nothing of it is ever seen."""
    settings = serving(tmp_path, DATABASE_URL=postgres_url)
    every = steps(tmp_path, settings)
    before = sound(seen(settings))

    async def kill_at_the_audit(chosen: dict[str, str], step: list[str]) -> None:
        holder = await asyncpg.connect(postgres_url)
        watcher = await asyncpg.connect(postgres_url)
        try:
            async with holder.transaction():
                await holder.execute("LOCK TABLE audit IN SHARE ROW EXCLUSIVE MODE")
                with stepping(chosen, *step) as process:
                    deadline = time.monotonic() + DEADLINE
                    waiting = (
                        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                        "AND wait_event_type = 'Lock' AND query LIKE '%audit%'"
                    )
                    while not await watcher.fetchval(waiting):
                        assert process.poll() is None, step
                        assert time.monotonic() < deadline
                        await asyncio.sleep(0.02)
        finally:
            await holder.close()
            await watcher.close()

    for chosen, step in every:
        runner.run(kill_at_the_audit(chosen, step))
        assert sound(seen(settings)) == before, step
    keys("rotate", "--yes", **settings)
    assert sound(seen(settings)) != before


def test_killed_while_the_file_is_written(tmp_path: Path) -> None:
    """SQLite: as soon as the log grows. The step was taken whole, or not at all."""
    folder = tmp_path / "machine"
    folder.mkdir()
    settings = serving(folder)
    for number, (chosen, step) in enumerate(steps(folder, settings)):
        copy = tmp_path / str(number)
        shutil.copytree(folder, copy)
        database = f"sqlite:///{copy / 'registry.db'}"
        _kill_at_the_log(copy, {**chosen, "DATABASE_URL": database}, step)


def _kill_at_the_log(folder: Path, settings: dict[str, str], step: list[str]) -> None:
    before = sound(seen(settings))
    log = folder / "registry.db-wal"
    with stepping(settings, *step) as process:
        deadline = time.monotonic() + DEADLINE
        # The log is gone again some milliseconds later; one that was too quick was not killed.
        while _size(log) <= LOG_HEADER and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.0002)
        assert process.poll() in {None, 0}, step
    after = sound(seen(settings))
    moved = json.loads(after)[0] - json.loads(before)[0]

    assert moved in {0, 1}, step
    assert (after == before) == (moved == 0), step


def _size(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return os.stat(path).st_size  # noqa: PTH116 - in a tight loop
    return 0
