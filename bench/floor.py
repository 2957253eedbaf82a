"""What no token can cost less than: one check of the caller's signature and one of ours."""

import statistics
import time
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256

from tests.world import private_key

_ROUNDS = 9
_CALLS = 40
_TEXT = b"x" * 400


def cpu_seconds(work: Callable[[], object]) -> float:
    """The median CPU time of one call, in seconds."""
    rounds = []
    for _ in range(_ROUNDS):
        began = time.process_time()
        for _ in range(_CALLS):
            work()
        rounds.append((time.process_time() - began) / _CALLS)
    return statistics.median(rounds)


def floor(signing_bits: int, client_bits: int = 2048) -> float:
    """CPU seconds of one raw verification and one raw signature with keys of these sizes."""
    client, ours = private_key("bench client", client_bits), private_key("bench", signing_bits)
    padding, digest = PKCS1v15(), SHA256()
    signature = client.sign(_TEXT, padding, digest)
    public: rsa.RSAPublicKey = client.public_key()
    verify = cpu_seconds(lambda: public.verify(signature, _TEXT, padding, digest))
    return verify + cpu_seconds(lambda: ours.sign(_TEXT, padding, digest))
