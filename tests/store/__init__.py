"""One suite of promises, run against every store."""
