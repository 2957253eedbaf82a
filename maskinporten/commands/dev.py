"""`dev`: a small world on this machine, and the main job done in it before your eyes."""

import argparse
import asyncio
import json
import os
import shlex
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx

from maskinporten.altinn_standin import StandIn, serve_standin
from maskinporten.commands.serve import prepare, run_server
from maskinporten.commands.token import decode, refusal
from maskinporten.consumer import Consumer, TokenError, TokenRefused, read_key
from maskinporten.errors import Fault, InvalidInput
from maskinporten.issuer_folder import serve_issuer_folder
from maskinporten.sandbox import (
    CERTIFIED_CLIENT_ID,
    CLIENT_ID,
    CONSUMER,
    DELEGABLE_SCOPE,
    SCOPE,
    SUPPLIER_CLIENT_ID,
    Sandbox,
    make_sandbox,
    register_sandbox,
)
from maskinporten.settings import Settings
from maskinporten.validator import KeysUnavailable, TokenInvalid, TrustedIssuer, Validator

_HOST = "127.0.0.1"
_START_DEADLINE = 60.0  # seconds


def add_parser(commands: Any) -> None:
    """Declare the command."""
    dev = commands.add_parser(
        "dev",
        help="run a sandbox here: organisations, a client, a key, a token to look at",
        description="Makes a small world in a folder, serves it, fetches a token in it over HTTP, "
        "validates the token against the published keys, and stays up.",
    )
    dev.add_argument("--data", type=Path, default=Path(".dev"), metavar="DIR", help="default .dev")
    dev.add_argument("--port", type=int, default=8080, help="another is taken if this is busy")
    dev.set_defaults(run=_dev)


def _dev(arguments: argparse.Namespace) -> int:
    port = _free_port(arguments.port)
    issuer = f"http://{_HOST}:{port}/"
    try:
        sandbox = make_sandbox(arguments.data)
    except OSError as fault:
        raise InvalidInput((Fault(str(fault.filename), str(fault.strerror)),)) from fault
    issuers = serve_issuer_folder(sandbox.issuers, (_HOST, 0), time.time)
    sandbox.write_trust(f"http://{_HOST}:{issuers.server_port}")
    standin = StandIn(sandbox.altinn_file, issuer)
    altinn = f"http://{_HOST}:{serve_standin(standin, (_HOST, 0)).server_port}/"
    os.environ.update(sandbox.environ(issuer, port, altinn))
    settings = Settings.from_environ()
    asyncio.run(register_sandbox(sandbox))
    asyncio.run(prepare(settings))
    if port != arguments.port:
        print(f"port {arguments.port} is busy; this is {port}")
    show = threading.Thread(target=_demonstrate, args=(sandbox, issuer, altinn), daemon=True)
    show.start()
    run_server(settings)
    return 0


def _free_port(wanted: int) -> int:
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((_HOST, port))
            except (OSError, OverflowError):
                continue
            free: int = probe.getsockname()[1]
            return free
    raise InvalidInput((Fault("--port", "no port is free"),))


def _demonstrate(sandbox: Sandbox, issuer: str, altinn: str) -> None:
    """The main job, as its two sides do it: a consumer fetches, a provider validates."""
    if not _wait_until_ready(issuer):
        print("the server did not become ready", file=sys.stderr)
        return
    try:
        key = read_key(sandbox.client_key.read_bytes(), kid=sandbox.kid)
        token = Consumer(issuer, CLIENT_ID, key).token(SCOPE)
        validator = Validator([TrustedIssuer(issuer)])
        valid = validator.validate(token.access_token, scope=SCOPE)
        validator.close()
    except TokenRefused as refused:
        print(json.dumps(refusal(refused), indent=2), file=sys.stderr)
        return
    except (TokenError, TokenInvalid, KeysUnavailable) as fault:
        print(f"the main job failed: {fault}", file=sys.stderr)
        return
    seen = decode(token.access_token)
    answer = {
        "access_token": token.access_token,
        "token_type": token.token_type,
        "expires_in": token.expires_in,
        "scope": token.scope,
    }
    print(_screen(sandbox, issuer, answer, seen, str(valid.consumer.orgno)))
    print(_suppliers_screen(sandbox, issuer, altinn), flush=True)


def _wait_until_ready(issuer: str) -> bool:
    deadline = time.monotonic() + _START_DEADLINE
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{issuer}health", timeout=2).status_code == httpx.codes.OK:
                return True
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    return False


def _screen(
    sandbox: Sandbox, issuer: str, answer: dict[str, Any], seen: dict[str, Any], orgno: str
) -> str:
    program = shlex.join(_program())
    ask = (
        f"{program} token --issuer {issuer} --client-id {CLIENT_ID} "
        f"--key {shlex.quote(str(sandbox.client_key))} --kid={sandbox.kid} --scope {SCOPE}"
    )
    pem = shlex.quote(f"{sandbox.certificate}.pem")
    by_certificate = (
        f"{program} token --issuer {issuer} --client-id {CERTIFIED_CLIENT_ID} "
        f"--cert-chain {pem} --key {shlex.quote(f'{sandbox.certificate}.key.pem')} --scope {SCOPE}"
    )
    revoke = f"{program} pki revoke --folder {shlex.quote(str(sandbox.folder / 'pki'))} {pem}"
    return f"""
Maskinporten sandbox
  listens on   {issuer}
  data in      {sandbox.folder}
  health       {issuer}health      keys  {issuer}jwk

A grant was signed by {CLIENT_ID} and posted to {issuer}token. The answer:
{json.dumps(answer, indent=2)}

The token holds against {issuer}jwk: consumer {orgno}, scope {SCOPE}.
{json.dumps(seen, indent=2)}

Paste into another terminal:

  {ask} --decode

  curl -s {issuer}token \\
    -d grant_type=urn:ietf:params:oauth:grant-type:jwt-bearer \\
    -d assertion=$({ask} --grant-only)

  export MASKINPORTEN_DATABASE_URL={shlex.quote(sandbox.database_url)}; {program} export

With an enterprise certificate instead of a registered key, and how to revoke it:

  {by_certificate}

  {revoke}"""


def _suppliers_screen(sandbox: Sandbox, issuer: str, altinn: str) -> str:
    kid = sandbox.supplier_key.with_name("supplier-kid").read_text().strip()
    ask = (
        f"{shlex.join(_program())} token --issuer {issuer} --client-id {SUPPLIER_CLIENT_ID} "
        f"--key {shlex.quote(str(sandbox.supplier_key))} --kid={kid}"
    )
    system_user = {
        "type": "urn:altinn:systemuser",
        "systemuser_org": {"authority": "iso6523-actorid-upis", "ID": f"0192:{CONSUMER}"},
    }
    fault = json.dumps({"mode": "down"})
    return f"""
A supplier acts for the consumer, who delegated it in Altinn; a stand-in answers at {altinn}
from {sandbox.altinn_file}. With a system user instead; and how to make Altinn fail:

  {ask} --scope {DELEGABLE_SCOPE} --consumer-org {CONSUMER} --decode

  {ask} --scope sandbox:open.read --authorization-details '{json.dumps([system_user])}' --decode

  curl -X PUT {altinn}faults -d '{fault}'      # or slow, lying, html, 500, …; none ends it

Stop with Ctrl-C; `dev` goes on from here the next time."""


def _program() -> list[str]:
    """How this program was started, so that it can be started elsewhere too."""
    beside = Path(sys.executable).with_name("maskinporten")
    return [str(beside)] if beside.exists() else [sys.executable, "-m", "maskinporten"]
