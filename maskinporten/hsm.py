"""Signing keys that live in a PKCS #11 token: the private half never enters our memory.

The registry holds the public half and a reference (RFC 7512). One session is shared by the threads
of this process, one call at a time; a session that was lost is opened again once.
"""

import re
import secrets
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Never, TypeVar
from urllib.parse import quote, unquote

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from maskinporten.domain.jwk import rsa_members
from maskinporten.domain.signing import SealedKey, SigningKey
from maskinporten.errors import Fault, InvalidInput, Unavailable

Answer = TypeVar("Answer")
_URI: Final = re.compile(r"pkcs11:token=([^;]*);id=([^;]*);type=private")
_ID_LENGTH: Final = 16  # octets of CKA_ID


class Token:
    """A token that is logged in to, and the keys in it.

    Raises InvalidInput with a sentence where the module, the token or the PIN is not right.
    """

    def __init__(self, module: Path, label: str, pin: bytes) -> None:
        try:
            import pkcs11  # noqa: PLC0415 - an optional extra
        except ImportError as fault:
            sentence = "needs the extra: pip install 'maskinporten[pkcs11]'"
            raise InvalidInput((Fault("MASKINPORTEN_PKCS11_MODULE", sentence),)) from fault
        self._pkcs11: Any = pkcs11
        self._module = module
        self._label = label
        self._pin = pin.decode()
        self._lock = threading.Lock()
        self._barred = False  # the PIN was refused: another try could lock the token
        self._session: Any = self._opened()

    def make(self, bits: int) -> tuple[rsa.RSAPrivateKey, str]:
        """A fresh key pair in the token, as a handle on its private half, and its reference.

        Raises Unavailable.
        """
        identifier = secrets.token_bytes(_ID_LENGTH)
        attribute = self._pkcs11.Attribute
        self._asked(
            lambda session: session.generate_keypair(
                self._pkcs11.KeyType.RSA,
                bits,
                id=identifier,
                label="maskinporten",
                store=True,
                private_template={attribute.SENSITIVE: True, attribute.EXTRACTABLE: False},
            )
        )
        uri = f"pkcs11:token={quote(self._label)};id={quote(identifier)};type=private"
        return _Handle(self, identifier, self._public_half(identifier)), uri

    def find(self, key: SealedKey) -> SigningKey | None:
        """The key that the row refers to; None where this token does not hold it.

        Raises Unavailable.
        """
        identifier = self._identifier(key.token)
        if identifier is None or not self._holds(identifier):
            return None
        if rsa_members(self._public_half(identifier)) != (key.n, key.e):
            return None
        return TokenKey(key.kid, self, identifier)

    def destroy(self, uri: str) -> bool:
        """Whether the key was here, and is no more. Raises Unavailable."""
        identifier = self._identifier(uri)
        if identifier is None or not self._holds(identifier):
            return False
        kinds = self._pkcs11.ObjectClass

        def destroy(session: Any) -> None:
            for kind in (kinds.PUBLIC_KEY, kinds.PRIVATE_KEY):
                session.get_key(object_class=kind, id=identifier).destroy()

        self._asked(destroy)
        return True

    def sign(self, identifier: bytes, octets: bytes) -> bytes:
        """RSASSA-PKCS1-v1_5 with SHA-256, made in the token. Raises Unavailable."""
        kind, mechanism = self._pkcs11.ObjectClass, self._pkcs11.Mechanism
        try:
            signature: bytes = self._asked(
                lambda session: session.get_key(object_class=kind.PRIVATE_KEY, id=identifier).sign(
                    octets, mechanism=mechanism.SHA256_RSA_PKCS
                )
            )
        except self._pkcs11.exceptions.NoSuchKey as fault:
            # Revoked a moment ago, and we have not heard of it yet.
            raise Unavailable("the PKCS #11 token holds the key no more") from fault
        return signature

    def _opened(self) -> Any:
        known = self._pkcs11.exceptions
        try:
            library = self._pkcs11.lib(str(self._module))
        except known.PKCS11Error as fault:
            raise _wrong("MODULE", f"{self._module} cannot be loaded: {fault}") from fault
        try:
            token = library.get_token(token_label=self._label)
            try:
                return token.open(user_pin=self._pin, rw=True)
            except known.UserAlreadyLoggedIn:  # by another session of this process
                return token.open(rw=True)
        except known.NoSuchToken as fault:
            raise _wrong("TOKEN", f"there is no token labelled {self._label!r}") from fault
        except (known.PinIncorrect, known.PinInvalid, known.PinLenRange) as fault:
            raise _wrong("PIN_FILE", "the PIN is wrong; a few more tries may lock it") from fault
        except known.PKCS11Error as fault:
            raise _wrong("TOKEN", f"the token cannot be opened: {type(fault).__name__}") from fault

    def _asked(self, question: Callable[[Any], Answer]) -> Answer:
        """The token's answer; of a fresh session where the old one was lost."""
        known = self._pkcs11.exceptions
        with self._lock:
            try:
                return question(self._session)
            except known.NoSuchKey:
                raise
            except known.PKCS11Error as first:
                if self._barred:
                    raise Unavailable("the PKCS #11 token has refused the PIN") from first
                try:
                    self._session = self._opened()
                    return question(self._session)
                except (known.PKCS11Error, InvalidInput) as fault:
                    self._barred = isinstance(fault.__cause__, known.PinIncorrect)
                    raise Unavailable(f"the PKCS #11 token: {fault}") from fault

    def _holds(self, identifier: bytes) -> bool:
        kind = self._pkcs11.ObjectClass.PRIVATE_KEY
        try:
            self._asked(lambda session: session.get_key(object_class=kind, id=identifier))
        except self._pkcs11.exceptions.NoSuchKey:
            return False
        return True

    def _public_half(self, identifier: bytes) -> rsa.RSAPublicKey:
        attribute, kind = self._pkcs11.Attribute, self._pkcs11.ObjectClass.PUBLIC_KEY

        def numbers(session: Any) -> rsa.RSAPublicNumbers:
            key = session.get_key(object_class=kind, id=identifier)
            n, e = key[attribute.MODULUS], key[attribute.PUBLIC_EXPONENT]
            return rsa.RSAPublicNumbers(int.from_bytes(e, "big"), int.from_bytes(n, "big"))

        return self._asked(numbers).public_key()

    def _identifier(self, uri: str) -> bytes | None:
        found = _URI.fullmatch(uri)
        if found is None or unquote(found[1]) != self._label:
            return None
        return unquote(found[2], "latin-1").encode("latin-1")


