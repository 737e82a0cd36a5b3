"""The command as a process. Nothing is imported before Ctrl-C is handled: it may come while libraries are loaded.

SIGTERM, as of a batch system, is the same with exit code 143 instead of 130; a second one ends the process at once.
"""

from __future__ import annotations

import signal
import sys
from typing import Any


def main() -> None:
    """Entry point. What an interrupted import raises instead of KeyboardInterrupt is an interruption too."""
    received = 0

    def stop(number: int, *_: Any) -> None:
        nonlocal received
        received = number
        if number == signal.SIGTERM:
            signal.signal(number, signal.SIG_DFL)
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, stop)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, stop)
    try:
        from diag.cli.app import main as command

        command()
    except SystemExit as end:
        sys.exit(128 + received if received and end.code == 130 else end.code)
    except BaseException:
        if not received:
            raise
        sys.stderr.write("tdmoe-diag: interrupted\n")
        sys.exit(128 + received)


if __name__ == "__main__":
    main()
