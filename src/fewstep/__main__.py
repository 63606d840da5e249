"""``python -m fewstep``, for torchrun."""

from fewstep.cli import main

main()
