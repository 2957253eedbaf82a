"""`maskinporten keys` as an operator meets it: real processes, beside a server that signs."""

import base64
import json
import re
import secrets
import shlex
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from maskinporten import pki
from maskinporten.domain.signing import SealedKey
from maskinporten.signing_requests import _certificates
from maskinporten.store.rows import Entities
from tests.test_cli import DEADLINE, KEY, free_port, run, serving, started, wait_until_ready
from tests.test_cli import written as registry_file
from tests.world import CONSUMER, assertion, document, form, private_key

IMPATIENT = {"JWKS_MAX_AGE": "0", "ROTATION_CACHE": "0", "ROTATION_LEAD": "60"}
YEAR = 365 * 86_400


def keys(*arguments: str, **settings: str) -> str:
    """A step that succeeds; what it says."""
    done = run("keys", *arguments, **settings)
    assert done.returncode == 0, done
    return done.stdout


def refused(*arguments: str, **settings: str) -> str:
    """A step that is not taken; sentences about why, and no traceback."""
    done = run("keys", *arguments, **settings)
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def kids(stage: str, **settings: str) -> list[str]:
    """The keys in that stage."""
    return keys("list", "--stage", stage, **settings).split()


@dataclass
class Live:
    """A server of two workers over the small world."""

    issuer: str
    settings: dict[str, str]

    def signer(self) -> str:
        """The kid of a token issued now, by some worker."""
        now = int(time.time())
        jti = secrets.token_urlsafe()
        grant = assertion(aud=self.issuer, iat=now, exp=now + 60, jti=jti)
        answer = httpx.post(f"{self.issuer}token", data=form(grant), timeout=30)
        header = answer.json()["access_token"].split(".")[0]
        kid: str = json.loads(base64.urlsafe_b64decode(header + "=="))["kid"]
        return kid

    def shown(self) -> list[str]:
        """What stands in /jwk of some worker."""
        return [key["kid"] for key in self.key_set()]

    def key_set(self) -> list[dict[str, Any]]:
        """All of it."""
        found: list[dict[str, Any]] = httpx.get(f"{self.issuer}jwk", timeout=30).json()["keys"]
        return found


def until(true: Callable[[], bool], times: int = 8) -> None:
    """Wait until it is true that many times in a row: on every worker, most likely."""
    deadline = time.monotonic() + DEADLINE
    row = 0
    while row < times:
        row = row + 1 if true() else 0
        assert time.monotonic() < deadline


@contextmanager
def live(folder: Path, **changes: str) -> Iterator[Live]:
    """Stopped at the end."""
    port = free_port()
    issuer = f"http://127.0.0.1:{port}/"
    settings = serving(folder, ISSUER=issuer, PORT=str(port), WORKERS="2", **changes)
    assert run("apply", registry_file(folder, document()), **settings).returncode == 0
    with started("serve", cwd=folder, **settings):
        wait_until_ready(issuer)
        yield Live(issuer, settings)


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> dict[str, str]:
    """Each database."""
    if request.param == "sqlite":
        return {}
    return {"DATABASE_URL": request.getfixturevalue("postgres_url")}


def test_a_stolen_key_is_out_of_use_on_every_worker(
    tmp_path: Path, database: dict[str, str]
) -> None:
    """Revoked by hand beside a running server; the spare signs, and a new spare is there."""
    with live(tmp_path, **database) as server:
        stolen, spare = server.shown()
        looked = refused("revoke", "--", stolen, **server.settings)
        assert f"would: {spare} signs every token" in looked
        assert "add --yes" in looked
        assert server.shown() == [stolen, spare]
        reason = ["--reason", "left on a bus", "--yes", "--", stolen]
        said = keys("revoke", *reason, **server.settings)
        until(lambda: stolen not in server.shown() and server.signer() == spare)

        assert "fetch /jwk now" in said
        assert f"{spare} signs every token" in said
        assert len(server.shown()) == 2
        assert httpx.get(f"{server.issuer}jwk").headers["cache-control"] == "public, max-age=60"
        assert kids("removed", **server.settings) == [stolen]
        assert "left on a bus" in keys("list", **server.settings)
        assert "gone already" in refused("revoke", "--yes", "--", stolen, **server.settings)


