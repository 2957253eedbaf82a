"""What an operator decides, read once from the environment. Nothing else reads it."""

import base64
import binascii
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from maskinporten.errors import Fault, InvalidInput

PREFIX: Final = "MASKINPORTEN_"
_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_KEY_LENGTH: Final = 32  # octets
_MAX_PORT: Final = 65535
_MAX_DRAIN: Final = 3600  # seconds
MAKE_A_KEY: Final = "make one with: openssl rand -base64 32"


class Environment(StrEnum):
    """Which trust store and issuer belong together; one refuses the certificates of the other."""

    TEST = "test"
    PROD = "prod"


class Secret:
    """Octets that no log, traceback or repr shows."""

    __slots__ = ("_octets",)

    def __init__(self, octets: bytes) -> None:
        self._octets = octets

    def reveal(self) -> bytes:
        """The octets, for the one who needs them."""
        return self._octets

    def __repr__(self) -> str:
        return "Secret(********)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything `serve` can be told; each field is the variable MASKINPORTEN_<FIELD>."""

    # Where we are, to the outside. Wrong: every token is refused by every provider.
    issuer: str
    # sqlite:///absolute/path or postgresql://…  Wrong: start-up stops with a sentence.
    database_url: str
    # Seals the signing keys. Wrong: start-up stops, for no stored key opens.
    key_encryption_key: Secret
    # Opens keys that are still sealed under it. Forgotten in force: one more secret to lose.
    key_encryption_key_previous: Secret | None = None
    # Where new signing keys are made: "sealed" in the database, or in the PKCS #11 "token".
    new_keys: str = "sealed"
    # The PKCS #11 library of a token (HSM). Wrong, as the next two: start-up stops.
    pkcs11_module: Path | None = None
    # The token's label, and the PIN of its user.
    pkcs11_token: str = ""
    pkcs11_pin: Secret | None = None
    # Wrong: test certificates would pass in production, or the reverse.
    environment: Environment = Environment.PROD
    # The address to listen on. 0.0.0.0 in a container.
    host: str = "127.0.0.1"
    port: int = 8080
    # One for each core; more gain nothing.
    workers: int = os.cpu_count() or 1
    # Requests a worker takes on at once; more wait in the system's queue. Too many: latency.
    backpressure: int = 64
    # Where token entries of the audit go: a file, or standard output if unset.
    audit_log: Path | None = None
    # Counters of this node's workers. Unset: `serve` makes a file for its own life.
    metrics_file: Path | None = None
    # Claims that Maskinporten does not document: "accept" as observed, or "refuse" as documented.
    unknown_claims: str = "accept"
    # A scope's at_max_age: "override" the client's lifetime as observed, or "cap" it.
    lifetime_rule: str = "override"
    # Further values of `aud` to accept, apart by spaces. Each is one more way to be fooled.
    extra_audiences: str = ""
    # While the database is away: "local" accepts grants new to this node, "refuse" answers 503.
    replay_without_database: str = "local"
    # SQLite only. "full" survives a power cut at ten times the cost for each commit.
    sqlite_synchronous: str = "normal"
    # RSA bits of new signing keys: 2048, 3072 or 4096.
    signing_key_bits: int = 3072
    # Seconds a provider may keep /jwk. Shorter: more fetches. Longer: slower rotation.
    jwks_max_age: int = 3600
    # The folder of accepted authorities (keys/trust). Unset: no certificate is accepted.
    trust: Path | None = None
    # Where lists of revoked certificates are kept. Unset: beside the SQLite database; with
    # PostgreSQL, in a folder that `serve` makes for its own life.
    revocation: Path | None = None
    # Seconds between two looks at an authority's list: so long a revoked certificate may work.
    revocation_refresh: int = 900
    # Seconds a key signs before the next one does; 0: no key is activated by itself.
    rotation_period: int = 7_776_000
    # Seconds a key stands in /jwk before it may sign. Shorter than a cache: start-up stops.
    rotation_lead: int = 172_800
    # Seconds providers may keep /jwk whatever we allow. Too low: they meet unknown keys.
    rotation_cache: int = 86_400
    # Seconds a retired key stands in /jwk after its last token has died.
    rotation_margin: int = 86_400
    # Percent of the callers of /jwk that must have fetched the next key; 0: nobody is counted on.
    rotation_evidence: int = 0
    # Seconds an activation waits for them at most. Too many: a stranger can delay it that long.
    rotation_evidence_patience: int = 604_800
    # Rising percentages of the clients whose tokens the next key signs first, as 1,10,50.
    rotation_canary: str = ""
    # Seconds that these steps take together, before the activation.
    rotation_canary_time: int = 86_400
    # Where a node's workers note what they have spent. Unset: `serve` makes a folder for its own
    # life, and what a whole node claimed while the database was away dies with it.
    spool: Path | None = None
    # Seconds without a word from the database after which no tokens are issued; 0: never. Too
    # few: an outage of the database becomes ours. Too many: a node cut off serves removed keys.
    max_staleness: int = 3600
    # Seconds between saying that we leave (/readyz is 503) and leaving, after SIGTERM. Too few:
    # the gateway still sends requests.
    drain: int = 10
    # Networks of proxies whose X-Forwarded-For is believed. Too wide: callers invent their own.
    trusted_proxies: str = ""
    # Where delegations are looked up: source=base pairs, apart by spaces; the first also answers
    # for system users and consents. Unset: nothing is delegated.
    altinn: str = ""
    # Whose the tokens are that we show to Altinn. Needed beside `altinn`.
    altinn_orgno: str = ""
    # Seconds for one question. Longer: suppliers wait longer while Altinn is slow.
    altinn_deadline: float = 2.0
    # Calls a worker has under way, and grants that may wait for them. Too many: others wait.
    altinn_calls: int = 16
    altinn_waiting: int = 32
    # Seconds a yes and a no are remembered: so long a withdrawn delegation may work.
    altinn_remember: float = 30.0
    altinn_remember_no: float = 5.0
    # Seconds more that a delegation is remembered while Altinn does not answer. 0: none.
    altinn_grace: float = 0.0

    def __post_init__(self) -> None:
        """Raises InvalidInput with every fault."""
        faults = [
            Fault(PREFIX + name.upper(), sentence)
            for name, sentence in _faults(self)
            if sentence is not None
        ]
        if faults:
            raise InvalidInput(tuple(faults))

    @classmethod
    def database_from_environ(
        cls, environ: Mapping[str, str] = os.environ
    ) -> tuple[str | None, str]:
        """Database URL (None: not set) and SQLite's synchronous mode, for commands on the registry.

        They need neither issuer nor key.
        """
        url = environ.get(PREFIX + "DATABASE_URL")
        return url, environ.get(PREFIX + "SQLITE_SYNCHRONOUS", "normal")

    @classmethod
    def folder_from_environ(cls, name: str, environ: Mapping[str, str] = os.environ) -> Path | None:
        """The folder in MASKINPORTEN_<name>, for commands that need nothing else."""
        found = environ.get(PREFIX + name)
        return Path(found) if found else None

    @property
    def audiences(self) -> frozenset[str]:
        """What a grant's `aud` may be."""
        return frozenset({self.issuer, *self.extra_audiences.split()})

    @property
    def proxy_networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """Where trusted proxies are. Raises ValueError."""
        return tuple(ip_network(text) for text in self.trusted_proxies.split())

    @property
    def canary_shares(self) -> tuple[int, ...]:
        """The steps of the canary, in percent. Raises ValueError."""
        return tuple(int(text) for text in self.rotation_canary.split(",") if text.strip())

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        """Settings from variables. A name we do not know is a fault: it is most often a typo.

        Raises InvalidInput with every fault, none of which repeats a secret.
        """
        found = {name: value for name, value in environ.items() if name.startswith(PREFIX)}
        values: dict[str, Any] = {}
        faults = [
            Fault(variable, "is not a setting; " + _nearest(variable))
            for variable in sorted(found.keys() - _READERS.keys())
        ]
        for variable, (field, read) in _READERS.items():
            if variable not in found:
                continue
            try:
                values[field] = read(found[variable])
            except (ValueError, OSError) as fault:
                faults.append(Fault(variable, str(fault)))
        faults += [
            Fault(PREFIX + name.upper(), f"must be set; {hint}")
            for name, hint in _REQUIRED.items()
            if name not in values and not any(name.upper() in fault.path for fault in faults)
        ]
        if faults:
            raise InvalidInput(tuple(faults))
        return cls(**values)


