"""A real server beside the stand-in for Altinn: suppliers' tokens, faults, others' peace."""

import base64
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from maskinporten.altinn_file import read_known
from maskinporten.altinn_standin import FAULT_MODES, FAULT_STATUSES, StandIn, serve_standin
from maskinporten.cli import main
from maskinporten.consumer import Consumer, TokenRefused, read_key
from maskinporten.errors import InvalidInput
from maskinporten.validator import TrustedIssuer, Validator
from tests.world import (
    CONSUMER,
    SOURCE,
    STRANGER,
    SUPPLIER,
    assertion,
    document,
    form,
    private_key,
)

DEADLINE: Final = 60.0  # seconds for what happens soon on any machine
WAITING: Final = 8
LAST_WORDS: Final = "Stop with Ctrl-C; `dev` goes on from here the next time."
CONSENT_ID: Final = "f70542a8-1b3f-4a5e-9d5a-0a4d6f6f1a11"
PERSON: Final = "urn:altinn:person:identifier-no:25922947409"
KNOWN: Final[dict[str, Any]] = {
    "delegations": [
        {"consumer_org": CONSUMER, "supplier_org": SUPPLIER, "scopes": ["skatt:delegert"]}
    ],
    "system_users": [
        {"owner": STRANGER, "vendor": SUPPLIER, "clients": ["vendor"], "system_id": "s"},
        {
            "owner": STRANGER,
            "vendor": SUPPLIER,
            "clients": ["vendor"],
            "system_id": "t",
            "external_ref": "kunde-2",
        },
    ],
    "consents": [
        {"id": CONSENT_ID, "giver": PERSON, "to": SUPPLIER, "rights": [{"resource": "inntekt"}]}
    ],
}


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        found: int = probe.getsockname()[1]
    return found


def soon(happened: Callable[[], bool]) -> None:
    """Wait until it has."""
    deadline = time.monotonic() + DEADLINE
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@dataclass
class Place:
    """A server process, the stand-in in this process, and a client of both."""

    issuer: str
    altinn: str
    standin: StandIn
    file: Path
    environment: dict[str, str]
    http: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=DEADLINE))

    def grant(self, client_id: str = "consumer", **claims: Any) -> str:
        """A grant of now."""
        now = int(time.time())
        times = {"aud": self.issuer, "iat": now, "exp": now + 110}
        return assertion(client_id, **{**times, **claims})

    def delegated(self) -> str:
        """A supplier's."""
        return self.grant("vendor", scope="skatt:delegert", consumer_org=CONSUMER)

    def post(self, grant: str) -> httpx.Response:
        """POST /token."""
        return self.http.post(f"{self.issuer}token", data=form(grant))

    def fail(self, mode: str, seconds: float = 0) -> None:
        """PUT /faults."""
        told = {"mode": mode, "seconds": seconds}
        assert self.http.put(f"{self.altinn}faults", json=told).json() == told

    def knows(self, **changes: Any) -> None:
        """Change the file; wait for nothing, for it is looked at for each question."""
        self.file.write_text(json.dumps({**KNOWN, **changes}))

    def metric(self, name: str) -> float:
        """A figure of /metrics."""
        text = self.http.get(f"{self.issuer}metrics").text
        found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
        assert found
        return float(found[1])

    def health(self) -> str:
        """The word of /health."""
        word: str = self.http.get(f"{self.issuer}health").json()["status"]
        return word