def test_rotation_by_hand_there_and_back(tmp_path: Path) -> None:
    """Activated before its time with --yes only; back without; removed early with --yes only."""
    with live(tmp_path, **IMPATIENT) as server:
        settings = server.settings
        old, spare = server.shown()
        assert f"{old} signs since" in keys("status", **settings)
        assert "safe from" in refused("rotate", **settings)
        said = keys("rotate", "--yes", **settings)
        until(lambda: server.signer() == spare)
        assert "is the new spare" in said
        assert len(server.shown()) == 3

        back = re.search(r"`keys (.*)` goes back", said)
        assert back is not None
        keys(*shlex.split(back[1]), **settings)
        until(lambda: server.signer() == old)
        assert "may live until" in refused("remove", "--", spare, **settings)
        keys("remove", "--yes", "--", spare, **settings)
        until(lambda: spare not in server.shown())
        assert kids("removed", **settings) == [spare]


def issued(request: Path, now: int) -> list[x509.Certificate]:
    """What an authority answers to a request: leaf, intermediate, root."""
    csr = x509.load_pem_x509_csr(request.read_bytes())
    assert csr.is_signature_valid
    return _issued(cast("RSAPrivateKey", csr), csr.subject, now)


def _issued(key: RSAPrivateKey, subject: x509.Name, now: int) -> list[x509.Certificate]:
    root = pki.make_root("Root", now, private_key("root"))
    issuing = pki.make_issuing_authority(root, "Issuing", now, private_key("issuing"))
    by = (issuing.certificate.subject, issuing.key)
    extensions = pki.leaf_extensions([pki.TEST_POLICIES[pki.Generation.SEID2]])
    dated = (now - 60, now + 2 * YEAR)
    leaf = pki.certify(subject, key, by, dated, extensions)
    return [leaf, issuing.certificate, root.certificate]


FORMS: list[Any] = [
    pytest.param(lambda chain: pki.chain_pem(*chain), id="PEM"),
    pytest.param(lambda chain: chain[0].public_bytes(Encoding.DER), id="DER"),
    pytest.param(lambda chain: pkcs7.serialize_certificates(chain, Encoding.DER), id="PKCS 7 DER"),
    pytest.param(lambda chain: pkcs7.serialize_certificates(chain, Encoding.PEM), id="PKCS 7 PEM"),
]


@pytest.mark.parametrize("form_of", FORMS)
def test_every_form_in_which_authorities_answer(
    form_of: Callable[[list[x509.Certificate]], bytes],
) -> None:
    """All the certificates of the file, in whatever order it has them."""
    chain = _issued(private_key("bought"), pki.ca_name("x"), int(time.time()))

    assert chain[0] in _certificates(form_of(chain))


def test_a_certificate_of_an_authority(tmp_path: Path) -> None:
    """Requested, issued, imported: it signs next, and shows its whole chain; once and no more."""
    settings = serving(tmp_path)
    keys("prepare", **settings)
    (spare,) = kids("prepared", **settings)
    request, answer = tmp_path / "request.pem", tmp_path / "answer"
    asked = keys("csr", "--out", str(request), "--orgno", CONSUMER, **settings)
    assert len(kids("prepared", **settings)) == 1, "a request is not published"
    chain = issued(request, int(time.time()))
    answer.write_bytes(pkcs7.serialize_certificates(chain, Encoding.DER))

    said = keys("import", str(answer), **settings)

    (imported,) = kids("prepared", **settings)
    assert imported in asked
    assert imported in said
    assert kids("retired", **settings) == [spare]
    assert "made here" in refused("import", str(answer), **settings)


def test_a_request_is_given_up_and_a_chain_may_lie_in_several_files(tmp_path: Path) -> None:
    """The private half is gone; another request is answered by a leaf and its issuer apart."""
    settings = serving(tmp_path)
    keys("prepare", **settings)
    request = tmp_path / "request.pem"
    asked = keys("csr", "--bits", "2048", "--out", str(request), **settings)
    kid = re.split(r"request for |, whose", asked)[1]
    assert "given up" in keys("remove", "--", kid, **settings)
    chain = issued(request, int(time.time()))
    files = [tmp_path / f"{number}.der" for number in range(2)]
    for file, certificate in zip(files, chain, strict=False):
        file.write_bytes(certificate.public_bytes(Encoding.DER))
    assert "made here" in refused("import", *map(str, files), **settings)

    keys("csr", "--out", str(request), **settings)
    files[0].write_bytes(issued(request, int(time.time()))[0].public_bytes(Encoding.DER))
    assert "is not in the file" in refused("import", str(files[0]), **settings)
    assert "signs next" in keys("import", *map(str, files), **settings)


