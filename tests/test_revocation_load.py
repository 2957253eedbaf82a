"""A real server of two workers, a real PKI, real callers: what certificates do under load."""

import base64
import http.client
import json
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import httpx
import pytest

from maskinporten.consumer import Consumer, TokenRefused, read_key
from maskinporten.domain.client import JWT_BEARER
from maskinporten.issuer_folder import IssuerFolder, make_issuer_folder
from maskinporten.pki import Issued
from maskinporten.validator import TrustedIssuer, Validator
from tests.seals import IDENTIFIER, SCOPE
from tests.test_cli import DEADLINE, environ, free_port, started, wait_until_ready, written
from tests.world import CONSUMER, PROVIDER, private_key, sign

CONNECTIONS: Final = 6  # of each caller; kept open, so that each stays with one worker
REGISTRY: Final = {
    "prefixes": [{"prefix": "skatt", "owner_orgno": PROVIDER}],
    "scopes": [{"name": "skatt:open", "description": "For all", "accessible_for_all": True}, SCOPE],
    "clients": [{"client_id": "keyless", "client_orgno": CONSUMER, "scopes": ["skatt:open"]}],
}


@dataclass
class Live:
    """The server, and the PKI whose list it follows."""

    issuer: str
    port: int
    issuers: IssuerFolder
    url: str  # where the PKI's lists lie
    folder: Path
    parent: int  # process id of `serve`
    sealed: Issued


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """`pki serve` and `serve`, each as an operator starts them."""
    folder = tmp_path_factory.mktemp("live")
    now = int(time.time())
    issuers = make_issuer_folder(folder / "pki", now)
    port, lists = free_port(), free_port()
    issuer, url = f"http://127.0.0.1:{port}/", f"http://127.0.0.1:{lists}"
    sealed = issuers.issue_seal(IDENTIFIER, now, url=url, key=private_key("seal"))
    issuers.write_trust(folder / "trust", url)
    trust = folder / "trust" / "trust.toml"
    trust.write_text(trust.read_text().replace('"accept"', '"refuse"'))
    settings = {
        "ISSUER": issuer,
        "PORT": str(port),
        "WORKERS": "2",
        "DATABASE_URL": f"sqlite:///{folder / 'registry.db'}",
        "KEY_ENCRYPTION_KEY": base64.b64encode(bytes(32)).decode(),
        "ENVIRONMENT": "test",
        "SIGNING_KEY_BITS": "2048",
        "AUDIT_LOG": str(folder / "audit.jsonl"),
        "TRUST": str(folder / "trust"),
        "REVOCATION_REFRESH": "1",
    }
    with ExitStack() as stack:
        pki_folder = ["--folder", str(folder / "pki")]
        stack.enter_context(started("pki", "serve", *pki_folder, "--port", str(lists), cwd=folder))
        subprocess.run(
            [sys.executable, "-m", "maskinporten", "apply", written(folder, REGISTRY)],
            env=environ(**settings),
            check=True,
            capture_output=True,
            timeout=DEADLINE,
        )
        server = stack.enter_context(started("serve", cwd=folder, **settings))
        wait_until_ready(issuer)
        yield Live(issuer, port, issuers, url, folder, server.pid, sealed)


@dataclass
class Caller:
    """One certificate's holder, who asks over and over on connections that stay open."""

    live: Live
    key: str
    certificate: Issued
    # By the caller's own port: each answer's time, status and code, in order.
    answers: dict[int, list[tuple[float, int, str]]] = field(
        default_factory=lambda: defaultdict(list)
    )

    def grant(self) -> str:
        """A fresh one."""
        now = int(time.time())
        claims = {
            "aud": self.live.issuer, "iss": "keyless", "scope": "skatt:open", "iat": now,
            "exp": now + 60, "jti": f"{self.key}-{time.monotonic_ns()}",
        }  # fmt: skip
        x5c = [base64.b64encode(self.certificate.der).decode()]
        return sign({"alg": "RS256", "x5c": x5c}, claims, private_key(self.key))

    def ask(self, connection: http.client.HTTPConnection) -> tuple[int, str]:
        """One request: status, and the code where it is refused."""
        if connection.sock is None:
            connection.connect()
        port = connection.sock.getsockname()[1]
        body = urlencode({"grant_type": JWT_BEARER, "assertion": self.grant()})
        kind = {"content-type": "application/x-www-form-urlencoded"}
        connection.request("POST", "/token", body, kind)
        response = connection.getresponse()
        found = json.loads(response.read())
        code = str(found.get("error_uri", "")).rpartition("/")[2]
        self.answers[port].append((time.monotonic(), response.status, code))
        return response.status, code

    def keep_asking(self, stop: threading.Event) -> None:
        """On one connection, until told to stop."""
        connection = http.client.HTTPConnection("127.0.0.1", self.live.port, timeout=DEADLINE)
        while not stop.is_set():
            self.ask(connection)
            time.sleep(0.02)
        connection.close()


