"""`python -m maskinporten` is the command line."""

import sys

from maskinporten.cli import main

if __name__ == "__main__":
    sys.exit(main())