def test_a_key_that_does_not_open_can_be_revoked(tmp_path: Path) -> None:
    """A row was tampered with (attack 37): no server starts on it, and the way out is open."""
    settings = serving(tmp_path)
    assert run("check", **settings).returncode == 0
    (active,), (spare,) = kids("active", **settings), kids("prepared", **settings)
    with sqlite3.connect(tmp_path / "registry.db") as database:
        swap = (
            "UPDATE entity SET body = json_set(body, '$.sealed', (SELECT json_extract(body, "
            "'$.sealed') FROM entity WHERE id = ?)) WHERE id = ?"
        )
        database.execute(swap, (spare, active))
    database.close()
    assert "does not open" in run("check", **settings).stderr
    assert "does not open" in refused("rotate", **settings)

    keys("revoke", "--yes", "--", active, **settings)

    assert kids("active", **settings) == [spare]
    assert run("check", **settings).returncode == 0


def test_a_pkcs12_brings_its_own_key_and_signs(tmp_path: Path) -> None:
    """Key and chain in one file; published on every worker at once, with its chain."""
    now = int(time.time())
    key, subject = (
        private_key("bought"),
        pki.enterprise_name("991825827", "Our AS", pki.Generation.SEID2),
    )
    chain = _issued(key, subject, now)
    store, password = tmp_path / "store.p12", tmp_path / "password"
    store.write_bytes(pki.write_pkcs12(pki.Issued(chain[0], key), chain[1:], b"hemmelig"))
    password.write_text("hemmelig\n")
    with live(tmp_path) as server:
        settings = server.settings
        common = ["import", str(store), "--password-file", str(password)]
        keys(*common, **settings)
        (imported,) = kids("prepared", **settings)
        until(lambda: imported in server.shown())
        shown = next(one for one in server.key_set() if one["kid"] == imported)
        assert [base64.b64decode(one) for one in shown["x5c"]] == [
            one.public_bytes(Encoding.DER) for one in chain
        ]
        keys("activate", "--yes", "--", imported, **settings)
        until(lambda: server.signer() == imported)
        assert "there already" in refused(*common, **settings)
        password.write_text("wrong")
        assert "password is another's" in refused(*common, **settings)
        assert "--password-file" in refused("import", str(store), **settings)


def test_the_key_encryption_key_is_changed_while_servers_run(tmp_path: Path) -> None:
    """Both open at first, what is made meanwhile opens everywhere; at last the new one alone."""
    new = base64.b64encode(secrets.token_bytes(32)).decode()
    with live(tmp_path) as server:
        old = server.settings
        both = {**old, "KEY_ENCRYPTION_KEY": new, "KEY_ENCRYPTION_KEY_PREVIOUS": KEY}
        alone = {**old, "KEY_ENCRYPTION_KEY": new}
        refusal = run("check", **{**alone, "PORT": str(free_port())})
        assert (refusal.returncode, "does not open" in refusal.stderr) == (1, True)
        keys("csr", "--out", str(tmp_path / "request.pem"), **both)
        keys("prepare", **both)
        keys("status", **old)  # a server that knows the old one alone opens what was made

        assert "4 keys" in keys("rewrap", **both)
        keys("prepare", **both)
        assert "does not open" in refused("status", **old)
        keys("status", **alone)
        assert server.signer() in server.shown(), "the running server signs on"
        keys("rewrap", **alone)
        assert len(kids("prepared", **alone)) == 3


def test_an_earlier_release_reads_a_revoked_key() -> None:
    """Members it does not know are passed over; the stage is one it knows, and is not published."""
    body: dict[str, Any] = {"kid": "k", "stage": "removed", "n": "", "e": "", "sealed": ""}
    row = ("signing_key", json.dumps({**body, "revoked": 1, "not_known_yet": {}}))

    (found,) = Entities([row, ("a_kind_not_known_yet", "{}")])

    assert isinstance(found, SealedKey)
    assert (found.stage, found.revoked) == ("removed", 1)
