"""Signing keys in a PKCS #11 token: SoftHSM, which keeps the promises of a real one."""

import base64
import os
import sqlite3
import subprocess
from dataclasses import replace
from pathlib import Path

import jwt
import pkcs11
import pytest
from cryptography import x509
from pkcs11 import Attribute, ObjectClass

from maskinporten.app import open_keyring
from maskinporten.domain.registry import Registry, Revision
from maskinporten.domain.rotation import RotationPolicy
from maskinporten.domain.signing import SealedKey, Stage, published
from maskinporten.errors import InvalidInput, Unavailable
from maskinporten.hsm import Token
from maskinporten.keyring import KeyNotInToken, Keyring
from maskinporten.settings import Settings
from tests.test_cli import run, serving
from tests.test_keys import keys, kids, live, refused, until
from tests.world import ISSUER, NOW

MODULES = sorted(Path("/usr/lib").glob("**/libsofthsm2.so"))
PIN = "5678"


@pytest.fixture(scope="module")
def softhsm(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A token labelled maskinporten, in a folder of its own; the settings that open it."""
    folder = tmp_path_factory.mktemp("softhsm")
    (folder / "tokens").mkdir()
    (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder / 'tokens'}\n")
    # The library reads this when it is first loaded, in this process and in those it starts.
    os.environ["SOFTHSM2_CONF"] = str(folder / "softhsm2.conf")
    made = ["softhsm2-util", "--init-token", "--free", "--label", "maskinporten"]
    subprocess.run([*made, "--so-pin", "1234", "--pin", PIN], check=True, capture_output=True)
    (folder / "pin").write_text(PIN + "\n")
    return {
        "PKCS11_MODULE": str(MODULES[0]),
        "PKCS11_TOKEN": "maskinporten",
        "PKCS11_PIN_FILE": str(folder / "pin"),
    }


@pytest.fixture(scope="module")
def token(softhsm: dict[str, str]) -> Token:
    """Logged in to."""
    return Token(Path(softhsm["PKCS11_MODULE"]), "maskinporten", PIN.encode())


def keyring(token: Token | None) -> Keyring:
    """A keyring that makes new keys in the token, if there is one."""
    policy = RotationPolicy()
    return Keyring(
        bytes(32), ISSUER, policy, lambda: NOW, token=token, new_in_token=token is not None
    )


def holding(key: SealedKey) -> Registry:
    """A registry in which the key signs."""
    active = replace(key, stage=Stage.ACTIVE, activated=NOW)
    return Registry().with_entities(Revision(1), [active])


def test_a_key_signs_in_the_token_and_never_leaves_it(token: Token) -> None:
    """The row holds a reference, the token will not give the private numbers."""
    made = keyring(token).prepare(NOW, 2048)
    ring = keyring(token)
    ring.load(holding(made))
    shown = jwt.PyJWK(published((made,))["keys"][0])

    assert made.sealed == ""
    assert made.token.startswith("pkcs11:token=maskinporten;id=")
    assert shown.Algorithm.verify(b"text", shown.key, ring.signing_key().sign(b"text"))
    assert made.kid in repr(ring.signing_key())
    private = list(token._session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY}))[-1]
    assert (private[Attribute.SENSITIVE], private[Attribute.EXTRACTABLE]) == (True, False)
    with pytest.raises(pkcs11.exceptions.AttributeSensitive):
        private[Attribute.PRIVATE_EXPONENT]


def test_its_certificate_is_signed_in_the_token(token: Token) -> None:
    """Self-signed like that of any other key, by a key we do not have."""
    made = keyring(token).prepare(NOW, 2048)
    certificate = x509.load_der_x509_certificate(base64.b64decode(made.x5c[0]))

    certificate.verify_directly_issued_by(certificate)


def test_a_destroyed_key_does_not_open(token: Token) -> None:
    """Nor one of another token, nor one where no token is configured."""
    ring = keyring(token)
    made = ring.prepare(NOW, 2048)
    other = replace(made, token=made.token.replace("maskinporten", "another"))
    moved = replace(ring.prepare(NOW, 2048), token=made.token)
    for wrong, of in ((other, token), (made, None), (moved, token)):
        with pytest.raises(KeyNotInToken):
            keyring(of).load(holding(wrong))
    ring.destroy(made)
    with pytest.raises(KeyNotInToken):
        keyring(token).load(holding(made))


def test_a_key_that_was_destroyed_under_a_worker_is_no_defect(token: Token) -> None:
    """Revoked by hand: until the worker hears of it, it cannot sign, and says 503."""
    ring = keyring(token)
    made = ring.prepare(NOW, 2048)
    ring.load(holding(made))
    key = ring.signing_key()
    keyring(token).destroy(made)

    with pytest.raises(Unavailable):
        key.sign(b"text")


def test_a_key_that_nobody_wrote_is_not_left_in_the_token(token: Token) -> None:
    """Of many workers that make a key at once, one is right; the others clean up."""
    ring = keyring(token)
    kept, lost = ring.prepare(NOW, 2048), ring.prepare(NOW, 2048)
    ring.forget([kept, lost], [kept])

    ring.open(kept)
    with pytest.raises(KeyNotInToken):
        ring.open(lost)


# The library closes its search on the dead session once more, and Python tells of it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_lost_session_is_opened_again(token: Token) -> None:
    """A token that was restarted signs on."""
    ring = keyring(token)
    ring.load(holding(ring.prepare(NOW, 2048)))
    token._session.close()

    assert len(ring.signing_key().sign(b"text")) == 256


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_pin_that_was_refused_is_not_tried_again(softhsm: dict[str, str]) -> None:
    """A server that goes on trying would lock the token for everyone."""
    token = Token(Path(softhsm["PKCS11_MODULE"]), "maskinporten", PIN.encode())
    ring = keyring(token)
    ring.load(holding(ring.prepare(NOW, 2048)))
    pkcs11.lib(softhsm["PKCS11_MODULE"]).reinitialize()  # as after a restart of the token
    token._pin = "0000"
    for sentence in ("PIN is wrong", "has refused the PIN"):
        with pytest.raises(Unavailable, match=sentence):
            ring.signing_key().sign(b"text")


WRONG = [
    pytest.param({"PKCS11_MODULE": "/no/such.so"}, "cannot be loaded", id="no module"),
    pytest.param({"PKCS11_MODULE": __file__}, "cannot be loaded", id="not a module"),
    pytest.param({"PKCS11_TOKEN": "other"}, "no token labelled 'other'", id="no token"),
    pytest.param({"PKCS11_TOKEN": ""}, "needs MASKINPORTEN_PKCS11_TOKEN", id="no label"),
    pytest.param({"PKCS11_PIN_FILE": "/no/such"}, "cannot be read", id="no PIN"),
]


@pytest.mark.parametrize(("wrong", "sentence"), WRONG)
def test_a_token_that_cannot_be_used_is_one_sentence(
    tmp_path: Path, softhsm: dict[str, str], wrong: dict[str, str], sentence: str
) -> None:
    """Which setting, and what is wrong with it."""
    chosen = {**serving(tmp_path), **softhsm, **wrong}
    environ = {f"MASKINPORTEN_{name}": value for name, value in chosen.items()}
    with pytest.raises(InvalidInput, match=sentence) as refusal:
        open_keyring(Settings.from_environ(environ), RotationPolicy())
    assert len(refusal.value.faults) == 1


def test_another_pin_is_one_sentence_at_start(tmp_path: Path, softhsm: dict[str, str]) -> None:
    """Before anything is served."""
    failed = run("check", **{**serving(tmp_path), **softhsm, "PKCS11_PIN_FILE": __file__})

    assert (failed.returncode, "PIN is wrong" in failed.stderr) == (1, True)
    assert len(failed.stderr.strip().splitlines()) == 1, failed.stderr


def test_a_token_is_asked_for_and_none_is_named() -> None:
    """A sentence, not a key in the wrong place."""
    with pytest.raises(InvalidInput, match="token is asked for"):
        keyring(None).prepare_in_token(NOW)


def test_tokens_are_signed_in_the_token_by_every_worker(
    tmp_path: Path, softhsm: dict[str, str]
) -> None:
    """Made by hand beside a running server, activated, and destroyed when it is revoked."""
    with live(tmp_path, **softhsm) as server:
        settings = server.settings
        (spare,) = kids("prepared", **settings)
        said = keys("prepare", "--hsm", **settings)
        (made,) = {*kids("prepared", **settings)} - {spare}
        assert made in said
        keys("activate", "--yes", "--", made, **settings)
        until(lambda: server.signer() == made)
        without = {k: v for k, v in settings.items() if not k.startswith("PKCS11")}
        assert "lies in a PKCS #11 token" in refused("status", **without)
        keys("revoke", "--yes", "--", made, **settings)
        until(lambda: server.signer() == spare)
        token = Token(Path(softhsm["PKCS11_MODULE"]), "maskinporten", PIN.encode())
        assert token.destroy(_reference(settings, made)) is False, "it was destroyed by `revoke`"
        with pytest.raises(Unavailable):  # a worker that has not heard answers 503, not a blank 500
            token.sign(bytes(20), b"signing input")


def _reference(settings: dict[str, str], kid: str) -> str:
    path = settings["DATABASE_URL"].removeprefix("sqlite:///")
    with sqlite3.connect(path) as database:
        query = "SELECT json_extract(body, '$.token') FROM entity WHERE id = ?"
        found: str = database.execute(query, (kid,)).fetchone()[0]
    assert found.startswith("pkcs11:")
    return found
