"""Packhouse measured beside its peers: ``python -m tests.bench`` (docs/performance.md)."""
