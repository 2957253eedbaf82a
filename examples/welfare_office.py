"""A consumer: reads contact details, with a token that is fetched and kept by itself.

Run as README.md shows.
"""

import argparse
import json
from pathlib import Path

import httpx

from maskinporten.consumer import Consumer, read_key

SCOPE = "krr:global/kontaktinformasjon.read"


def main() -> None:
    """Print what the register says about each person."""
    asked = argparse.ArgumentParser(description="Reads contact details of people.")
    for name in ("issuer", "client-id", "key", "kid", "register"):
        asked.add_argument(f"--{name}", required=True)
    asked.add_argument("people", nargs="+", metavar="PERSON")
    arguments = asked.parse_args()
    key = read_key(Path(arguments.key).read_bytes(), kid=arguments.kid)
    consumer = Consumer(arguments.issuer, arguments.client_id, key)
    with httpx.Client(base_url=arguments.register, auth=consumer.auth(SCOPE)) as register:
        for person in arguments.people:
            answer = register.get(f"people/{person}")
            print(answer.status_code, json.dumps(answer.json(), sort_keys=True))


if __name__ == "__main__":
    main()
