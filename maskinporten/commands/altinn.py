"""`altinn`: the stand-in for Altinn, alone."""

import argparse
import time
from pathlib import Path
from typing import Any

from maskinporten.altinn_standin import FAULT_MODES, FAULT_STATUSES, StandIn, serve_standin
from maskinporten.errors import Fault, InvalidInput

_HOST = "127.0.0.1"


def add_parser(commands: Any) -> None:
    """Declare the command."""
    altinn = commands.add_parser(
        "altinn",
        help="run a stand-in for Altinn: delegations, system users, consents, and faults",
        description="Answers at Altinn's paths from a file that is read again when it changes. "
        "`dev` runs one by itself.",
        epilog=f"Modes of /faults: {', '.join((*FAULT_MODES, *FAULT_STATUSES))}.",
    )
    altinn.add_argument("--registry", required=True, type=Path, metavar="FILE", help="TOML or JSON")
    altinn.add_argument("--port", type=int, default=8090)
    altinn.add_argument(
        "--issuer",
        default=f"http://{_HOST}:8080/",
        metavar="URL",
        help="whose tokens it accepts; default %(default)s",
    )
    altinn.set_defaults(run=_altinn)


def _altinn(arguments: argparse.Namespace) -> int:
    try:
        standin = StandIn(arguments.registry, arguments.issuer)
    except ValueError as fault:
        raise InvalidInput((Fault("--issuer", str(fault)),)) from fault
    try:
        server = serve_standin(standin, (_HOST, arguments.port))
    except (OSError, OverflowError) as fault:
        standin.close()
        raise InvalidInput((Fault("--port", f"{arguments.port} cannot be taken"),)) from fault
    base = f"http://{_HOST}:{server.server_port}/"
    print(
        f"""A stand-in for Altinn listens on {base}
  export MASKINPORTEN_ALTINN=https://tt02.altinn.no/={base} MASKINPORTEN_ALTINN_ORGNO=991825827
  curl -X PUT {base}faults -d '{{"mode": "slow", "seconds": 3}}'""",
        flush=True,
    )
    try:
        while True:
            time.sleep(3600)
    finally:
        server.shutdown()
        server.server_close()
        standin.close()
