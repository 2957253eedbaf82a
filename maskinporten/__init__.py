"""A machine-to-machine OAuth 2.0 token server, wire-compatible with Maskinporten."""

__version__ = "0.1.0"