@pytest.fixture(scope="module")
def place_of_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One server process for all, that remembers nothing."""
    folder = tmp_path_factory.mktemp("altinn")
    port, file = free_port(), folder / "altinn.json"
    issuer = f"http://127.0.0.1:{port}/"
    file.write_text(json.dumps(KNOWN))
    standin = StandIn(file, issuer)
    server = serve_standin(standin, ("127.0.0.1", 0))
    altinn = f"http://127.0.0.1:{server.server_port}/"
    (folder / "registry.json").write_text(json.dumps(document()))
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MASKINPORTEN_")}
    settings = {
        "ISSUER": issuer,
        "PORT": str(port),
        "WORKERS": "1",
        "DATABASE_URL": f"sqlite:///{folder / 'registry.db'}",
        "KEY_ENCRYPTION_KEY": base64.b64encode(bytes(32)).decode(),
        "SIGNING_KEY_BITS": "2048",
        "AUDIT_LOG": str(folder / "audit.jsonl"),
        "ALTINN": f"{SOURCE}={altinn}",
        "ALTINN_ORGNO": CONSUMER,
        "DRAIN": "0",
        "ALTINN_REMEMBER": "0",
        "ALTINN_REMEMBER_NO": "0",
        "ALTINN_DEADLINE": "20",
        "ALTINN_WAITING": str(WAITING),
    }
    environment |= {f"MASKINPORTEN_{name}": value for name, value in settings.items()}
    program = [sys.executable, "-m", "maskinporten"]
    subprocess.run([*program, "apply", str(folder / "registry.json")], env=environment, check=True)
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen([*program, "serve"], env=environment, stdout=log, stderr=log) as process,
    ):
        place = Place(issuer, altinn, standin, file, environment)
        try:
            soon(lambda: is_ready(issuer))
            yield place
        finally:
            standin.fault = type(standin.fault)()
            process.terminate()
            process.wait(DEADLINE)
            place.http.close()
            server.shutdown()
            server.server_close()
            standin.close()


def is_ready(issuer: str) -> bool:
    """Whether the server would answer."""
    try:
        return httpx.get(f"{issuer}readyz").is_success
    except httpx.TransportError:
        return False


@pytest.fixture
def place(place_of_module: Place) -> Iterator[Place]:
    """The place, in good order before and after."""
    place_of_module.knows()
    yield place_of_module
    place_of_module.fail("none")
    place_of_module.knows()
    soon(lambda: place_of_module.health() == "UP")


def vendor(place: Place) -> Consumer:
    """The supplier's own program, with the library we hand out."""
    return Consumer(place.issuer, "vendor", read_key(private_key("vendor"), kid="vendor"))


def test_a_supplier_by_our_own_libraries(place: Place) -> None:
    """Consumer and validator: a delegated token names both organisations."""
    token = vendor(place).token("skatt:delegert", consumer_org=CONSUMER)
    validator = Validator([TrustedIssuer(place.issuer)])
    valid = validator.validate(token.access_token, scope="skatt:delegert")
    validator.close()

    assert str(valid.consumer.orgno) == CONSUMER
    assert valid.supplier is not None
    assert str(valid.supplier.orgno) == SUPPLIER
    assert valid.delegation_source == SOURCE


def system_user(**changes: Any) -> list[dict[str, Any]]:
    """The request of a vendor."""
    owner = {"authority": "iso6523-actorid-upis", "ID": f"0192:{STRANGER}"}
    return [{"type": "urn:altinn:systemuser", "systemuser_org": owner, **changes}]


CONSENT: Final = [{"type": "urn:altinn:consent", "id": CONSENT_ID, "from": PERSON}]


def test_system_users_and_consents_by_our_own_library(place: Place) -> None:
    """Two system users of one customer are told apart; a consent is to its receiver."""
    consumer = vendor(place)
    systems = []
    for wish in (system_user(), system_user(externalRef="kunde-2")):
        token = consumer.token("skatt:open", authorization_details=wish)
        (element,) = claims(token.access_token)["authorization_details"]
        systems.append(element["system_id"])
    assert systems == ["s", "t"]
    token = consumer.token("skatt:open", authorization_details=CONSENT)
    (element,) = claims(token.access_token)["authorization_details"]
    assert element["to"]["ID"] == f"0192:{SUPPLIER}"
    assert element["consentRights"][0]["resource"][0]["value"] == "inntekt"
    with pytest.raises(TokenRefused) as refused:
        consumer.token("skatt:open", authorization_details=system_user(externalRef="kunde-3"))
    assert refused.value.error == "invalid_altinn_customer_configuration"


