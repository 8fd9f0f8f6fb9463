"""The real clients of an FTS service, driven from the tests: the `fts3` library and tools, and Rucio.

They live in a venv of their own (`scripts/setup --dev`), because they need older libraries than we do;
what is in `programs` runs there.
"""

from tests.clients.venv import ClientFailed, Ran, Worker, missing, tool

__all__ = ["ClientFailed", "Ran", "Worker", "missing", "tool"]