_REQUIRED: Final = {
    "issuer": "the address callers know us by, such as https://maskinporten.example/",
    "database_url": "such as sqlite:////var/lib/maskinporten/registry.db",
    "key_encryption_key": f"or {PREFIX}KEY_ENCRYPTION_KEY_FILE; {MAKE_A_KEY}",
}


def _faults(settings: Settings) -> list[tuple[str, str | None]]:
    return [
        ("issuer", _issuer_fault(settings.issuer)),
        ("port", None if 0 <= settings.port <= _MAX_PORT else "must be 0 to 65535"),
        ("workers", None if 1 <= settings.workers <= 64 else "must be 1 to 64"),  # noqa: PLR2004
        ("backpressure", None if settings.backpressure >= 1 else "must be at least 1"),
        ("jwks_max_age", None if settings.jwks_max_age >= 0 else "must not be negative"),
        (
            "revocation_refresh",
            None if settings.revocation_refresh >= 1 else "must be at least 1 second",
        ),
        ("rotation_canary", _shares_fault(settings)),
        ("max_staleness", None if settings.max_staleness >= 0 else "must not be negative"),
        ("drain", None if 0 <= settings.drain <= _MAX_DRAIN else "must be 0 to 3600 seconds"),
        ("trusted_proxies", _networks_fault(settings)),
        ("unknown_claims", _choice(settings.unknown_claims, "accept", "refuse")),
        ("lifetime_rule", _choice(settings.lifetime_rule, "override", "cap")),
        ("replay_without_database", _choice(settings.replay_without_database, "local", "refuse")),
        ("sqlite_synchronous", _choice(settings.sqlite_synchronous, "normal", "full")),
        ("new_keys", _choice(settings.new_keys, "sealed", "token")),
        ("pkcs11_module", _token_fault(settings)),
        ("signing_key_bits", _choice(str(settings.signing_key_bits), "2048", "3072", "4096")),
    ]


