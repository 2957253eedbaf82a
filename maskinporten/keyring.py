"""Our private keys, at rest and in use; and the published key set, rendered once per change."""

import base64
import contextlib
import hashlib
import logging
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

from maskinporten.domain.jwk import rsa_members, thumbprint
from maskinporten.domain.registry import Registry
from maskinporten.domain.rotation import RotationPolicy, max_age, next_key, of_stage
from maskinporten.domain.signing import (
    CERTIFICATE_LIFE,
    DEFAULT_BITS,
    PUBLISHED,
    SealedKey,
    SigningKey,
    SigningRequest,
    Stage,
    published,
    takes_part,
)
from maskinporten.errors import Fault, InvalidInput, Unavailable
from maskinporten.hsm import Token

KEY_LENGTH: Final = 32  # octets of the key-encryption key (AES-256)
_LOWEST_PRIORITY: Final = 19  # the nice value
_NONCE_LENGTH: Final = 12
_PADDING: Final = PKCS1v15()
_DIGEST: Final = SHA256()
_log = logging.getLogger(__name__)


class KeyDoesNotOpen(Exception):
    """A stored signing key was sealed under another key-encryption key, or was tampered with."""


class KeyNotInToken(KeyDoesNotOpen):
    """A stored signing key lies in a PKCS #11 token that is not this one, or does not answer."""


class LocalKey:
    """A `SigningKey` whose private half lives in this process's memory."""

    def __init__(self, kid: str, private_key: rsa.RSAPrivateKey) -> None:
        self.kid = kid
        self._private_key = private_key

    def sign(self, signing_input: bytes) -> bytes:
        """See `SigningKey.sign`."""
        return self._private_key.sign(signing_input, _PADDING, _DIGEST)

    def __repr__(self) -> str:
        return f"LocalKey({self.kid})"


