"""``python -m fewstep.cli.child ARGUMENTS``: the command line, for as long as its parent lives.

Its standard input is a pipe from the parent. Whatever ends the parent closes the pipe, and this
process then ends as if it were asked to: a training saves its state.
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
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=_end_with_parent, daemon=True).start()
    main()
