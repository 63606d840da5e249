"""``python -m fewstep.cli.child ARGUMENTS``: the command line, for as long as its parent lives.

Its standard input is a pipe from the parent, which closes it to ask for the end; so does whatever
ends the parent. A training then saves its state.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from fewstep.cli import main


def _end_with_parent() -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    signal.raise_signal(signal.SIGTERM)  # os.kill would end the process at once on Windows


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    main()
