"""Real nodes on loopback, a database whose cable can be pulled, and callers who keep count."""

import asyncio
import base64
import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import httpx

from tests.selfservice.organisations import EVERYTHING, minimal
from tests.test_cli import run
from tests.world import CONSUMER, assertion, document, form

ROOT: Final = Path(__file__).parent.parent
KEY: Final = base64.b64encode(bytes(32)).decode()
# Nodes speak plain HTTP; a client that reads every authority of the system first is slow to make.
PLAIN: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
DEADLINE: Final = 60.0  # seconds a thing may take on a busy machine before a test gives up


async def until(true: Callable[[], Awaitable[bool]], what: str, seconds: float = DEADLINE) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + seconds
    while not await true():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.05)


class Cable:
    """A TCP cable between nodes and a server: it can be cut, held, slowed and mended."""

    def __init__(self, far: str) -> None:
        self.far = far  # the socket of a server
        self.port = 0
        self.delay = 0.0  # seconds for each piece of data
        # Cut once a node has sent the one and then the other, which still reach the server.
        self.cut_after: tuple[bytes, bytes] | None = None
        self.cuts = 0  # of that kind
        self._whole = asyncio.Event()
        self._whole.set()
        self._accepts = True
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._carrying: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Begin to carry."""
        self._server = await asyncio.start_server(self._begin, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """For good."""
        self.cut()
        self._whole.set()
        if self._server is not None:
            self._server.close()
        for task in self._carrying:
            task.cancel()
        await asyncio.gather(*self._carrying, return_exceptions=True)

    def _begin(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._carry(near, back))
        self._carrying.add(task)
        task.add_done_callback(self._carrying.discard)

    def cut(self) -> None:
        """Connections break, and none can be made."""
        self._accepts = False
        for writer in self._writers:
            writer.transport.abort()

    def hold(self) -> None:
        """Nothing arrives any more, and nobody is told (a black hole)."""
        self._whole.clear()

    def mend(self) -> None:
        """As it was."""
        self._accepts = True
        self.delay = 0.0
        self._whole.set()

    async def _carry(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        if not self._accepts:
            back.transport.abort()
            return
        self._writers.add(back)
        try:
            await self._whole.wait()
            far, onward = await asyncio.open_unix_connection(self.far)
        except OSError:
            back.transport.abort()
            return
        self._writers.add(onward)
        with suppress(OSError):
            await asyncio.gather(
                self._pump(near, onward, back, watched=True),
                self._pump(far, back, onward, watched=False),
            )
        self._writers -= {back, onward}

    async def _pump(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        other: asyncio.StreamWriter,
        *,
        watched: bool,
    ) -> None:
        armed = False
        try:
            while data := await source.read(65536):
                await self._whole.wait()
                await asyncio.sleep(self.delay)
                sink.write(data)
                await sink.drain()
                if watched and self.cut_after is not None:
                    first, last = self.cut_after
                    armed = armed or first in data
                    if armed and last in data:
                        # The server reads what it was sent; the node never hears of it.
                        self.cut_after = None
                        self.cuts += 1
                        other.transport.abort()
        except OSError:
            pass
        finally:
            with suppress(OSError):
                sink.close()


@asynccontextmanager
async def cable_to(url: str) -> AsyncIterator[tuple[Cable, str]]:
    """A cable to the PostgreSQL at `url` (a socket in a folder), and the URL through it."""
    parts = urlsplit(url)
    folder = parse_qs(parts.query)["host"][0]
    cable = Cable(f"{folder}/.s.PGSQL.{parts.port or 5432}")
    await cable.open()
    try:
        yield cable, f"postgresql://postgres@127.0.0.1:{cable.port}{parts.path}"
    finally:
        await cable.close()


def declare(folder: Path, url: str, world: Mapping[str, Any] | None = None) -> None:
    """The world's registry, or that one, in that database."""
    file = folder / "registry.json"
    file.write_text(json.dumps(world or document()))
    applied = run("apply", str(file), DATABASE_URL=url)
    assert applied.returncode == 0, applied


