"""The command line as its users meet it: real processes, real HTTP, honest exit codes."""

import asyncio
import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from maskinporten.store.rows import migrations
from tests.world import assertion, document, form, jwk, private_key

KEY = base64.b64encode(bytes(32)).decode()
DEADLINE = 60.0  # seconds a process may take to come up on a busy machine


def environ(**settings: str) -> dict[str, str]:
    """This process's environment without settings of its own, and these."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("MASKINPORTEN_")}
    return {**kept, **{f"MASKINPORTEN_{name}": value for name, value in settings.items()}}


def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """A command, run to its end."""
    return subprocess.run(
        [sys.executable, "-m", "maskinporten", *arguments],
        env=environ(**settings),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


def database(folder: Path) -> str:
    """The URL of a database in that folder."""
    return f"sqlite:///{folder / 'registry.db'}"


def written(folder: Path, data: Any, name: str = "registry.json") -> str:
    """A registry file."""
    path = folder / name
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return str(path)


def test_help_is_friendly() -> None:
    """Every command is named, with a word about it."""
    shown = run("--help")

    assert shown.returncode == 0
    for command in ("dev", "serve", "token", "apply", "export", "migrate", "check"):
        assert re.search(rf"^    {command} ", shown.stdout, re.MULTILINE)
        assert run(command, "--help").returncode == 0


def test_a_senseless_request_is_2() -> None:
    """Argparse's own word for it."""
    assert run("dance").returncode == 2
    assert run().returncode == 2


def test_apply_shows_then_does_then_has_nothing_to_do(tmp_path: Path) -> None:
    """Dry run, one revision, idempotent; what is exported applies to nothing new."""
    file = written(tmp_path, document())
    url = database(tmp_path)

    dry = run("apply", "--dry-run", file, DATABASE_URL=url)
    assert dry.returncode == 0
    assert "+ scopes skatt:open" in dry.stdout
    assert "18 would change" in dry.stdout
    done = run("apply", file, DATABASE_URL=url)
    assert (done.returncode, "at revision 1" in done.stdout) == (0, True), done
    again = run("apply", file, "--database", url)
    assert "0 changed\nthe registry is at revision 1" in again.stdout
    exported = run("export", DATABASE_URL=url)
    back = run("apply", written(tmp_path, exported.stdout, "back.json"), DATABASE_URL=url)
    assert "0 changed" in back.stdout, back


def test_a_faulty_file_changes_nothing_and_every_fault_is_named(tmp_path: Path) -> None:
    """Good entries beside bad ones are not taken either."""
    wrong = document()
    wrong["scopes"][1]["at_max_age"] = "long"
    wrong["clients"][0]["jwks"]["keys"][0]["kty"] = "oct"
    failed = run("apply", written(tmp_path, wrong), DATABASE_URL=database(tmp_path))

    assert failed.returncode == 1
    assert "scopes[1].at_max_age: " in failed.stderr
    assert "clients[0].jwks.keys[0]: " in failed.stderr
    assert json.loads(run("export", DATABASE_URL=database(tmp_path)).stdout)["prefixes"] == []


def test_toml_with_keys_in_files(tmp_path: Path) -> None:
    """A PEM beside the file, a key set beside the file, a PEM within it."""
    spki = PublicFormat.SubjectPublicKeyInfo
    pem = private_key("pem").public_key().public_bytes(Encoding.PEM, spki).decode()
    (tmp_path / "key.pem").write_text(pem)
    written(tmp_path, {"keys": [jwk("set")]}, "set.json")
    clients = "".join(
        f'[[clients]]\nclient_id = "c{n}"\nclient_orgno = "991825827"\n{way}\n'
        for n, way in enumerate(
            ('jwks_file = "key.pem"', 'jwks_file = "set.json"', f"pem = '''{pem}'''")
        )
    )
    assert (
        run(
            "apply", written(tmp_path, clients, "r.toml"), DATABASE_URL=database(tmp_path)
        ).returncode
        == 0
    )
    found = json.loads(run("export", DATABASE_URL=database(tmp_path)).stdout)["clients"]

    assert [len(client["jwks"]["keys"]) for client in found] == [1, 1, 1]
    assert found[1]["jwks"]["keys"][0]["kid"] == "set"


BROKEN_FILES = [
    pytest.param("r.toml", "a = ", "r.toml: is not TOML", id="broken TOML"),
    pytest.param("r.json", "{", "r.json: is not JSON", id="broken JSON"),
    pytest.param("r.json", "[]", "must hold an object", id="an array"),
    pytest.param(
        "r.json", '{"clients":[{"jwks_file":"no.pem"}]}', "jwks_file: cannot", id="no key"
    ),
    pytest.param("r.json", '{"clients":[{"pem":"x","jwks":1}]}', "one of them", id="two keys"),
    pytest.param("r.json", '{"clients":[{"pem":"-----BEGIN x"}]}', "pem: is neither", id="bad PEM"),
]