class TokenKey:
    """A `SigningKey` whose private half lives in a token."""

    def __init__(self, kid: str, token: Token, identifier: bytes) -> None:
        self.kid = kid
        self._token = token
        self._identifier = identifier

    def sign(self, signing_input: bytes) -> bytes:
        """See `SigningKey.sign`. Raises Unavailable."""
        return self._token.sign(self._identifier, signing_input)

    def __repr__(self) -> str:
        return f"TokenKey({self.kid})"


class _Handle(rsa.RSAPrivateKey):
    """What a certificate builder takes for a private key: it signs, and gives nothing away."""

    def __init__(self, token: Token, identifier: bytes, public: rsa.RSAPublicKey) -> None:
        self._token = token
        self._identifier = identifier
        self._public = public

    @property
    def key_size(self) -> int:
        return self._public.key_size

    def public_key(self) -> rsa.RSAPublicKey:
        return self._public

    def sign(self, data: Any, padding: Any, algorithm: Any) -> bytes:
        _verify_asked_for(padding, algorithm)
        return self._token.sign(self._identifier, bytes(data))

    def decrypt(self, ciphertext: Any, padding: Any) -> Never:
        raise NotImplementedError

    def private_numbers(self) -> Never:
        raise NotImplementedError

    def private_bytes(self, encoding: Any, format: Any, encryption_algorithm: Any) -> Never:  # noqa: A002 - the library's name
        raise NotImplementedError

    def __copy__(self) -> "_Handle":
        return self

    def __deepcopy__(self, memo: Any) -> "_Handle":
        return self


def _verify_asked_for(scheme: Any, algorithm: Any) -> None:
    if not isinstance(scheme, padding.PKCS1v15) or not isinstance(algorithm, SHA256):
        raise NotImplementedError


def _wrong(setting: str, sentence: str) -> InvalidInput:
    return InvalidInput((Fault(f"MASKINPORTEN_PKCS11_{setting}", sentence),))
