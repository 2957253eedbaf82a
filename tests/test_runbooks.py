"""Every command of every runbook, run as it stands against a live server, and what is seen."""

import base64
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from maskinporten import pki
from tests.test_cli import environ, free_port, run, written
from tests.test_hsm import MODULES, softhsm
from tests.test_keys import issued
from tests.world import document, private_key

__all__ = ["softhsm"]  # a fixture

RUNBOOKS = Path(__file__).parent.parent / "keys" / "runbooks"
FILES = sorted(path for path in RUNBOOKS.glob("*.md") if path.name != "README.md")
BLOCK = re.compile(r"^```console\n(.*?)^```$|^<!-- ([a-z ]+) -->$", re.MULTILINE | re.DOTALL)
DAY = 86_400
SYSTEMCTL = """\
#!{python}
import os, signal, subprocess, sys, time, urllib.request
verb, unit = sys.argv[1:]
assert unit == "maskinporten"
if os.path.exists("pid") and verb in ("stop", "restart"):
    pid = int(open("pid").read())
    os.kill(pid, signal.SIGTERM)
    while os.path.exists(f"/proc/{{pid}}") and "Z" != open(f"/proc/{{pid}}/stat").read().split()[2]:
        time.sleep(0.05)
    os.unlink("pid")
if verb in ("start", "restart"):
    settings = dict(line.strip().split("=", 1) for line in open("maskinporten.env"))
    kept = {{k: v for k, v in os.environ.items() if not k.startswith("MASKINPORTEN_")}}
    log = open("serve.log", "a")
    server = subprocess.Popen(
        [sys.executable, "-m", "maskinporten", "serve"], env={{**kept, **settings}},
        stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
    )
    open("pid", "w").write(str(server.pid))
    for _ in range(600):
        try:
            urllib.request.urlopen(settings["MASKINPORTEN_ISSUER"] + "readyz")
            break
        except OSError:
            assert server.poll() is None, open("serve.log").read()
            time.sleep(0.1)
"""


@dataclass(frozen=True)
class Command:
    """A line to be pasted, and what should be seen; or what the world does meanwhile."""

    line: str
    expected: str = ""
    event: str = ""


def commands(text: str) -> list[Command]:
    """Everything that happens in a runbook, in order."""
    found: list[Command] = []
    for block, event in BLOCK.findall(text):
        if event:
            found.append(Command("", event=event))
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            lines = part.splitlines()
            more = [line for line in lines[1:] if line.startswith("> ")]
            line = "\n".join([lines[0], *(one[2:] for one in more)])
            found.append(Command(line, "\n".join(lines[1 + len(more) :])))
    return found


def pattern(expected: str) -> str:
    """`…` within a line is a few characters; alone on a line it is any number of lines."""
    lines = [
        r"(?:.*\n)*?" if line == "…" else re.escape(line).replace("…", ".*?") + r"\n"
        for line in expected.splitlines()
    ]
    return "".join(lines)


class Shell:
    """One shell, as the operator has it; what each line prints."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def paste(self, line: str) -> str:
        """What is seen, both streams."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\necho; echo '=== done'\n")
        self._process.stdin.flush()
        seen: list[str] = []
        for text in self._process.stdout:
            if text == "=== done\n":
                break
            seen.append(text)
        text = "".join(seen).removesuffix("\n")
        return text if text.endswith("\n") or not text else text + "\n"

    def close(self) -> None:
        """The operator goes to bed."""
        self._process.communicate("", timeout=10)


def shift(folder: Path, seconds: int) -> None:
    """Let time pass: what the database remembers becomes so much older."""
    with sqlite3.connect(folder / "registry.db", timeout=30) as database:
        rows = database.execute("SELECT id, body FROM entity WHERE kind = 'signing_key'").fetchall()
        for kid, body in rows:
            key = json.loads(body)
            for name in ("prepared", "activated", "retired", "removed"):
                if key.get(name):
                    key[name] -= seconds
            database.execute(
                "UPDATE entity SET body = ? WHERE kind = 'signing_key' AND id = ?",
                (json.dumps(key), kid),
            )
        _shift_audit(database, seconds)
    database.close()


