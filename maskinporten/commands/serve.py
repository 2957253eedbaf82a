"""`serve`: the server, configured by the environment alone."""

import argparse
import asyncio
import os
import signal
import socket
import sys
import tempfile
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from granian import Granian
from granian.constants import HTTPModes, Interfaces, Loops, RuntimeModes
from granian.http import HTTP1Settings

from maskinporten.app import open_services
from maskinporten.backup import find_restoration, findings
from maskinporten.commands.sentences import told
from maskinporten.drain import flag_of
from maskinporten.errors import Fault, InvalidInput
from maskinporten.revocation_folder import folder_of_evidence
from maskinporten.settings import PREFIX, Settings

_HEADER_DEADLINE = 10_000  # milliseconds for a caller to finish its headers
_FINISH = 30  # seconds for requests under way when the workers are told to stop


def add_parser(commands: Any) -> None:
    """Declare the command."""
    serve = commands.add_parser(
        "serve",
        help="run the server, configured by MASKINPORTEN_… variables",
        description="The token server. It makes or migrates its database and its first signing "
        "key by itself, and says what is wrong before it serves anything.",
    )
    serve.set_defaults(run=_serve)


def _serve(_arguments: argparse.Namespace) -> int:
    settings = Settings.from_environ()
    verify_address(settings.host, settings.port)
    if code := _prepare_apart(settings):
        return code
    address = f"{settings.host}:{settings.port}"
    print(f"maskinporten {settings.issuer} listens on {address}", file=sys.stderr)
    run_server(settings)
    return 0


def verify_address(host: str, port: int) -> None:
    """Whether one could listen there. Raises InvalidInput with the reason."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as fault:
        place = f"{PREFIX}HOST, {PREFIX}PORT"
        sentence = f"cannot listen on {host}:{port}: {fault.strerror}"
        raise InvalidInput((Fault(place, sentence),)) from fault


def _prepare_apart(settings: Settings) -> int:
    """`prepare` in a process of its own, whose memory goes with it: a registry may be large.

    Returns its exit code. There are no threads yet that a fork could leave behind.
    """
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = told(lambda: _prepared(settings))
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    try:
        _, status = os.waitpid(child, 0)
    except KeyboardInterrupt:
        os.waitpid(child, 0)
        return 130
    return os.waitstatus_to_exitcode(status)


def _prepared(settings: Settings) -> int:
    asyncio.run(prepare(settings))
    return 0


async def prepare(settings: Settings) -> None:
    """Open everything once before a worker does: a fault is one sentence, not one per worker.

    On a restored database it waits until every grant that was spent before is dead.
    """
    async with open_services(settings) as services:
        now = int(services.clock())
        keys = tuple(services.replica.registry.signing_keys.values())
        restoration = await find_restoration(services.store)
        newest = await services.store.newest_spent()
    for sentence in findings(restoration, newest, keys, now):
        print(f"maskinporten: {sentence}", file=sys.stderr, flush=True)
    if restoration is not None:
        await asyncio.sleep(restoration.wait(now))


def run_server(settings: Settings, application: str = "maskinporten.app:create") -> None:
    """Serve until told to stop. The workers read the same environment as this process."""
    with tempfile.TemporaryDirectory(prefix="maskinporten-") as folder:
        counters = settings.metrics_file or Path(folder) / "metrics"
        if settings.metrics_file is None:
            counters.touch(mode=0o600)
            os.environ[f"{PREFIX}METRICS_FILE"] = str(counters)
        if settings.spool is None:
            os.environ[f"{PREFIX}SPOOL"] = str(Path(folder) / "spool")
        if folder_of_evidence(settings) is None:
            os.environ[f"{PREFIX}REVOCATION"] = str(Path(folder) / "revocation")
        server = Granian(
            application,
            address=settings.host,
            port=settings.port,
            interface=Interfaces.ASGI,
            factory=True,
            workers=settings.workers,
            loop=Loops.uvloop,
            runtime_mode=RuntimeModes.st,
            http=HTTPModes.http1,
            http1_settings=HTTP1Settings(header_read_timeout=_HEADER_DEADLINE),
            websockets=False,
            backpressure=settings.backpressure,
            respawn_failed_workers=True,
            workers_kill_timeout=_FINISH,
            log_access=False,
        )
        flag = flag_of(counters, os.getpid())
        server.on_startup(lambda: _leave_on_sigterm(flag, settings.drain))
        try:
            server.serve()
        finally:
            flag.unlink(missing_ok=True)


def _leave_on_sigterm(flag: Path, seconds: int) -> None:
    """The first SIGTERM says that we leave, and stops us `seconds` later; a second one at once.

    Ctrl-C (SIGINT) does not wait: nobody sends requests to a server on a desk.
    """
    flag.unlink(missing_ok=True)
    stop: Any = signal.getsignal(signal.SIGTERM)

    def leave(number: int, frame: FrameType | None) -> None:
        if seconds == 0 or flag.exists():
            stop(number, frame)
            return
        flag.touch()
        print(f"maskinporten leaves in {seconds} s", file=sys.stderr, flush=True)
        timer = threading.Timer(seconds, stop)
        timer.daemon = True
        timer.start()

    signal.signal(signal.SIGTERM, leave)
