"""`token`: ask any Maskinporten-like server for a token, as an organisation's backend would."""

import argparse
import base64
import json
import sys
import time
from pathlib import Path
from typing import Any

from maskinporten.consumer import (
    Consumer,
    ConsumerMisconfigured,
    GrantOptions,
    TokenError,
    TokenRefused,
    build_grant,
    read_key,
)


def add_parser(commands: Any) -> None:
    """Declare the command."""
    token = commands.add_parser(
        "token",
        help="sign a grant and fetch a token with it",
        description="Signs a JWT grant with the client's key and exchanges it for an access "
        "token. Prints the server's answer.",
    )
    token.add_argument("--issuer", required=True, metavar="URL", help="with its final slash")
    token.add_argument("--client-id", required=True, metavar="ID")
    token.add_argument("--key", required=True, type=Path, metavar="FILE", help="private key, PEM")
    token.add_argument(
        "--kid",
        metavar="KID",
        help="the key's registered name; --kid=-x where it begins with a dash",
    )
    token.add_argument("--cert-chain", type=Path, metavar="FILE", help="PEM, leaf first, for x5c")
    token.add_argument("--scope", required=True, action="append", metavar="S")
    token.add_argument("--resource", action="append", metavar="URI", help="becomes `aud`")
    token.add_argument("--consumer-org", metavar="ORGNO", help="act for this organisation")
    token.add_argument("--pid", metavar="PID", help="the person the call is about")
    token.add_argument(
        "--authorization-details",
        metavar="JSON|FILE",
        help="an array (system user, consent), or a file that holds it",
    )
    token.add_argument("--algorithm", choices=["RS256", "RS384", "RS512"], default="RS256")
    shown = token.add_mutually_exclusive_group()
    shown.add_argument("--decode", action="store_true", help="print header and claims instead")
    shown.add_argument("--grant-only", action="store_true", help="print the grant; send nothing")
    token.set_defaults(run=_token)


def _token(arguments: argparse.Namespace) -> int:
    try:
        key = read_key(
            arguments.key.read_bytes(),
            kid=arguments.kid,
            x5c=arguments.cert_chain.read_bytes() if arguments.cert_chain else (),
            algorithm=arguments.algorithm,
        )
        options = _options(arguments)
        if arguments.grant_only:
            grant = build_grant(
                key,
                issuer=arguments.issuer,
                client_id=arguments.client_id,
                scopes=arguments.scope,
                now=int(time.time()),
                **options,
            )
            print(grant)
            return 0
        consumer = Consumer(arguments.issuer, arguments.client_id, key)
        token = consumer.token(arguments.scope, **options)
    except TokenRefused as refused:
        print(json.dumps(refusal(refused), ensure_ascii=False, indent=2), file=sys.stderr)
        return 1
    except (TokenError, ConsumerMisconfigured) as fault:
        print(f"maskinporten: {fault}", file=sys.stderr)
        return 1
    except OSError as fault:
        print(f"maskinporten: {fault.filename}: {fault.strerror}", file=sys.stderr)
        return 1
    answer: Any = {
        "access_token": token.access_token,
        "token_type": token.token_type,
        "expires_in": token.expires_in,
        "scope": token.scope,
    }
    print(json.dumps(decode(token.access_token) if arguments.decode else answer, indent=2))
    return 0


def _options(arguments: argparse.Namespace) -> GrantOptions:
    options: GrantOptions = {}
    if arguments.resource:
        options["resource"] = arguments.resource
    if arguments.consumer_org:
        options["consumer_org"] = arguments.consumer_org
    if arguments.pid:
        options["pid"] = arguments.pid
    if arguments.authorization_details:
        options["authorization_details"] = _details(arguments.authorization_details)
    return options


def _details(given: str) -> Any:
    """The array that is given, or that the file holds; one object stands for an array of one."""
    try:
        text = given if given.lstrip().startswith(("[", "{")) else Path(given).read_text()
        found = json.loads(text)
    except ValueError as fault:
        raise ConsumerMisconfigured(f"--authorization-details is not JSON: {fault}") from fault
    return [found] if isinstance(found, dict) else found


def refusal(refused: TokenRefused) -> dict[str, Any]:
    """What the server said, as it said it."""
    said = {
        "status": refused.status,
        "error": refused.error,
        "error_description": refused.error_description,
        "error_uri": refused.error_uri,
    }
    return {name: value for name, value in said.items() if value is not None}


def decode(token: str) -> dict[str, Any]:
    """Header and claims, to look at; nothing is verified here."""
    header, claims = (
        json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
        for part in token.split(".")[:2]
    )
    return {"header": header, "claims": claims}
