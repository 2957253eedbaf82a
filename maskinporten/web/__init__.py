"""HTTP: requests in, answers out. No rules."""