def _shift_audit(database: sqlite3.Connection, seconds: int) -> None:
    """Nobody may rewrite the trail, and so what forbids it stands aside for a moment."""
    query = "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
    triggers = database.execute(query).fetchall()
    for name, _ in triggers:
        database.execute(f"DROP TRIGGER {name}")
    for revision, body in database.execute("SELECT revision, body FROM audit").fetchall():
        entry = json.loads(body)
        entry["at"] -= seconds
        values = (entry["at"], json.dumps(entry), revision)
        database.execute("UPDATE audit SET at = ?, body = ? WHERE revision = ?", values)
    for _, sql in triggers:
        database.execute(sql)


def answer(folder: Path) -> None:
    """The authority has looked at the request."""
    chain = issued(folder / "request.pem", int(time.time()))
    (folder / "answer.pem").write_bytes(pki.chain_pem(*chain))


EVENTS: dict[str, Callable[[Path], None]] = {
    "three days pass": lambda folder: shift(folder, 3 * DAY),
    "three minutes pass": lambda folder: shift(folder, 200),
    "the authority answers": answer,
}


@contextmanager
def machine(folder: Path, **more: str) -> Iterator[Shell]:
    """What the runbooks' README says of the machine, and a server that runs on it."""
    port = free_port()
    settings = {
        "ISSUER": f"http://127.0.0.1:{port}/",
        "PORT": str(port),
        "WORKERS": "1",
        "DRAIN": "0",
        "DATABASE_URL": f"sqlite://{folder / 'registry.db'}",
        "KEY_ENCRYPTION_KEY_FILE": str(folder / "kek"),
        "SIGNING_KEY_BITS": "2048",
        "AUDIT_LOG": str(folder / "audit.jsonl"),
    }
    (folder / "kek").write_text(base64.b64encode(os.urandom(32)).decode())
    (folder / "maskinporten.env").write_text(
        "".join(f"MASKINPORTEN_{name}={value}\n" for name, value in settings.items())
    )
    spki = PublicFormat.SubjectPublicKeyInfo
    pem = private_key("new").public_key().public_bytes(Encoding.PEM, spki)
    (folder / "new-public.pem").write_bytes(pem)
    assert run("apply", written(folder, document()), **settings).returncode == 0
    programs = folder / "bin"
    programs.mkdir()
    (programs / "systemctl").write_text(SYSTEMCTL.format(python=sys.executable))
    (programs / "systemctl").chmod(0o755)
    root = str(RUNBOOKS.parent.parent)
    path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]])
    shell = Shell(folder, {**environ(), **more, "PATH": path, "PYTHONPATH": root})
    try:
        assert "Error" not in shell.paste("systemctl start maskinporten")
        yield shell
    finally:
        shell.paste("systemctl stop maskinporten")
        shell.close()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_runbook(path: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """From the first line to the last, way back included."""
    more: dict[str, str] = {}
    if path.stem == "hsm":
        token = request.getfixturevalue("softhsm")
        shutil.copy(token["PKCS11_PIN_FILE"], tmp_path / "pin")
        more = {"TOKEN_LIBRARY": str(MODULES[0]), "SOFTHSM2_CONF": os.environ["SOFTHSM2_CONF"]}
    with machine(tmp_path, **more) as shell:
        for command in commands(path.read_text()):
            if command.event:
                EVENTS[command.event](tmp_path)
                continue
            seen = shell.paste(command.line)
            told = f"$ {command.line}\n{seen}\nbut the runbook says:\n{command.expected}"
            assert re.fullmatch(pattern(command.expected), seen), told


def test_every_runbook_is_listed_and_has_its_parts() -> None:
    """What a tired person looks for: before, how long, and (but in an emergency) back."""
    listed = (RUNBOOKS / "README.md").read_text()

    assert len(FILES) == 7
    for path in FILES:
        text = path.read_text()
        assert f"]({path.name})" in listed
        assert "**Before you begin:**" in text
        assert "**Takes:**" in text
        assert "way back" in text or "## How to go back" in text
        assert commands(text)


HOLES = [
    ("a … c", "a b c\n", True),
    ("a … c", "a\nc\n", False),
    ("a\n…\nc", "a\nb\nb\nc\n", True),
    ("a\n…", "a\n", True),
    ("", "a\n", False),
    ("a", "a\nb\n", False),
]


@pytest.mark.parametrize(("expected", "seen", "matches"), HOLES)
def test_holes(expected: str, seen: str, matches: bool) -> None:  # noqa: FBT001 - a column
    """The comparison can fail."""
    assert bool(re.fullmatch(pattern(expected), seen)) is matches
