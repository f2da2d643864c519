"""A journal's copy in a store: replaced by its own continuation and by nothing else, so that no work is written over.

Knows bytes, not what they mean, and nothing of who holds the run.
"""

from __future__ import annotations

from hpo_ray import journal
from hpo_ray.storage.store import Store


class Diverged(Exception):  # no failure: the run went on elsewhere
    """What is there is no beginning of what was to take its place: somebody went on with the run."""


class Copy:
    """The copy of one journal, which only grows."""

    def __init__(self, store: Store) -> None:
        """Args: the run's store."""
        self._store = store
        # What the store says of a copy that is known to be a beginning of the journal: it need not be read again.
        self._known: tuple[int, int] | None = None

    def check(self, data: bytes) -> int | None:
        """How many bytes of `data` are there, from its beginning; None: there is no copy.

        Raises:
            Diverged: What is there is no beginning of it.
            Unreachable: The store, that is.
        """
        stamp = self._store.stamp(journal.FILE_NAME)
        if stamp is not None and stamp == self._known:
            return stamp[0]
        try:
            there = self._store.read(journal.FILE_NAME)
        except FileNotFoundError:
            return None
        if not data.startswith(there):
            raise Diverged
        self._known = stamp
        return len(there)

    def write(self, data: bytes) -> None:
        """Write the journal there.

        Raises:
            Diverged: What is there is no beginning of it; it stays.
            Unreachable: The store, that is.
        """
        self.check(data)
        self._store.write(journal.FILE_NAME, data)
        stamp = self._store.stamp(journal.FILE_NAME)
        self._known = stamp if stamp is not None and stamp[0] == len(data) else None
