"""``python -m fewstep.testing my_methods.py``: the contracts of the objectives in a plugin."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence

from fewstep.errors import FewstepError
from fewstep.names import LEDGER
from fewstep.objectives import OBJECTIVES, Objective
from fewstep.plugins.load import load_plugin, plugin_of
from fewstep.testing import CONTRACTS, Broken, Fitting


def main(plugins: Sequence[str]) -> int:
    """Check every objective of the plugins; 0 where all contracts hold, 1 where one is broken."""
    try:
        objectives = [cls for which in plugins for cls in _objectives_of(which)]
        if not objectives:
            raise FewstepError("give the file or module of a plugin that registers an objective.")
        held = [_check(cls, name) for cls in objectives for name in CONTRACTS]
    except FewstepError as error:
        print(f"fewstep: {error}", file=sys.stderr)
        return 2
    return 0 if all(held) else 1


def _objectives_of(which: str) -> Iterator[type[Objective]]:
    plugin = load_plugin(which)
    for filed in LEDGER:
        if filed.kind == OBJECTIVES.kind and plugin_of(filed) == plugin:
            yield OBJECTIVES[filed.name]


def _check(cls: type[Objective], name: str) -> bool:
    """Whether a contract holds; prints a line."""
    fault = None
    try:
        CONTRACTS[name](Fitting(cls))
    except Broken as broken:
        fault = str(broken)
    except Exception as error:
        fault = f"{type(error).__name__}: {' '.join(str(error).split())}"
    says = name.replace("_", " ")
    print(f"{OBJECTIVES.name_of(cls)} {says}: {'yes' if fault is None else f'no, {fault}'}")
    return fault is None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
