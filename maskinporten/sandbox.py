"""The small world of `maskinporten dev`: two organisations, a scope between them, a client.

It is made of synthetic organisation numbers and kept in one folder over restarts.
"""

import base64
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from maskinporten.administration import administer
from maskinporten.app import open_store
from maskinporten.domain.jwk import rsa_members, thumbprint
from maskinporten.domain.manifest import plan
from maskinporten.domain.selfservice.bootstrap import admin_document
from maskinporten.issuer_folder import IssuerFolder, make_issuer_folder, open_issuer_folder
from maskinporten.replica import Replica
from maskinporten.settings import PREFIX

PROVIDER: Final = "310000019"
CONSUMER: Final = "310000027"
CLIENT_ID: Final = "sandbox-consumer"
ADMIN_CLIENT_ID: Final = "sandbox-admin"  # the provider runs the sandbox, and its own affairs
CERTIFIED_CLIENT_ID: Final = "sandbox-certified"  # no key is registered: its certificate speaks
SUPPLIER: Final = "310000035"
SUPPLIER_CLIENT_ID: Final = "sandbox-supplier"  # acts for CONSUMER, who delegated it in Altinn
SCOPE: Final = "sandbox:contacts.read"
DELEGABLE_SCOPE: Final = "sandbox:reports.write"
DELEGATION_SOURCE: Final = "https://tt02.altinn.no/"
CONSENT_ID: Final = "f70542a8-1b3f-4a5e-9d5a-0a4d6f6f1a11"
CONSENT_GIVER: Final = "urn:altinn:person:identifier-no:25922947409"
_KEY_BITS: Final = 2048
_REVOCATION_REFRESH: Final = 2  # seconds: whoever tries `pki revoke` wants to see it work


@dataclass(frozen=True, slots=True)
class Sandbox:
    """Where the world lies and how its client proves itself."""

    folder: Path
    client_key: Path  # PEM, unencrypted: it opens nothing but the sandbox
    kid: str
    certificate: Path  # stem of the consumer's enterprise certificate: .pem and .key.pem

    @property
    def supplier_key(self) -> Path:
        """The supplier's key, PEM; its kid lies beside it in `supplier-kid`."""
        return self.folder / "supplier-key.pem"

    @property
    def altinn_file(self) -> Path:
        """What the sandbox's stand-in for Altinn knows; the user's to change."""
        return self.folder / "altinn.toml"

    @property
    def issuers(self) -> IssuerFolder:
        """The sandbox's own PKI."""
        return open_issuer_folder(self.folder / "pki")

    def write_trust(self, pki_url: str) -> None:
        """Let the server accept the sandbox's PKI, whose lists lie at `pki_url` this time."""
        self.issuers.write_trust(self.folder / "trust", pki_url)

    @property
    def database_url(self) -> str:
        """For MASKINPORTEN_DATABASE_URL."""
        return f"sqlite:///{self.folder / 'registry.db'}"

    def environ(self, issuer: str, port: int, altinn: str) -> Mapping[str, str]:
        """The settings under which `serve` would run this world; Altinn answers at `altinn`."""
        return {
            f"{PREFIX}ISSUER": issuer,
            f"{PREFIX}PORT": str(port),
            f"{PREFIX}WORKERS": "1",
            f"{PREFIX}ENVIRONMENT": "test",
            f"{PREFIX}DATABASE_URL": self.database_url,
            f"{PREFIX}KEY_ENCRYPTION_KEY_FILE": str(self.folder / "key-encryption-key"),
            f"{PREFIX}AUDIT_LOG": str(self.folder / "audit.jsonl"),
            f"{PREFIX}TRUST": str(self.folder / "trust"),
            f"{PREFIX}REVOCATION": str(self.folder / "revocation"),
            f"{PREFIX}REVOCATION_REFRESH": str(_REVOCATION_REFRESH),
            f"{PREFIX}ALTINN": f"{DELEGATION_SOURCE}={altinn}",
            f"{PREFIX}ALTINN_ORGNO": "991825827",
            # Whoever withdraws a delegation wants to see it work.
            f"{PREFIX}ALTINN_REMEMBER": str(_REVOCATION_REFRESH),
            f"{PREFIX}ALTINN_REMEMBER_NO": "0",
        }


def make_sandbox(folder: Path) -> Sandbox:
    """The world in `folder`; what is there already stays. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / ".gitignore").write_text("*\n")
    sealing_key = folder / "key-encryption-key"
    if not sealing_key.exists():
        _write_secret(sealing_key, base64.b64encode(os.urandom(32)) + b"\n")
    kid = _make_key(folder / "client-key.pem", folder / "kid")
    _make_key(folder / "supplier-key.pem", folder / "supplier-kid")
    if not (folder / "altinn.toml").exists():
        (folder / "altinn.toml").write_text(_ALTINN_FILE)
    certificate = _certify_consumer(folder.resolve() / "pki")
    return Sandbox(folder.resolve(), (folder / "client-key.pem").resolve(), kid, certificate)


def _make_key(path: Path, kid_path: Path) -> str:
    """The kid of the key that lies there, or is made now."""
    if not path.exists():
        private_key = rsa.generate_private_key(65537, _KEY_BITS)
        pem = private_key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        _write_secret(path, pem)
    kid = thumbprint(*_public_members(path))
    kid_path.write_text(kid + "\n")
    return kid


def _certify_consumer(folder: Path) -> Path:
    """The stem of the consumer's certificate, which is issued once."""
    now = int(time.time())
    issuers = make_issuer_folder(folder, now)
    for path in sorted(folder.glob(f"{CONSUMER}-*.key.pem")):
        return path.with_name(path.name.removesuffix(".key.pem"))
    issued = issuers.issue(CONSUMER, now, name="Sandbox Consumer")
    return folder / issuers.name_of(issued)


