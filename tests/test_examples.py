"""The examples, as their reader runs them: three processes that speak over HTTP."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tests.test_cli import (
    DEADLINE,
    environ,
    free_port,
    run,
    serving,
    started,
    wait_until_ready,
)
from tests.world import private_key

ROOT = Path(__file__).parent.parent


@contextmanager
def register(issuer: str) -> Iterator[str]:
    """The API provider of the example, in a process of its own."""
    port = free_port()
    command = [
        str(Path(sys.executable).parent / "granian"), "--interface", "asgi", "--factory",
        "--port", str(port), "examples.contact_register:create",
    ]  # fmt: skip
    with subprocess.Popen(
        command, cwd=ROOT, env={**environ(), "REGISTER_ISSUER": issuer}, stdout=subprocess.DEVNULL
    ) as process:
        try:
            url = f"http://127.0.0.1:{port}/"
            deadline = time.monotonic() + DEADLINE
            while True:
                try:
                    assert httpx.get(f"{url}people/1").status_code == 401
                    break
                except httpx.TransportError:
                    assert time.monotonic() < deadline
                time.sleep(0.05)
            yield url
        finally:
            process.terminate()
            process.wait(DEADLINE)


def test_the_contact_register(tmp_path: Path) -> None:
    """The office reads what it may; another scope, another consumer and no token stay outside."""
    port = free_port()
    issuer = f"http://127.0.0.1:{port}/"
    settings = serving(tmp_path, ISSUER=issuer, PORT=str(port), WORKERS="1", DRAIN="0")
    shutil.copy(ROOT / "examples" / "registry.toml", tmp_path)
    key = private_key("welfare")
    spki = PublicFormat.SubjectPublicKeyInfo
    (tmp_path / "welfare-public.pem").write_bytes(key.public_key().public_bytes(Encoding.PEM, spki))
    pem = tmp_path / "welfare.pem"
    pem.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    assert run("apply", str(tmp_path / "registry.toml"), **settings).returncode == 0
    client = json.loads(run("export", **settings).stdout)["clients"][0]
    kid = client["jwks"]["keys"][0]["kid"]

    with started("serve", cwd=tmp_path, **settings):
        wait_until_ready(issuer)
        with register(issuer) as url:
            office = subprocess.run(
                [
                    sys.executable, "-m", "examples.welfare_office", "--issuer", issuer,
                    "--client-id", "welfare-backend", "--key", str(pem), f"--kid={kid}",
                    "--register", url, "17080000001", "17080000002",
                ],
                cwd=ROOT, env=environ(), capture_output=True, text=True, timeout=DEADLINE,
                check=True,
            ).stdout.splitlines()  # fmt: skip
            token = run(
                "token", "--issuer", issuer, "--client-id", "welfare-backend", "--key", str(pem),
                f"--kid={kid}", "--scope", "krr:global/kontaktinformasjon.read",
            )  # fmt: skip
            bearer = {"Authorization": f"Bearer {json.loads(token.stdout)['access_token']}"}
            written = httpx.put(f"{url}people/17080000001", json={}, headers=bearer)
            stolen = httpx.get(
                f"{url}people/17080000001",
                headers={"Authorization": bearer["Authorization"][:-8] + "AAAAAAAA"},
            )

    contact = {"email": "kari@example.no", "mobile": "+4799999999", "readBy": "889640782"}
    assert office == [
        f"200 {json.dumps(contact, sort_keys=True)}",
        '404 {"readBy": "889640782"}',
    ]
    assert (written.status_code, written.json()["error"]) == (403, "insufficient_scope")
    assert stolen.status_code == 401
