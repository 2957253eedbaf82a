"""Benchmarks. Each answers a question, and its figure is a ratio taken in one run."""