def _choice(value: str, *allowed: str) -> str | None:
    return None if value in allowed else f"must be one of: {', '.join(allowed)}"


def _shares_fault(settings: Settings) -> str | None:
    try:
        settings.canary_shares  # noqa: B018 - read for its fault
    except ValueError:
        return "must be percentages such as 1,10,50"
    return None


def _networks_fault(settings: Settings) -> str | None:
    try:
        settings.proxy_networks  # noqa: B018 - read for its fault
    except ValueError as fault:
        return f"{fault}; write networks such as 10.0.0.0/8, apart by spaces"
    return None


def _token_fault(settings: Settings) -> str | None:
    whole = bool(settings.pkcs11_token) and settings.pkcs11_pin is not None
    if settings.pkcs11_module is not None and not whole:
        return f"needs {PREFIX}PKCS11_TOKEN and {PREFIX}PKCS11_PIN_FILE beside it"
    if settings.pkcs11_module is None and (settings.new_keys == "token" or settings.pkcs11_token):
        return "must be set, for a token is asked for"
    return None


def _issuer_fault(issuer: str) -> str | None:
    parts = urlsplit(issuer)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        return "must be a URL such as https://maskinporten.example/"
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        return "must be https, except on the machine itself"
    if not issuer.endswith("/"):
        return "must end with a slash: callers compare it letter by letter"
    return None