class Keyring:
    """The signing keys of this worker. `load` makes them follow the registry."""

    def __init__(
        self,
        key_encryption_key: bytes,
        issuer: str,
        policy: RotationPolicy,
        clock: Callable[[], float],
        previous: bytes | None = None,
        token: Token | None = None,
        *,
        new_in_token: bool = False,
    ) -> None:
        self.key_set = b'{"keys":[]}'
        self.etag = '""'
        self.kids: tuple[str, ...] = ()  # of the key set
        self._sealing_key = AESGCM(key_encryption_key)
        # While the key-encryption key is changed, keys sealed under either open. New ones are
        # sealed as the active key is: under the previous one until `rewrap`, so that servers
        # which do not know the new one yet can open them, and under the new one after.
        self._fresh_under = self._sealing_key
        self._opening_keys = [self._sealing_key]
        if previous is not None:
            self._opening_keys.append(AESGCM(previous))
        self._token = token
        self._new_in_token = new_in_token
        self._issuer = issuer
        self._policy = policy
        self._clock = clock
        self._keys: tuple[SealedKey, ...] = ()
        self._active: SigningKey | None = None
        self._canary: tuple[SigningKey, int] | None = None  # and its percentage of the clients
        self._next: SigningKey | None = None
        self._opened: dict[str, SigningKey] = {}
        self._loaded: object = None

    def load(self, registry: Registry) -> None:
        """Open the active key and the next, render the key set; nothing where nothing changed.

        Raises KeyDoesNotOpen where none was opened before. Later a key that does not open is
        logged, and does not sign here: a worker with the wrong key-encryption key still follows
        the registry.
        """
        if registry.signing_keys is self._loaded:
            return
        keys = tuple(registry.signing_keys.values())
        active, prepared = of_stage(keys, Stage.ACTIVE), of_stage(keys, Stage.PREPARED)
        # The next key is opened ahead, so that one that does not open is known before it signs.
        opened: dict[str, SigningKey] = {}
        for key in (*active, *prepared):
            try:
                opened[key.kid] = self._opened.get(key.kid) or self.open(key)
            except KeyDoesNotOpen:
                if not self._opened:
                    raise
                _log.error("the signing key %s does not open; it cannot sign here", key.kid)
        self._opened = opened
        self._fresh_under = self._sealing_key_of(active)
        self._active = opened.get(active[-1].kid) if active else None
        coming = next_key(keys)
        self._next = opened.get(coming.kid) if coming else None
        share = coming.canary if coming else 0
        self._canary = (self._next, share) if self._next and share else None
        self._keys = keys
        self.kids = tuple(key.kid for key in keys if key.stage in PUBLISHED)
        self.key_set = msgspec.json.encode(published(keys))
        self.etag = f'"{hashlib.sha256(self.key_set).hexdigest()[:32]}"'
        self._loaded = registry.signing_keys

    @property
    def max_age(self) -> int:
        """Seconds that a provider may keep the key set, from now."""
        return max_age(self._keys, self._policy, int(self._clock()))

    def signing_key(self, client_id: str = "") -> SigningKey:
        """The key that signs for the client now; without one, for those not on canary.

        Raises Unavailable while there is none.
        """
        if self._active is None:
            raise Unavailable("no signing key is active")
        if self._canary is not None and client_id:
            key, share = self._canary
            if takes_part(key.kid, share, client_id):
                return key
        return self._active

    def next_key(self) -> SigningKey:
        """The key that will sign after the active one. Raises Unavailable while there is none."""
        if self._next is None:
            raise Unavailable("no next signing key is published")
        return self._next

    def prepare(self, now: int, bits: int = DEFAULT_BITS, *, gently: bool = False) -> SealedKey:
        """A fresh key with a self-signed certificate, sealed, not yet in the registry.

        Making it takes a second of a core; call it beside the event loop. `gently` lets everything
        else on the machine go first, however long it takes.
        """
        if self._new_in_token:
            return self.prepare_in_token(now, bits)
        private_key = _generate_gently(bits) if gently else rsa.generate_private_key(65537, bits)
        return self.seal_key(private_key, [_self_signed(private_key, self._issuer, now)], now)

    def prepare_in_token(self, now: int, bits: int = DEFAULT_BITS) -> SealedKey:
        """The same, made in the PKCS #11 token, which it never leaves.

        Raises Unavailable, and InvalidInput where no token is configured.
        """
        if self._token is None:
            sentence = "must be set, for a token is asked for"
            raise InvalidInput((Fault("MASKINPORTEN_PKCS11_MODULE", sentence),))
        private_key, uri = self._token.make(bits)
        chain = [_self_signed(private_key, self._issuer, now)]
        return replace(_as_prepared(private_key.public_key(), chain, now), token=uri)

    def destroy(self, key: SealedKey) -> None:
        """Forget a removed key's private half where the registry does not hold it.

        One that cannot be reached now is logged: an operator must destroy it.
        """
        if not key.token:
            return
        try:
            gone = self._token is not None and self._token.destroy(key.token)
        except Unavailable:
            gone = False
        if not gone:
            _log.error("the private half of %s must be destroyed by hand: %s", key.kid, key.token)

    def forget(self, made: Iterable[SealedKey], written: Iterable[object]) -> None:
        """Of the keys that were made, destroy those in a token that were not written after all."""
        kept = {key.kid for key in written if isinstance(key, SealedKey)}
        for key in made:
            if key.kid not in kept:
                self.destroy(key)

    def seal_key(
        self, private_key: rsa.RSAPrivateKey, chain: Sequence[bytes], now: int
    ) -> SealedKey:
        """A key and its certificates (DER, leaf first) as a prepared key, not yet in the registry.

        Whether they are fit for each other is `signing_certificate`'s question.
        """
        key = _as_prepared(private_key.public_key(), chain, now)
        return replace(key, sealed=self._seal(key.kid, private_key, self._fresh_under))

    def request(
        self, subject: x509.Name, now: int, bits: int = DEFAULT_BITS
    ) -> tuple[SigningRequest, bytes]:
        """A fresh key that waits for a certificate, and the PEM of its PKCS #10 request."""
        private_key = rsa.generate_private_key(65537, bits)
        n, e = rsa_members(private_key.public_key())
        kid = thumbprint(n, e)
        csr = (
            x509.CertificateSigningRequestBuilder().subject_name(subject).sign(private_key, _DIGEST)
        )
        sealed = self._seal(kid, private_key, self._fresh_under)
        waiting = SigningRequest(kid=kid, n=n, e=e, sealed=sealed, created=now)
        return waiting, csr.public_bytes(serialization.Encoding.PEM)

    def private_key(self, key: SealedKey | SigningRequest) -> rsa.RSAPrivateKey:
        """The private half of a stored key. Raises KeyDoesNotOpen."""
        return self._unseal(key)

    def rewrap(self, key: SealedKey) -> SealedKey:
        """The same key, sealed under the key-encryption key that is in force."""
        return replace(key, sealed=self._seal(key.kid, self._unseal(key), self._sealing_key))

    def rewrap_request(self, request: SigningRequest) -> SigningRequest:
        """The same for a key that waits for its certificate."""
        sealed = self._seal(request.kid, self._unseal(request), self._sealing_key)
        return replace(request, sealed=sealed)

    def _seal(self, kid: str, private_key: rsa.RSAPrivateKey, under: AESGCM) -> str:
        octets = private_key.private_bytes(
            serialization.Encoding.DER,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        nonce = os.urandom(_NONCE_LENGTH)
        sealed = nonce + under.encrypt(nonce, octets, kid.encode())
        return base64.b64encode(sealed).decode()

    def open(self, key: SealedKey) -> SigningKey:
        """A stored key, ready to sign. Raises KeyDoesNotOpen."""
        if key.token:
            found = None
            with contextlib.suppress(Unavailable):
                found = self._token.find(key) if self._token else None
            if found is None:
                raise KeyNotInToken(key.kid)
            return found
        return LocalKey(key.kid, self._unseal(key))

    def _unseal(self, key: SealedKey | SigningRequest) -> rsa.RSAPrivateKey:
        octets, _ = self._decrypt(key.kid, key.sealed)
        # The seal vouches for the numbers; checking the primes again would stall the token line.
        private_key = serialization.load_der_private_key(
            octets, None, unsafe_skip_rsa_key_validation=True
        )
        if not isinstance(private_key, rsa.RSAPrivateKey) or (
            rsa_members(private_key.public_key()) != (key.n, key.e)
        ):
            # Sealed by us for this row, yet the row shows another public half.
            raise KeyDoesNotOpen(key.kid)
        return private_key

    def _sealing_key_of(self, active: Sequence[SealedKey]) -> AESGCM:
        try:
            return self._decrypt(active[-1].kid, active[-1].sealed)[1]
        except (IndexError, KeyDoesNotOpen):
            return self._sealing_key

    def _decrypt(self, kid: str, sealed: str) -> tuple[bytes, AESGCM]:
        octets = base64.b64decode(sealed)
        nonce, ciphertext = octets[:_NONCE_LENGTH], octets[_NONCE_LENGTH:]
        for opening_key in self._opening_keys:
            try:
                return opening_key.decrypt(nonce, ciphertext, kid.encode()), opening_key
            except (InvalidTag, ValueError):  # the latter: too short to hold a nonce
                continue
        raise KeyDoesNotOpen(kid)


def _generate_gently(bits: int) -> rsa.RSAPrivateKey:
    """A key, made in a thread of the lowest priority, which Linux keeps for each thread.

    The thread makes nothing else: it holds no lock that tokens wait for, and never gets its
    priority back.
    """

    def generate() -> rsa.RSAPrivateKey:
        with contextlib.suppress(OSError):  # other systems know processes only
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST_PRIORITY)
        return rsa.generate_private_key(65537, bits)

    with ThreadPoolExecutor(1) as beside:
        return beside.submit(generate).result()


def _as_prepared(public_key: rsa.RSAPublicKey, chain: Sequence[bytes], now: int) -> SealedKey:
    """The public half of a fresh key; where its private half lies is still to be said."""
    n, e = rsa_members(public_key)
    end = x509.load_der_x509_certificate(chain[0]).not_valid_after_utc
    return SealedKey(
        kid=thumbprint(n, e),
        stage=Stage.PREPARED,
        n=n,
        e=e,
        sealed="",
        x5c=tuple(base64.b64encode(certificate).decode() for certificate in chain),
        created=now,
        certificate_end=int(end.timestamp()),
    )


def _self_signed(private_key: rsa.RSAPrivateKey, issuer: str, now: int) -> bytes:
    """DER of a certificate that says no more than whose key this is; nobody pins anything on it."""
    begins = datetime.fromtimestamp(now, UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer[:64])])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private_key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins - timedelta(minutes=5))
        .not_valid_after(begins + timedelta(seconds=CERTIFICATE_LIFE))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=False,
                crl_sign=False,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .sign(private_key, SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.DER)
