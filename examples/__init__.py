"""Examples that are run by tests/test_examples.py."""
