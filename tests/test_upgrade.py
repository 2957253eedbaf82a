"""Schema and releases: nodes that start at once, a database too new, and two releases together."""

import asyncio
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from maskinporten.app import open_store
from maskinporten.store.rows import migrations
from tests.cluster import DEADLINE, KEY, ROOT, Load, cluster, declare, until
from tests.selfservice.organisations import admin_world
from tests.store.test_store import execute
from tests.test_cli import environ, run
from tests.world import CONSUMER, document

PREVIOUS = ROOT / "tests" / "previous_release"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'registry.db'}"
    found: str = request.getfixturevalue("postgres_url")
    return found


async def test_processes_that_migrate_at_once_do_it_once(url: str) -> None:
    """Three of them, on a database that is not there yet: all succeed, each step was done once."""
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "maskinporten",
            "migrate",
            env=environ(DATABASE_URL=url),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(3)
    ]
    said = await asyncio.gather(*(process.communicate() for process in processes))

    assert [process.returncode for process in processes] == [0] * 3, said
    done = await execute(url, "SELECT n FROM schema_version ORDER BY n")
    assert [n for (n,) in done] == [number for number, _ in migrations()]


async def test_serve_refuses_a_schema_that_is_too_new(url: str) -> None:
    """In one sentence, before anything is served; the database is left as it is."""
    store = await open_store(url)
    await store.migrate()
    await store.close()
    await execute(url, "INSERT INTO schema_version (n) VALUES (9999)")
    settings = {
        "DATABASE_URL": url,
        "ISSUER": "http://127.0.0.1:1/",
        "KEY_ENCRYPTION_KEY": KEY,
        "PORT": "0",
    }
    for command in ("serve", "migrate"):
        refused = await asyncio.to_thread(run, command, **settings)
        assert refused.returncode == 1
        assert len(refused.stderr.strip().splitlines()) == 1, refused.stderr
        assert "newer than this program (schema 9999" in refused.stderr


def previous(folder: Path) -> Path:
    """The code of the release before this one, from the history of the repository."""
    commit = PREVIOUS.read_text().strip()
    found = subprocess.run(
        ["git", "archive", commit, "maskinporten"], cwd=ROOT, capture_output=True, check=False
    )
    assert found.returncode == 0, (
        f"the history does not reach back to {commit} (tests/previous_release): fetch it whole, "
        f"with git fetch --unshallow ({found.stderr.decode().strip()})"
    )
    with tarfile.open(fileobj=io.BytesIO(found.stdout)) as archive:
        archive.extractall(folder, filter="data")
    return folder


def _apply(
    folder: Path, code: Path, url: str, world: dict[str, Any]
) -> "subprocess.CompletedProcess[str]":
    """`apply` as that release does it."""
    file = folder / "by-the-old.json"
    file.write_text(json.dumps(world))
    return subprocess.run(
        [sys.executable, "-m", "maskinporten", "apply", str(file)],
        cwd=folder,
        env={**environ(DATABASE_URL=url), "PYTHONPATH": str(code)},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


async def test_rolling_upgrade_under_load(tmp_path: Path, postgres_url: str) -> None:
    """Both releases live on one database: no request fails, each knows what the other did."""
    code = previous(tmp_path / "previous")
    applied = _apply(tmp_path, code, postgres_url, document())
    assert applied.returncode == 0, applied
    async with cluster(tmp_path, postgres_url, WORKERS="1") as nodes:
        old = nodes.node()
        old.code = code
        old.environ = {k: v for k, v in old.environ.items() if k != "DRAIN"}
        old.start()
        await nodes.until_ready(old)
        fresh = nodes.node()
        load = Load(nodes, [old, fresh])
        async with load.running():
            await load.more(20)
            fresh.start()
            await nodes.until_ready(fresh)
            await load.more(40)
            await asyncio.to_thread(declare, tmp_path, postgres_url, admin_world())
            for first, then in ((old, fresh), (fresh, old)):
                grant = nodes.grant()
                assert (await nodes.post(first, grant)).status_code == 200
                assert (await nodes.post(then, grant)).status_code == 400
            admin = await nodes.admin(fresh)
            assert (await nodes.write(fresh, admin, "by-the-new")).status_code == 201
            own = await nodes.clients(fresh, admin)
            assert "by-the-new" in own

            async def served() -> bool:
                grant = nodes.grant(client_id=f"admin-{CONSUMER}", scope="idporten:dcr.read")
                return (await nodes.post(old, grant)).status_code == 200

            await until(served, old.log)
            load.nodes = [fresh]
            await asyncio.sleep(0.5)
            await old.stopped()
            await load.more(20)
        assert set(load.answers) == {200}, load.answers