def claims(token: str) -> dict[str, Any]:
    """What the token says."""
    part = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


def test_what_is_withdrawn_is_gone(place: Place) -> None:
    """The file is read again when it changes; a broken one leaves what was known."""
    assert place.post(place.delegated()).status_code == 200
    place.knows(delegations=[])
    assert place.post(place.delegated()).json()["error_uri"].endswith("MP-251")
    place.file.write_text("{")
    assert place.post(place.delegated()).json()["error_uri"].endswith("MP-251")
    place.knows()
    assert place.post(place.delegated()).status_code == 200


@pytest.mark.parametrize("state", ["revoked", "created", "expired", "another"])
def test_a_consent_that_does_not_hold(place: Place, state: str) -> None:
    """MP-303, whatever the reason."""
    changes: dict[str, Any] = {
        "expired": {"valid_to": "2024-01-02T00:00:00Z"},
        "another": {"to": CONSUMER},
    }.get(state, {"state": state})
    place.knows(consents=[{**KNOWN["consents"][0], **changes}])

    refused = place.post(
        place.grant("vendor", scope="skatt:open", authorization_details=CONSENT)
    ).json()
    assert refused["error"] == "invalid_authorization_details"
    assert refused["error_uri"].endswith("MP-303")


CANNOT: Final = sorted({*FAULT_MODES, *FAULT_STATUSES} - {"none", "slow", "lying"})


@pytest.mark.parametrize("mode", CANNOT)
def test_a_fault_spends_nothing(place: Place, mode: str) -> None:
    """503 while it lasts; then the very same grant gets its token, once."""
    place.fail(mode)
    grant = place.delegated()
    refused = place.post(grant)
    assert (refused.status_code, refused.json()["error"]) == (503, "temporarily_unavailable")
    assert int(refused.headers["retry-after"]) >= 1

    place.fail("none")
    soon(lambda: place.health() == "UP")
    assert place.post(grant).status_code == 200
    assert place.post(grant).json()["error_uri"].endswith("MP-012")


def test_a_lying_altinn_opens_nothing(place: Place) -> None:
    """Answers about others are a no; others' tokens flow, and the operator can see it."""
    place.fail("lying")

    for _ in range(6):
        assert place.post(place.delegated()).status_code == 403
        assert place.post(place.grant()).status_code == 200
    for wish in (system_user(), CONSENT):
        grant = place.grant("vendor", scope="skatt:open", authorization_details=wish)
        assert place.post(grant).json()["error_uri"].endswith("MP-303")
    assert place.metric('maskinporten_altinn_calls_total{outcome="mismatch"}') == 8


def test_a_slow_altinn_keeps_nobody_else_waiting(place: Place) -> None:
    """Plain grants are answered while suppliers wait; who finds no place is told at once."""
    place.fail("slow", 600)
    grants = [place.delegated() for _ in range(WAITING + 4)]
    with ThreadPoolExecutor(len(grants)) as pool:
        waiting: list[Future[httpx.Response]] = [pool.submit(place.post, g) for g in grants]
        try:
            done, pending = wait(waiting, DEADLINE, return_when="FIRST_COMPLETED")
            soon(lambda: sum(each.done() for each in waiting) >= 4)
            refused = [each.result() for each in waiting if each.done()]
            for _ in range(30):
                assert place.post(place.grant()).status_code == 200
            still = [each for each in waiting if not each.done()]
        finally:
            place.fail("none")
        answers = [each.result() for each in still]

    assert done
    assert pending
    assert [each.status_code for each in refused] == [503] * 4
    assert [each.status_code for each in answers] == [200] * WAITING
    spent = {each for each in grants if place.post(each).status_code == 400}
    assert len(spent) == WAITING, "the grants that were refused were not spent"


