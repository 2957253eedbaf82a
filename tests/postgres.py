"""PostgreSQL as the system's packages bring it: servers that can be stopped, followed, promoted.

It does not run as root: then its processes are the user `postgres`, whom the package makes.
"""

import os
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any, Final

DEADLINE: Final = 60.0  # seconds
SUPERUSER: Final = "postgres"


def binaries() -> Path:
    """The folder of the newest version installed (tests/system.txt names the package)."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda p: int(p.parent.name))
    assert found, "install the package postgresql"
    return found[-1]


class Postgres:
    """One server on loopback."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "data"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self._user: dict[str, Any] = {}
        if os.geteuid() == 0:
            self._user = {"user": SUPERUSER, "group": SUPERUSER, "extra_groups": []}
            shutil.chown(folder, SUPERUSER, SUPERUSER)

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    def url(self, database: str = "postgres") -> str:
        """For asyncpg and MASKINPORTEN_DATABASE_URL."""
        return f"postgresql://{SUPERUSER}@{self.address}/{database}"

    def make(self) -> None:
        """A new server that others may follow."""
        self._run("initdb", "-A", "trust", "-U", SUPERUSER, "-E", "UTF8", "-N", "-D", self.data)

    def follow(self, leader: "Postgres") -> None:
        """A copy of `leader` that goes on following it."""
        host, _, port = leader.address.partition(":")
        self._run(
            "pg_basebackup", "-h", host, "-p", port, "-U", SUPERUSER, "-D", self.data,
            "-R", "-X", "stream", "-c", "fast", "--no-sync",
        )  # fmt: skip

    def start(self, *options: str) -> None:
        """Up, and answering."""
        given = [f"-c {option}" for option in ("fsync=off", "max_connections=60", *options)]
        line = f"-h 127.0.0.1 -p {self.port} -k {self.folder} {' '.join(given)}"
        self._run("pg_ctl", "-w", "-D", self.data, "-l", self.folder / "log", "-o", line, "start")

    def stop(self, mode: str = "fast") -> None:
        """Down; `immediate` as if it were killed."""
        self._run("pg_ctl", "-w", "-D", self.data, "-m", mode, "stop")

    def promote(self) -> None:
        """From now on the leader."""
        self._run("pg_ctl", "-w", "-D", self.data, "promote")

    def close(self) -> None:
        """Gone, if it was up."""
        if (self.data / "postmaster.pid").exists():
            self.stop("immediate")

    def _run(self, program: str, *arguments: str | Path) -> None:
        done = subprocess.run(
            [binaries() / program, *arguments],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=DEADLINE,
            check=False,
            **self._user,
        )
        assert done.returncode == 0, done.stderr.decode()