def workers_of(parent: int, ports: set[int]) -> dict[int, set[int]]:
    """Which of the server's processes holds the other end of which of our ports."""
    table = Path("/proc/net/tcp").read_text().splitlines()[1:]
    rows = [line.split() for line in table]
    remote = {row[9]: int(row[2].rpartition(":")[2], 16) for row in rows}
    found: dict[int, set[int]] = defaultdict(set)
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if int(place.joinpath("stat").read_text().rpartition(")")[2].split()[1]) != parent:
                continue
            links = [str(link.readlink()) for link in place.joinpath("fd").iterdir()]
        except OSError:
            continue
        sockets = {link[8:-1] for link in links if link.startswith("socket:[")}
        if held := {remote[name] for name in sockets if name in remote} & ports:
            found[int(place.name)] = held
    return found


def wait_until(happened: Any) -> None:
    """Or fail."""
    deadline = time.monotonic() + DEADLINE
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_revoked_certificate_stops_on_every_worker_under_load(live: Live) -> None:
    """Attack 22: tokens until the list is read, MP-120 from then on; nobody else notices."""
    now = int(time.time())
    callers = [
        Caller(live, name, live.issuers.issue(CONSUMER, now, url=live.url, key=private_key(name)))
        for name in ("revoked later", "never revoked")
    ]
    revoked, other = callers
    stop = threading.Event()
    threads = [
        threading.Thread(target=caller.keep_asking, args=(stop,))
        for caller in callers
        for _ in range(CONNECTIONS)
    ]
    for thread in threads:
        thread.start()

    # Under the strictest policy nobody gets in before every worker has read lists and answers.
    def everybody_gets_tokens() -> bool:
        return all(
            len(c.answers) == CONNECTIONS
            and all([status for _, status, _ in a[-3:]] == [200] * 3 for a in [*c.answers.values()])
            for c in callers
        )

    wait_until(everybody_gets_tokens)
    begun = {port: len(found) for c in callers for port, found in c.answers.items()}
    workers = workers_of(live.parent, set(revoked.answers))
    done = subprocess.run(
        [sys.executable, "-m", "maskinporten", "pki", "revoke",
         "--folder", str(live.folder / "pki"),
         str(live.folder / "pki" / f"{live.issuers.name_of(revoked.certificate)}.pem")],
        env=environ(), capture_output=True, text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    wait_until(lambda: all(a[-1][1] == 400 for a in list(revoked.answers.values())))
    seen = {port: len(answers) for port, answers in revoked.answers.items()}
    wait_until(lambda: all(len(revoked.answers[port]) > n + 3 for port, n in seen.items()))
    stop.set()
    for thread in threads:
        thread.join(DEADLINE)

    assert len(workers) == 2, "both workers were asked"
    assert set().union(*workers.values()) == set(revoked.answers)
    for port, answers in revoked.answers.items():
        outcomes = [(status, code) for _, status, code in answers[begun[port] :]]
        first = outcomes.index((400, "MP-120"))
        assert set(outcomes[:first]) == {(200, "")}
        assert set(outcomes[first:]) == {(400, "MP-120")}
    for port, answers in other.answers.items():
        assert {(status, code) for _, status, code in answers[begun[port] :]} == {(200, "")}


def test_a_european_business_and_an_api_that_knows_it(live: Live) -> None:
    """Our own consumer gets the token by a seal, our own validator tells whose it is.

    Nobody told the server where the seal's list lies: the first answer is 503, and the consumer
    asks again when it was told to.
    """
    stem = live.folder / "pki" / live.issuers.name_of(live.sealed)
    key = read_key(
        stem.with_name(f"{stem.name}.key.pem").read_bytes(),
        x5c=stem.with_name(f"{stem.name}.pem").read_bytes(),
    )
    consumer = Consumer(live.issuer, "whatever", key)
    token = consumer.token("skatt:eu")
    validator = Validator([TrustedIssuer(live.issuer)])
    valid = validator.validate(token.access_token, scope="skatt:eu")

    assert valid.consumer.identifier == IDENTIFIER
    assert valid.consumer.authority == "etsi-en-319-412"
    assert valid.consumer.orgno is None
    assert valid.claims["consumer"]["countryName"] == "DE"
    assert valid.claims["client_amr"] == "QCForESeal"
    assert valid.client_id == f"eidas-{live.sealed.certificate.serial_number}"
    with pytest.raises(TokenRefused):
        consumer.token("skatt:open")
    validator.close()
    metrics = httpx.get(f"{live.issuer}metrics").text
    assert 'refused_total{reason="TEMPORARILY_AWAY"} 0' not in metrics
    assert f"{live.url}/seals.crl" in httpx.get(f"{live.issuer}revocation").text
    live.issuers.revoke(live.sealed.certificate, int(time.time()))
    fresh = Consumer(live.issuer, "whatever", key, attempts=1)

    def is_refused() -> bool:
        try:
            fresh.token("skatt:eu", resource=f"https://x.example/{time.monotonic_ns()}")
        except TokenRefused as refused:
            return "certificate" in str(refused)
        return False

    wait_until(is_refused)
