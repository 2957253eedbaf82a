"""The commands of `maskinporten`, one module each. They parse and print; they decide nothing.

A module has `add_parser`, which declares the command and names the function that runs it. That
function returns the exit code: 0 for done, 1 for no, 2 for a request that made no sense.
"""
