"""What a run needs besides this package: models, data, extras."""

from __future__ import annotations

import importlib.util

from fewstep.needs import TeacherUse
from fewstep.runs.components import objective_of
from fewstep.runs.recipe import RECIPES
from fewstep.runs.run import Run


def asks(run: Run, family: str = "") -> tuple[str, ...]:
    """What a run needs besides this package, and has not been given."""
    needs, found = objective_of(run).needs, []
    if needs.teacher is TeacherUse.START and run.init:
        found.append(f"--init {run.init}")
    elif needs.teacher is not TeacherUse.NONE:
        found.append(f"--teacher {run.teacher or _teacher(needs.teacher, family)}")
    if needs.other_columns:
        found.append(f"--data with {', '.join(needs.columns)}, by a reader of your own")
    elif needs.columns:
        found.append(f"--data with pairs ({', '.join(needs.columns)}), which fewstep pairs makes")
    elif run.data.data is None:
        found.append("--data with images")
    else:
        found.append(f"--data {run.data.data}")
    if run.weak is not None:
        found.append(f"--weak {run.weak}")
    if run.autoencoder is not None:
        found.append(f"--autoencoder {run.autoencoder}")
    found += [f"pip install 'fewstep[{extra}]'" for extra in extras(run)]
    return tuple(found)


def _teacher(use: TeacherUse, family: str) -> str:
    """Which model a run starts from, and what trains such a one."""
    refined = use is TeacherUse.REFINE
    kind, by = ("consistency", "ect") if refined else ("diffusion", "edm")
    own = {f"{family}/{by}": f"{family}/{by}", family: f"{family} --method {by}"}
    such = next((f" such as {words} trains" for name, words in own.items() if name in RECIPES), "")
    return f"RUN, a {kind} model{such}"


def extras(run: Run) -> list[str]:
    """Extras of the package that a run needs and that are not installed."""
    source = run.data.data or ""
    wanted = {
        "lpips": ("lpips", str(run.objective.arguments.get("distance", "")).startswith("lpips")),
        "hub": ("datasets", source.startswith("hub:") or source.endswith(".parquet")),
        "digits": ("sklearn", source == "digits"),
    }
    return [
        extra
        for extra, (module, needed) in wanted.items()
        if needed and importlib.util.find_spec(module) is None
    ]