def test_a_stopped_altinn_is_left_alone(place: Place) -> None:
    """A few questions fail; then none is asked but our own, and plain grants are served."""
    place.fail("down")
    before = place.standin.asked
    for _ in range(40):
        refused = place.post(place.delegated())
        assert (refused.status_code, refused.json()["error"]) == (503, "temporarily_unavailable")
        assert place.post(place.grant()).status_code == 200
    asked = place.standin.asked - before

    assert place.health() == "DEGRADED"
    assert place.metric("maskinporten_altinn_away") == 1
    # 80 grants, of which the first five asked, twice where a kept connection was cut; a probe
    # comes after 1, 2, 4, … seconds.
    assert asked <= 5 * 2 + 2 * 6
    place.fail("none")
    soon(lambda: place.health() == "UP")
    assert place.post(place.delegated()).status_code == 200


def test_the_token_command_takes_details_in_every_form(
    place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An array, one object, a file with either; what is no JSON, or not there, is a sentence."""
    key, file = tmp_path / "key.pem", tmp_path / "details.json"
    pem = private_key("vendor").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    key.write_bytes(pem)
    file.write_text(json.dumps(system_user()))
    command = [
        "token", "--issuer", place.issuer, "--client-id", "vendor", "--key", str(key),
        "--kid", "vendor", "--scope", "skatt:open", "--decode", "--authorization-details",
    ]  # fmt: skip
    for given in (json.dumps(system_user()), json.dumps(system_user()[0]), str(file)):
        assert main([*command, given]) == 0
        shown = json.loads(capsys.readouterr().out)["claims"]["authorization_details"]
        assert shown[0]["system_id"] == "s"
    file.write_bytes(b"\xff")
    for given, words in (("[", "not JSON"), (str(file), "not JSON"), ("no-file", "No such file")):
        assert main([*command, given]) == 1
        assert words in capsys.readouterr().err


@pytest.fixture
def as_operator(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """This process has the server's own settings."""
    for name, value in place.environment.items():
        if name.startswith("MASKINPORTEN_"):
            monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("as_operator")
def test_explain_asks_too(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """`explain --ask-altinn`: what Altinn says now; where it cannot be asked, that stays open."""
    command = [
        "explain", "--ask-altinn", "--client", "vendor",
        "--scope", "skatt:delegert", "--consumer-org", CONSUMER,
    ]  # fmt: skip

    assert main(command) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("granted: ")
    assert f"{SOURCE} confirms it (asked)" in shown
    place.fail("500")
    assert main(command) == 0
    away = capsys.readouterr()
    assert away.out.startswith("depends: ")
    assert "not asked: Altinn" in away.err
    assert main([*command, "--at", "1"]) == 1


@pytest.mark.usefixtures("as_operator")
def test_check_names_sources_without_a_line(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An operator sees why suppliers get MP-251 before they call."""
    words = f"{SOURCE} is not in MASKINPORTEN_ALTINN: nobody can delegate skatt:delegert"
    assert main(["check"]) == 0
    assert words not in capsys.readouterr().out
    other = place.environment["MASKINPORTEN_ALTINN"].replace("tt02", "www")
    monkeypatch.setenv("MASKINPORTEN_ALTINN", other)
    assert main(["check"]) == 0
    assert words in capsys.readouterr().out


def test_it_believes_tokens_of_its_issuer_alone(place: Place) -> None:
    """As Altinn: no token, a broken one, one for something else."""
    path = f"{place.altinn}accessmanagement/api/v1/maskinporten/delegations/"
    plain = place.post(place.grant()).json()["access_token"]
    for token, status in (("x", 401), ("x.y.z", 401), (plain, 403)):
        answer = place.http.get(path, headers={"authorization": f"Bearer {token}"})
        assert (answer.status_code, answer.json()["status"]) == (status, status)
        assert answer.headers["content-type"].startswith("application/problem+json")
    assert place.http.get(f"{place.altinn}elsewhere").status_code == 404


@pytest.mark.parametrize(
    "told", [b"", b"{", b"[]", b'{"mode": "x"}', b'{"mode": "slow", "seconds": -1}', b'{"m": 1}']
)
def test_faults_it_does_not_know(place: Place, told: bytes) -> None:
    """A sentence, and it stays as it was."""
    answer = place.http.put(f"{place.altinn}faults", content=told)

    assert answer.status_code == 400
    assert place.http.get(f"{place.altinn}faults").json() == {"mode": "none", "seconds": 0.0}


BAD_FILES = [
    pytest.param("{", "Expecting", id="not JSON"),
    pytest.param('{"delegation": []}', "delegation", id="a typo"),
    pytest.param('{"delegations": [{"consumer_org": "1"}]}', "$.delegations[0]", id="a number"),
    pytest.param('{"consents": [{"id": "x"}]}', "$.consents[0].id", id="no UUID"),
]


@pytest.mark.parametrize(("text", "words"), BAD_FILES)
def test_a_faulty_file_is_a_sentence(tmp_path: Path, text: str, words: str) -> None:
    """Where it is wrong."""
    path = tmp_path / "altinn.json"
    path.write_text(text)
    with pytest.raises(InvalidInput) as invalid:
        read_known(path)
    assert words in str(invalid.value)
    assert str(path) in str(invalid.value)


def test_the_readmes_three_lines(tmp_path: Path) -> None:
    """A newcomer pastes them: the supplier's token, then the withdrawal."""
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    block = readme.split("A supplier's token, end to end")[1].split("```console\n")[1]
    first, ask, withdraw = (
        line.removeprefix("$ ") for line in block.split("```")[0].strip().splitlines()
    )
    port = free_port()
    program = f"{sys.executable} -m maskinporten"
    first = first.replace(".venv/bin/maskinporten", program).replace("8080", str(port))

    def paste(*lines: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["bash", "-c", "\n".join(lines)],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip

    kept = {k: v for k, v in os.environ.items() if not k.startswith("MASKINPORTEN_")}
    environment = {**kept, "PYTHONPATH": str(Path(__file__).parent.parent)}
    with subprocess.Popen(
        [*program.split(), "dev", "--port", str(port)],
        cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True,
    ) as dev:  # fmt: skip
        try:
            assert dev.stdout is not None
            screen = "".join(iter(dev.stdout.readline, f"{LAST_WORDS}\n"))
            assert f"{tmp_path / '.dev' / 'altinn.toml'}" in screen
            shown = json.loads(paste(first, ask).stdout)["claims"]
            assert shown["supplier"]["ID"] == "0192:310000035"
            assert shown["consumer"]["ID"] == "0192:310000027"
            assert shown["delegation_source"] == SOURCE
            assert paste(withdraw).returncode == 0
            soon(lambda: "MP-251" in paste(first, ask).stderr)
            system_user = screen.split("fail:\n\n")[1].split("\n\n")[1].strip()
            (element,) = json.loads(paste(system_user).stdout)["claims"]["authorization_details"]
            assert element["system_id"] == "310000035_reports"
        finally:
            dev.terminate()


def test_the_command_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It says where it listens and which settings lead there; its faults are sentences."""
    file = tmp_path / "altinn.toml"
    file.write_text('[[delegations]]\nconsumer_org = "991825827"\nsupplier_org = "889640782"\n'
                    'scopes = ["a:b"]\n')  # fmt: skip
    for arguments, words in (
        (("--registry", str(tmp_path / "no")), "No such file"),
        (("--registry", str(file), "--port", "99999999"), "--port"),
        (("--registry", str(file), "--issuer", "ftp://x/"), "--issuer"),
    ):
        assert main(["altinn", *arguments]) == 1
        assert words in capsys.readouterr().err
    with subprocess.Popen(
        [sys.executable, "-m", "maskinporten", "altinn", "--registry", str(file), "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        base = lines[0].split()[-1]
        assert f"MASKINPORTEN_ALTINN={SOURCE}={base}" in lines[1]
        assert httpx.get(f"{base}faults").json()["mode"] == "none"
        process.terminate()