@pytest.mark.parametrize(("name", "text", "words"), BROKEN_FILES)
def test_a_broken_file_is_a_sentence(tmp_path: Path, name: str, text: str, words: str) -> None:
    """With the place, and no traceback."""
    failed = run("apply", written(tmp_path, text, name), DATABASE_URL=database(tmp_path))

    assert failed.returncode == 1
    assert words in failed.stderr
    assert "Traceback" not in failed.stderr


def serving(folder: Path, **settings: str) -> dict[str, str]:
    """Settings that are enough for `serve`."""
    return {
        "ISSUER": "http://127.0.0.1:1/",
        "DATABASE_URL": database(folder),
        "KEY_ENCRYPTION_KEY": KEY,
        "SIGNING_KEY_BITS": "2048",
        "AUDIT_LOG": str(folder / "audit.jsonl"),
        **settings,
    }


def test_check_shows_the_settings_without_the_secret(tmp_path: Path) -> None:
    """What it would run with."""
    shown = run("check", **serving(tmp_path))

    assert shown.returncode == 0, shown
    assert "MASKINPORTEN_ENVIRONMENT = prod" in shown.stdout
    assert KEY not in shown.stdout


BROKEN_SETTINGS = [
    pytest.param({"ISSUER": "x"}, "MASKINPORTEN_ISSUER", id="issuer"),
    pytest.param({"DATABASE_URL": "oracle://x"}, "MASKINPORTEN_DATABASE_URL", id="database URL"),
    pytest.param({"DATABASE_URL": "sqlite:////no/such/x.db"}, "does not exist", id="no folder"),
    pytest.param({"DATABASE_URL": f"sqlite:///{__file__}"}, "not a database", id="no database"),
    pytest.param({"KEY_ENCRYPTION_KEY": "x"}, "openssl rand -base64 32", id="a short key"),
    pytest.param({"KEY_ENCRYPTION_KEY_FILE": "/no"}, "openssl rand", id="no key file"),
    pytest.param({"WORKRES": "2"}, "did you mean MASKINPORTEN_WORKERS?", id="a typo"),
]


@pytest.mark.parametrize("command", ["serve", "check"])
@pytest.mark.parametrize(("wrong", "words"), BROKEN_SETTINGS)
def test_a_broken_setting_is_one_sentence(
    tmp_path: Path, command: str, wrong: dict[str, str], words: str
) -> None:
    """Before anything is served, and with what mends it."""
    failed = run(command, **serving(tmp_path, **wrong))

    assert failed.returncode == 1
    assert words in failed.stderr
    assert len(failed.stderr.strip().splitlines()) == 1, failed.stderr


