"""Settings: every fault at once, in sentences, and no secret among them."""

import base64
from pathlib import Path

import pytest

from maskinporten.errors import InvalidInput
from maskinporten.settings import SETTINGS, Environment, Settings

KEY = base64.b64encode(bytes(range(32))).decode()
GOOD = {
    "MASKINPORTEN_ISSUER": "https://maskinporten.example/",
    "MASKINPORTEN_DATABASE_URL": "sqlite:////var/lib/x.db",
    "MASKINPORTEN_KEY_ENCRYPTION_KEY": KEY,
    "PATH": "/bin",
}


def test_good_settings() -> None:
    """What is not set has a safe default."""
    settings = Settings.from_environ(GOOD)

    assert settings.environment is Environment.PROD
    assert settings.key_encryption_key.reveal() == bytes(range(32))
    assert settings.audiences == {"https://maskinporten.example/"}
    assert KEY not in repr(settings)
    assert "****" in repr(settings)


def test_every_setting_is_read(tmp_path: Path) -> None:
    """All of them together."""
    (tmp_path / "key").write_text(KEY.replace("+", "-").replace("/", "_") + "\n")
    environ = {
        **GOOD,
        "MASKINPORTEN_KEY_ENCRYPTION_KEY_FILE": str(tmp_path / "key"),
        "MASKINPORTEN_ENVIRONMENT": "test",
        "MASKINPORTEN_HOST": "0.0.0.0",
        "MASKINPORTEN_PORT": "0",
        "MASKINPORTEN_WORKERS": "3",
        "MASKINPORTEN_EXTRA_AUDIENCES": "https://a https://b",
    }
    del environ["MASKINPORTEN_KEY_ENCRYPTION_KEY"]
    settings = Settings.from_environ(environ)

    assert (settings.port, settings.workers) == (0, 3)
    assert settings.audiences == {GOOD["MASKINPORTEN_ISSUER"], "https://a", "https://b"}
    assert all(name.startswith("MASKINPORTEN_") for name in SETTINGS)


FAULTS = [
    pytest.param({"MASKINPORTEN_ISUER": "x"}, "did you mean MASKINPORTEN_ISSUER", id="a typo"),
    pytest.param({"MASKINPORTEN_ISSUER": "https://a.example"}, "end with a slash", id="no slash"),
    pytest.param({"MASKINPORTEN_ISSUER": "http://a.example/"}, "https", id="http"),
    pytest.param({"MASKINPORTEN_ISSUER": "maskinporten"}, "URL", id="no URL"),
    pytest.param({"MASKINPORTEN_ISSUER": "https://a.example/?x/"}, "URL", id="a query"),
    pytest.param({"MASKINPORTEN_PORT": "http"}, "whole number", id="a word for a port"),
    pytest.param({"MASKINPORTEN_PORT": "65536"}, "65535", id="port 65536"),
    pytest.param({"MASKINPORTEN_WORKERS": "0"}, "1 to 64", id="no workers"),
    pytest.param({"MASKINPORTEN_WORKERS": "65"}, "1 to 64", id="65 workers"),
    pytest.param({"MASKINPORTEN_BACKPRESSURE": "0"}, "at least 1", id="no requests at all"),
    pytest.param({"MASKINPORTEN_ENVIRONMENT": "dev"}, "test or prod", id="another environment"),
    pytest.param({"MASKINPORTEN_KEY_ENCRYPTION_KEY": "short"}, "openssl rand", id="a short key"),
    pytest.param({"MASKINPORTEN_KEY_ENCRYPTION_KEY_FILE": "/no/file"}, "openssl", id="no file"),
    pytest.param({"MASKINPORTEN_UNKNOWN_CLAIMS": "x"}, "accept, refuse", id="unknown claims"),
    pytest.param({"MASKINPORTEN_LIFETIME_RULE": "x"}, "override, cap", id="lifetime rule"),
    pytest.param({"MASKINPORTEN_REPLAY_WITHOUT_DATABASE": "x"}, "local, refuse", id="replay"),
    pytest.param({"MASKINPORTEN_SQLITE_SYNCHRONOUS": "off"}, "normal, full", id="synchronous"),
    pytest.param({"MASKINPORTEN_SIGNING_KEY_BITS": "1024"}, "3072", id="a weak signing key"),
    pytest.param({"MASKINPORTEN_JWKS_MAX_AGE": "-1"}, "negative", id="a negative age"),
]


@pytest.mark.parametrize(("wrong", "words"), FAULTS)
def test_a_fault_is_a_sentence(wrong: dict[str, str], words: str) -> None:
    """One wrong setting: its name, and what it should be."""
    with pytest.raises(InvalidInput) as invalid:
        Settings.from_environ({**GOOD, **wrong})

    (fault,) = invalid.value.faults
    assert fault.path == next(iter(wrong))
    assert words in fault.sentence


def test_every_fault_is_named_and_no_secret_repeated() -> None:
    """An operator mends the environment once."""
    environ = {"MASKINPORTEN_KEY_ENCRYPTION_KEY": "hunter2", "MASKINPORTEN_PORT": "x"}
    with pytest.raises(InvalidInput) as invalid:
        Settings.from_environ(environ)

    assert {fault.path for fault in invalid.value.faults} == {
        "MASKINPORTEN_ISSUER",
        "MASKINPORTEN_DATABASE_URL",
        "MASKINPORTEN_KEY_ENCRYPTION_KEY",
        "MASKINPORTEN_PORT",
    }
    assert "hunter2" not in str(invalid.value)
