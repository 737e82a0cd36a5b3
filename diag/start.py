"""The command as a process. Nothing is imported before Ctrl-C is handled: it may come while libraries are loaded."""

from __future__ import annotations

import signal
import sys
from typing import Any


def main() -> None:
    """Entry point. What an interrupted import raises instead of KeyboardInterrupt is an interruption too."""
    interrupted = False

    def stop(*_: Any) -> None:
        nonlocal interrupted
        interrupted = True
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, stop)
    try:
        from diag.cli.app import main as command

        command()
    except SystemExit:
        raise
    except BaseException:
        if not interrupted:
            raise
        sys.stderr.write("tdmoe-diag: interrupted\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