def test_a_busy_port_is_one_sentence(tmp_path: Path) -> None:
    """Nothing is made and nothing is served."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        failed = run("serve", **serving(tmp_path, PORT=str(taken.getsockname()[1])))

    assert failed.returncode == 1
    assert "cannot listen on 127.0.0.1" in failed.stderr
    assert not (tmp_path / "registry.db").exists()


def test_another_key_encryption_key_is_one_sentence(tmp_path: Path) -> None:
    """The signing key does not open; nothing is changed."""
    assert run("check", **serving(tmp_path)).returncode == 0
    other = base64.b64encode(b"x" * 32).decode()
    failed = run("check", **serving(tmp_path, KEY_ENCRYPTION_KEY=other))

    assert failed.returncode == 1
    assert "does not open" in failed.stderr
    assert run("check", **serving(tmp_path)).returncode == 0


def test_without_a_database_the_command_says_how_to_name_one() -> None:
    """`apply`, `export` and `migrate` need nothing else."""
    failed = run("export")

    assert failed.returncode == 1
    assert "--database sqlite:///" in failed.stderr


def test_migrate(tmp_path: Path) -> None:
    """Says where the schema stands."""
    newest = migrations()[-1][0]
    migrated = run("migrate", DATABASE_URL=database(tmp_path))
    assert migrated.stdout == f"the schema is at version {newest}\n"


@contextmanager
def started(*command: str, cwd: Path, **settings: str) -> Iterator["subprocess.Popen[str]"]:
    """A process that stays up, stopped at the end as Ctrl-C would."""
    with subprocess.Popen(
        [sys.executable, "-m", "maskinporten", *command],
        cwd=cwd,
        env={**environ(**settings), "PYTHONPATH": str(Path(__file__).parent.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=DEADLINE)


def wait_until_ready(issuer: str) -> None:
    """Until the server says so."""
    deadline = time.monotonic() + DEADLINE
    while True:
        try:
            if httpx.get(f"{issuer}readyz").is_success:
                return
        except httpx.TransportError:
            assert time.monotonic() < deadline
        time.sleep(0.05)


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def race(issuer: str, grants: list[str], copies: int) -> list[int]:
    """The statuses of that many copies of each grant, sent at once over connections apart."""
    limits = httpx.Limits(max_connections=copies)
    async with httpx.AsyncClient(limits=limits, timeout=30) as http:
        answers = await asyncio.gather(
            *(
                http.post(f"{issuer}token", data=form(grant))
                for grant in grants
                for _ in range(copies)
            )
        )
    return [answer.status_code for answer in answers]


def test_serve_with_two_workers_spends_a_grant_once_even_after_kill_9(tmp_path: Path) -> None:
    """Replay across worker processes at the same instant, and across a crash (attack 14)."""
    port = free_port()
    issuer = f"http://127.0.0.1:{port}/"
    settings = serving(tmp_path, ISSUER=issuer, PORT=str(port), WORKERS="2")
    assert run("apply", written(tmp_path, document()), **settings).returncode == 0
    now = int(time.time())
    grants = [assertion(aud=issuer, iat=now, exp=now + 110) for _ in range(5)]

    with started("serve", cwd=tmp_path, **settings) as server:
        wait_until_ready(issuer)
        statuses = asyncio.run(race(issuer, grants, 20))
        assert (statuses.count(200), statuses.count(400)) == (5, 95)
        metrics = httpx.get(f"{issuer}metrics").text
        assert 'maskinporten_tokens_issued_total{client_amr="private_key_jwt"} 5' in metrics
        assert 'maskinporten_tokens_refused_total{reason="GRANT_SPENT"} 95' in metrics
        children = subprocess.run(
            ["pgrep", "-P", str(server.pid)], capture_output=True, text=True, check=False
        ).stdout.split()
        for process in [server.pid, *map(int, children)]:
            os.kill(process, signal.SIGKILL)
    with started("serve", cwd=tmp_path, **settings):
        wait_until_ready(issuer)
        assert set(asyncio.run(race(issuer, grants, 2))) == {400}


def test_dev_does_the_main_job_and_its_lines_can_be_pasted(tmp_path: Path) -> None:
    """The first screen: where it listens, a token, and lines that work in another terminal."""
    kids = set()
    for _ in range(2):
        port = free_port()
        issuer = f"http://127.0.0.1:{port}/"
        with started("dev", "--port", str(port), cwd=tmp_path) as dev:
            assert dev.stdout is not None
            screen = ""
            for line in dev.stdout:
                screen += line
                if line.startswith("Stop with"):
                    break
            assert f"listens on   {issuer}" in screen
            assert f"data in      {tmp_path / '.dev'}" in screen
            assert '"client_amr": "private_key_jwt"' in screen
            assert "The token holds" in screen
            pasted = screen.split("Paste into another terminal:")[1].split("With an")[0]
            decode, curl, export = (part for part in pasted.split("\n\n") if part.strip())
            environment = environ()
            decoded = json.loads(shell(decode, environment))
            assert decoded["claims"]["scope"] == "sandbox:contacts.read"
            kids.add(decoded["header"]["kid"])
            assert json.loads(shell(curl, environment))["token_type"] == "Bearer"
            assert json.loads(shell(export, environment))["prefixes"][1]["prefix"] == "sandbox"
            refused = subprocess.run(  # noqa: S602 - the lines are our own
                decode.replace("contacts.read", "contacts.write"),
                shell=True,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            assert refused.returncode == 1
            assert json.loads(refused.stderr)["error"] == "invalid_scope"
    assert len(kids) == 1


def shell(line: str, environment: dict[str, str]) -> str:
    """What a pasted line prints."""
    return subprocess.run(  # noqa: S602 - the lines are our own
        line,
        shell=True,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    ).stdout


def test_a_kid_may_begin_with_a_dash(tmp_path: Path) -> None:
    """One thumbprint in sixty-four does; the pasted lines join it to its option."""
    pem = private_key("dash").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "key.pem").write_bytes(pem)
    common = ["token", "--issuer", "https://x/", "--client-id", "c", "--scope", "a:b"]
    made = run(*common, "--key", str(tmp_path / "key.pem"), "--kid=-x", "--grant-only")

    assert jwt.get_unverified_header(made.stdout.strip())["kid"] == "-x"


def test_token_without_a_server_is_a_sentence(tmp_path: Path) -> None:
    """No traceback when nobody answers, or the key file is not there."""
    issuer = f"http://127.0.0.1:{free_port()}/"
    common = ["token", "--issuer", issuer, "--client-id", "c", "--kid", "k", "--scope", "a:b"]
    missing = run(*common, "--key", str(tmp_path / "none.pem"))
    assert (missing.returncode, "none.pem" in missing.stderr) == (1, True)
    (tmp_path / "bad.pem").write_text("x")
    bad = run(*common, "--key", str(tmp_path / "bad.pem"))
    assert bad.returncode == 1
    for failed in (missing, bad):
        assert "Traceback" not in failed.stderr
