"""A real server for a measurement, and what its processes use of the machine."""

import asyncio
import base64
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from bench.floor import floor
from bench.load import Loaded, load
from maskinporten.administration import administer
from maskinporten.app import open_services
from maskinporten.audit import AuditEntry
from maskinporten.domain.client import Client, ClientId, ClientKey
from maskinporten.domain.manifest import plan
from maskinporten.domain.orgno import read_orgno
from maskinporten.domain.registry import Change
from maskinporten.domain.scope import ScopeName
from maskinporten.settings import Environment, Secret, Settings
from tests.world import CONSUMER, assertion, document

_AT_ONCE: Final = 20_000  # clients in one commit
_DEADLINE: Final = 120.0  # seconds to come up


@dataclass(frozen=True, slots=True)
class Served:
    """A server that runs, and where."""

    pid: int
    port: int
    ready_after: float  # seconds from its start to its first answer

    @property
    def issuer(self) -> str:
        """As its tokens spell it."""
        return f"http://127.0.0.1:{self.port}/"


@dataclass(frozen=True, slots=True)
class Round:
    """What one load cost."""

    loaded: Loaded
    cpu: float  # seconds of the server's processes for each token
    floor: float  # seconds of one raw verification and one raw signature, measured beside it

    @property
    def overhead(self) -> float:
        """As a multiple of what no token can cost less than."""
        return self.cpu / self.floor

    def latency(self, share: float) -> float:
        """Seconds within which that share of the requests was answered."""
        return self.loaded.latencies[int(len(self.loaded.latencies) * share)]


@contextmanager
def serving(
    folder: Path,
    bits: int,
    *,
    clients: int = 0,
    database: str = "",
    workers: int = 1,
    module: str = "maskinporten",
    further: Mapping[str, str] | None = None,
) -> Iterator[Served]:
    """A server with everything on, over a registry with that many more clients.

    `module` takes the command `serve`; `further` are more variables for it.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    url = database or f"sqlite:///{folder / 'registry.db'}"
    settings = Settings(
        issuer=f"http://127.0.0.1:{port}/",
        database_url=url,
        key_encryption_key=Secret(bytes(32)),
        environment=Environment.TEST,
        audit_log=folder / "audit.jsonl",
        signing_key_bits=bits,
    )
    asyncio.run(_fill(settings, clients))
    environ = {
        **os.environ,
        "MASKINPORTEN_ISSUER": settings.issuer,
        "MASKINPORTEN_PORT": str(port),
        "MASKINPORTEN_WORKERS": str(workers),
        "MASKINPORTEN_DRAIN": "0",
        "MASKINPORTEN_DATABASE_URL": url,
        "MASKINPORTEN_KEY_ENCRYPTION_KEY": "A" * 43 + "=",
        "MASKINPORTEN_ENVIRONMENT": "test",
        "MASKINPORTEN_AUDIT_LOG": str(settings.audit_log),
        "MASKINPORTEN_SIGNING_KEY_BITS": str(bits),
        **(further or {}),
    }
    command = [sys.executable, "-m", module, "serve"]
    began = time.monotonic()
    with subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL) as server:
        try:
            _wait(settings.issuer)
            yield Served(server.pid, port, time.monotonic() - began)
        finally:
            server.terminate()


async def _fill(settings: Settings, clients: int) -> None:
    async with open_services(settings) as services:
        store, replica, now = services.store, services.replica, int(time.time())
        who = {"kind": "operator"}
        await administer(store, replica, lambda r: plan(document(), r, now), who, "bench", now)
        revision = replica.registry.revision
        for first in range(0, clients, _AT_ONCE):
            made = tuple(_client(n, now) for n in range(first, min(clients, first + _AT_ONCE)))
            entry = AuditEntry(at=now, caller=who, command="bench")
            revision = await store.commit(Change(made), entry, revision)


def _client(number: int, now: int) -> Client:
    """A client as a registry has them; its key is random octets, for it is never used."""
    modulus = base64.urlsafe_b64encode(secrets.token_bytes(256)).decode().rstrip("=")
    date = "2026-01-01T00:00:00.000Z"
    key = ClientKey(
        kid=f"key-{number}", n=modulus, e="AQAB", exp=now + 10**7, created=date, last_updated=date
    )
    return Client(
        client_id=ClientId(f"client-{number:08}"),
        client_orgno=read_orgno(CONSUMER),
        client_name=f"Client {number}",
        description="One of many",
        scopes=(ScopeName("skatt:inntekt.read"), ScopeName("skatt:open")),
        keys=(key,),
        created=date,
        last_updated=date,
    )


def one_round(served: Served, bits: int, grants: int = 400, connections: int = 32) -> Round:
    """Distinct grants, signed beforehand, each answered with a token."""
    now = int(time.time())
    signed = [assertion(aud=served.issuer, iat=now, exp=now + 110) for _ in range(grants)]
    base = floor(bits)
    before = cpu_seconds(served.pid)
    loaded = asyncio.run(load("127.0.0.1", served.port, signed, connections))
    spent = cpu_seconds(served.pid) - before
    assert loaded.others == 0, loaded.others
    return Round(loaded, spent / loaded.tokens, base)


def _wait(issuer: str) -> None:
    deadline = time.monotonic() + _DEADLINE
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{issuer}readyz", timeout=1).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.02)
    raise SystemExit("the server did not start")


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and all that came of it."""
    ticks = 0
    for process in family(pid):
        fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> float:
    """Octets of a process and all that came of it; what they share is shared out (PSS)."""
    total = 0
    for process in family(pid):
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) * 1024
    return total


def family(pid: int) -> list[int]:
    """A process and all that came of it."""
    found = [pid]
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, path.read_text().split()):
            found += family(child)
    return found
