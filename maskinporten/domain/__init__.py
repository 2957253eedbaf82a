"""What Maskinporten knows, as pure rules.

No I/O, no `await`, no clock, no randomness: a rule is handed values and gives back values, or
raises `Refused`. Trust is written into types, and each of them is made by exactly one function:

    Assertion ── read_assertion ─> UnverifiedGrant ── find_signer, verify_grant ─> Grant
              ── authorize ─> Authorization ── sign_token ─> AccessToken
"""