def _read_key(text: str) -> Secret:
    try:
        octets = base64.b64decode(text.strip().translate(_URL_SAFE), validate=True)
    except binascii.Error:
        octets = b""
    if len(octets) != _KEY_LENGTH:
        raise ValueError(f"must be 32 octets in base64; {MAKE_A_KEY}")
    return Secret(octets)


def _read_pin_file(text: str) -> Secret:
    try:
        pin = Path(text).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as fault:
        raise ValueError("cannot be read") from fault
    return Secret(pin.encode())


_URL_SAFE: Final = str.maketrans("-_", "+/")


def _read_key_file(text: str) -> Secret:
    try:
        return _read_key(Path(text).read_text("ascii"))
    except (OSError, UnicodeDecodeError) as fault:
        raise ValueError(f"cannot be read; {MAKE_A_KEY}") from fault


def _read_number(text: str) -> int:
    try:
        return int(text)
    except ValueError as fault:
        raise ValueError("must be a whole number") from fault


def _read_seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError as fault:
        raise ValueError("must be a number of seconds") from fault


def _read_environment(text: str) -> Environment:
    try:
        return Environment(text)
    except ValueError as fault:
        raise ValueError("must be test or prod") from fault


def _nearest(variable: str) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 - needed for a typo only

    near = get_close_matches(variable, _READERS, n=1)
    return f"did you mean {near[0]}?" if near else "see the table of settings in the README"


_BY_FIELD: Final[Mapping[str, Callable[[str], Any]]] = {
    "issuer": str,
    "database_url": str,
    "key_encryption_key": _read_key,
    "key_encryption_key_previous": _read_key,
    "environment": _read_environment,
    "new_keys": str,
    "pkcs11_module": Path,
    "pkcs11_token": str,
    "host": str,
    "port": _read_number,
    "workers": _read_number,
    "backpressure": _read_number,
    "audit_log": Path,
    "metrics_file": Path,
    "unknown_claims": str,
    "lifetime_rule": str,
    "extra_audiences": str,
    "replay_without_database": str,
    "sqlite_synchronous": str,
    "signing_key_bits": _read_number,
    "jwks_max_age": _read_number,
    "trust": Path,
    "revocation": Path,
    "revocation_refresh": _read_number,
    "rotation_period": _read_number,
    "rotation_lead": _read_number,
    "rotation_cache": _read_number,
    "rotation_margin": _read_number,
    "rotation_evidence": _read_number,
    "rotation_evidence_patience": _read_number,
    "rotation_canary": str,
    "rotation_canary_time": _read_number,
    "max_staleness": _read_number,
    "spool": Path,
    "drain": _read_number,
    "trusted_proxies": str,
    "altinn": str,
    "altinn_orgno": str,
    "altinn_deadline": _read_seconds,
    "altinn_calls": _read_number,
    "altinn_waiting": _read_number,
    "altinn_remember": _read_seconds,
    "altinn_remember_no": _read_seconds,
    "altinn_grace": _read_seconds,
}
_READERS: Final[Mapping[str, tuple[str, Callable[[str], Any]]]] = {
    **{PREFIX + name.upper(): (name, read) for name, read in _BY_FIELD.items()},
    PREFIX + "PKCS11_PIN_FILE": ("pkcs11_pin", _read_pin_file),
    PREFIX + "KEY_ENCRYPTION_KEY_FILE": ("key_encryption_key", _read_key_file),
    PREFIX + "KEY_ENCRYPTION_KEY_PREVIOUS_FILE": (
        "key_encryption_key_previous",
        _read_key_file,
    ),
}
SETTINGS: Final = tuple(_READERS)