async def register_sandbox(sandbox: Sandbox) -> None:
    """Put the world's organisations into the registry; a second time changes nothing.

    Raises Unavailable, InvalidInput.
    """
    store = await open_store(sandbox.database_url)
    try:
        await store.migrate()
        replica = Replica(store, time.time)
        now = int(time.time())
        document = world_document(sandbox)
        await administer(
            store, replica, lambda r: plan(document, r, now), {"kind": "operator"}, "dev", now
        )
    finally:
        await store.close()


def world_document(sandbox: Sandbox) -> dict[str, Any]:
    """The world in the format of `maskinporten apply`."""
    key, supplier_key = (_public_jwk(path) for path in (sandbox.client_key, sandbox.supplier_key))
    admin = admin_document(PROVIDER, PROVIDER, ADMIN_CLIENT_ID, {"keys": [key]}, operator=True)
    return {
        "organizations": [
            {"orgnr": PROVIDER, "name": "Sandbox API Provider"},
            {"orgnr": CONSUMER, "name": "Sandbox Consumer"},
            {"orgnr": SUPPLIER, "name": "Sandbox Supplier"},
        ],
        "delegation_sources": [{"name": "altinn", "issuer": DELEGATION_SOURCE}],
        "prefixes": [{"prefix": "sandbox", "owner_orgno": PROVIDER}, *admin["prefixes"]],
        "scopes": [
            *admin["scopes"],
            {"name": SCOPE, "description": "Read contact details"},
            {
                "name": "sandbox:contacts.write",
                "description": "Change contact details",
                "at_max_age": 30,
            },
            {
                "name": "sandbox:open.read",
                "description": "Open to every organisation",
                "accessible_for_all": True,
                "supports_european_businesses": True,
            },
            {
                "name": DELEGABLE_SCOPE,
                "description": "Send reports, oneself or by a supplier",
                "delegation_source": DELEGATION_SOURCE,
            },
        ],
        "accesses": [
            {"scope": SCOPE, "consumer_orgno": CONSUMER},
            {"scope": DELEGABLE_SCOPE, "consumer_orgno": CONSUMER},
            *admin["accesses"],
        ],
        "clients": [
            *admin["clients"],
            {
                "client_id": CLIENT_ID,
                "client_name": "Sandbox consumer's backend",
                "client_orgno": CONSUMER,
                "scopes": [SCOPE, "sandbox:open.read"],
                "jwks": {"keys": [key]},
            },
            {
                "client_id": CERTIFIED_CLIENT_ID,
                "client_name": "Sandbox consumer's certificate",
                "client_orgno": CONSUMER,
                "scopes": [SCOPE, "sandbox:open.read"],
            },
            {
                "client_id": SUPPLIER_CLIENT_ID,
                "client_name": "Sandbox supplier's system",
                "client_orgno": SUPPLIER,
                "scopes": [DELEGABLE_SCOPE, "sandbox:open.read"],
                "jwks": {"keys": [supplier_key]},
            },
        ],
    }


_ALTINN_FILE: Final = f"""\
# What the sandbox's stand-in for Altinn knows. It is read again whenever it changes.

[[delegations]]
consumer_org = "{CONSUMER}"
supplier_org = "{SUPPLIER}"
scopes = ["{DELEGABLE_SCOPE}"]

[[system_users]]
owner = "{CONSUMER}"                 # the customer who approved it
vendor = "{SUPPLIER}"                # whose system it is
clients = ["{SUPPLIER_CLIENT_ID}"]
system_id = "{SUPPLIER}_reports"

[[consents]]
id = "{CONSENT_ID}"
giver = "{CONSENT_GIVER}"
to = "{CONSUMER}"
rights = [{{resource = "income", metadata = {{year = "2025"}}}}]
"""


def _public_jwk(path: Path) -> dict[str, Any]:
    n, e = _public_members(path)
    return {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": thumbprint(n, e), "n": n, "e": e}


def _write_secret(path: Path, octets: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(octets)


def _public_members(path: Path) -> tuple[str, str]:
    private_key = serialization.load_pem_private_key(path.read_bytes(), None)
    if not isinstance(private_key, rsa.RSAPrivateKey):
        raise OSError(0, "is not an RSA key; remove it and start again", str(path))
    return rsa_members(private_key.public_key())