@dataclass
class Node:
    """One `serve` process."""

    issuer: str
    port: int
    folder: Path
    environ: Mapping[str, str]
    code: Path = ROOT
    launcher: tuple[str, ...] = ("-m", "maskinporten", "serve")
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """What it has said."""
        return (self.folder / f"log-{self.port}").read_text()

    def start(self) -> None:
        """Begin; see `ready`."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("MASKINPORTEN_")}
        environ = {**kept, **{f"MASKINPORTEN_{k}": v for k, v in self.environ.items()}}
        with (self.folder / f"log-{self.port}").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *self.launcher],
                cwd=self.folder,
                env={**environ, "PYTHONPATH": str(self.code)},
                stdout=log,
                stderr=log,
            )

    def workers(self) -> list[int]:
        """The process numbers of its workers."""
        assert self.process is not None
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(number) for number in path.read_text().split()]

    def kill(self) -> None:
        """As a power cut would."""
        assert self.process is not None
        for number in [self.process.pid, *self.workers()]:
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        self.process.wait(DEADLINE)

    async def stopped(self) -> None:
        """Told to stop with SIGTERM, and gone."""
        assert self.process is not None
        self.process.terminate()
        await asyncio.to_thread(self.process.wait, DEADLINE)


async def ready(http: httpx.AsyncClient, node: Node) -> bool:
    """Whether it says so."""
    assert node.process is not None
    assert node.process.poll() is None, node.log
    try:
        return (await http.get(f"{node.url}/readyz")).is_success
    except httpx.TransportError:
        return False


@dataclass
class Cluster:
    """Nodes under one issuer, and a client of each."""

    folder: Path
    issuer: str
    settings: Mapping[str, str]
    http: httpx.AsyncClient
    nodes: list[Node] = field(default_factory=list)

    def node(self, **settings: str) -> Node:
        """Another node, not yet started."""
        port = free_port()
        environ = {
            "ISSUER": self.issuer,
            "PORT": str(port),
            "KEY_ENCRYPTION_KEY": KEY,
            "ENVIRONMENT": "test",
            "SIGNING_KEY_BITS": "2048",
            "WORKERS": "2",
            "DRAIN": "1",
            "AUDIT_LOG": str(self.folder / f"audit-{port}.jsonl"),
            **self.settings,
            **settings,
        }
        made = Node(self.issuer, port, self.folder, environ)
        self.nodes.append(made)
        return made

    async def started(self, **settings: str) -> Node:
        """Another node, ready."""
        node = self.node(**settings)
        node.start()
        await self.until_ready(node)
        return node

    async def until_ready(self, *nodes: Node) -> None:
        """Until each of them says so, five times in a row (the workers answer by turns)."""
        for node in nodes:
            for _ in range(5):
                await until(lambda node=node: ready(self.http, node), f"{node.log}")  # type: ignore[misc]

    def grant(self, **claims: Any) -> str:
        """A grant of now."""
        now = int(time.time())
        return assertion(**{"aud": self.issuer, "iat": now, "exp": now + 110, **claims})

    async def post(self, node: Node, grant: str | None = None) -> httpx.Response:
        """One token request to that node, over a connection of its own."""
        async with httpx.AsyncClient(verify=PLAIN, timeout=30) as http:
            return await http.post(f"{node.url}/token", data=form(grant or self.grant()))

    async def write(self, node: Node, token: str, client_id: str) -> httpx.Response:
        """A client registered through that node's self-service, with an admin's token."""
        body = minimal(client_id=client_id)
        headers = {"Authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(verify=PLAIN, timeout=40) as http:
            return await http.post(f"{node.url}/clients", json=body, headers=headers)

    async def admin(self, node: Node) -> str:
        """A token for the consumer's own affairs."""
        name = f"admin-{CONSUMER}"
        grant = self.grant(client_id=name, scope=EVERYTHING)
        token: str = (await self.post(node, grant)).json()["access_token"]
        return token

    async def clients(self, node: Node, token: str) -> set[str]:
        """The names of the consumer's clients, as that node tells."""
        headers = {"Authorization": f"Bearer {token}"}
        answer = await self.http.get(f"{node.url}/clients", headers=headers)
        return {client["client_id"] for client in answer.json()}

    async def health(self, node: Node) -> Any:
        """What /health says."""
        return (await self.http.get(f"{node.url}/health")).json()

    async def metric(self, node: Node, name: str) -> float:
        """A metric without labels."""
        text = (await self.http.get(f"{node.url}/metrics")).text
        return float(next(x.split()[1] for x in text.splitlines() if x.startswith(f"{name} ")))


def free_port() -> int:
    """A port nobody listens on."""
    import socket  # noqa: PLC0415 - of this function alone

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def cluster(folder: Path, database_url: str, **settings: str) -> AsyncIterator[Cluster]:
    """Nobody yet; whoever was started is gone at the end."""
    issuer = "http://127.0.0.1:1/"
    async with httpx.AsyncClient(verify=PLAIN, timeout=10) as http:
        made = Cluster(folder, issuer, {"DATABASE_URL": database_url, **settings}, http)
        try:
            yield made
        finally:
            for node in made.nodes:
                if node.process is not None and node.process.poll() is None:
                    node.kill()


@dataclass
class Load:
    """Callers who take the nodes that are ready by turns, as a Service of Kubernetes would."""

    cluster: Cluster
    nodes: list[Node]
    callers: int = 4
    pause: float = 0.02
    answers: Counter[int | str] = field(default_factory=Counter)
    tokens: list[str] = field(default_factory=list)
    _ready: list[Node] = field(default_factory=list)
    _stop: bool = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Load"]:
        """Load while the block lasts; half of the callers keep their connections."""
        await self._look_once()
        watcher = asyncio.create_task(self._look())
        tasks = [asyncio.create_task(self._call(number)) for number in range(self.callers)]
        try:
            yield self
        finally:
            self._stop = True
            await asyncio.gather(*tasks)
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)

    async def more(self, count: int) -> None:
        """Until so many more requests were answered."""
        goal = self.answers.total() + count

        async def enough() -> bool:
            return self.answers.total() >= goal

        await until(enough, f"{self.answers}")

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(0.1)
            await self._look_once()

    async def _look_once(self) -> None:
        found = []
        async with httpx.AsyncClient(verify=PLAIN, timeout=5) as http:
            for node in self.nodes:
                with suppress(httpx.TransportError):
                    if (await http.get(f"{node.url}/readyz")).is_success:
                        found.append(node)
        self._ready = found

    async def _call(self, number: int) -> None:
        turn = number
        async with httpx.AsyncClient(verify=PLAIN, timeout=30) as kept:
            while not self._stop:
                turn += 1
                if not self._ready:
                    self.answers["nobody ready"] += 1
                    await asyncio.sleep(0.1)
                    continue
                node = self._ready[turn % len(self._ready)]
                try:
                    data = form(self.cluster.grant())
                    if number % 2:
                        answer = await kept.post(f"{node.url}/token", data=data)
                    else:
                        async with httpx.AsyncClient(verify=PLAIN, timeout=30) as fresh:
                            answer = await fresh.post(f"{node.url}/token", data=data)
                    self.answers[answer.status_code] += 1
                    if answer.is_success:
                        self.tokens.append(answer.json()["access_token"])
                except httpx.HTTPError as fault:
                    self.answers[type(fault).__name__] += 1
                await asyncio.sleep(self.pause)
