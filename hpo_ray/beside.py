"""A process of ours beside the driver: it yields the processor to the trials, and what it prints is heard in a thread.

Whatever becomes of it, the driver goes on. Knows nothing of what it does.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable

_NICENESS = 10


class Process:
    """The driver's end. It is to end when its standard input does, be it that the driver is done, or dead."""

    def __init__(
        self, module: str, *arguments: str, hear: Callable[[str], object], gone: Callable[[str], object]
    ) -> None:
        """Start ``python -m module``.

        Args:
            module: By its whole name.
            arguments: What it is given.
            hear: Told each line that it prints, in another thread.
            gone: Told how it ended, if not well.

        Raises:
            OSError: It cannot be started.
        """
        self._hear = hear
        self._gone = gone
        # A session of its own: a terminal's Ctrl-C is the driver's to handle, and it outlives a killed driver.
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._listener = threading.Thread(target=self._listen, name=module, daemon=True)
        self._listener.start()

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def tell(self, line: str) -> None:
        """Write a line to it; waits while it does not read.

        Raises:
            OSError: It has ended; likewise ValueError.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def close(self) -> None:
        """Tell it that there is nothing more to come."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()

    def wait(self, patience_s: float) -> bool:
        """Wait for its end, so long at most; whether it has come and all of it was heard."""
        self._listener.join(max(0.0, patience_s))
        return not self._listener.is_alive()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with contextlib.suppress(OSError, ValueError), self._process.stdout as lines:
            for line in lines:
                self._hear(line.rstrip())
        code = self._process.wait()
        self.close()
        if code:
            how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            self._gone(f"its process {how}")


def stand_back() -> None:
    """In the process itself: the processor is the trials'."""
    with contextlib.suppress(OSError):
        os.nice(_NICENESS)
