"""What ``fewstep fit`` and ``fewstep distil`` share: options, and how a plan is shown or done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from fewstep.cli.command import Whole
from fewstep.planning.budget import duration

if TYPE_CHECKING:
    from fewstep.planning.plan import Plan


def _said(text: str, **more: Any) -> Parameter:
    return Parameter(help=text, **more)


FEATURES = "Feature network of the scores, as evaluate takes it; default a classifier that is "
CHOSEN = ("batch", "lr", "flip", "precision", "threads", "seed")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Within:
    """How a plan within a budget is made and done."""

    out: Annotated[
        Path | None, _said("Folder for everything; default runs/NAME-fit or runs/NAME-distil.")
    ] = None
    dry_run: Annotated[bool, _said("Show the plan with its reasons, and stop.", negative="")] = (
        False
    )
    batch: Annotated[Whole | None, _said("Images of a step.")] = None
    lr: Annotated[float | None, _said("Learning rate.")] = None
    flip: Annotated[bool | None, _said("Mirror half of the images.")] = None
    precision: Annotated[str | None, _said("fp32, tf32 or bf16.")] = None
    threads: Annotated[Whole | None, _said("Of the CPU, for each training.")] = None
    seed: Annotated[Whole | None, _said("Of all trainings.")] = None
    features: Annotated[str | None, _said(f"{FEATURES}trained on the images.")] = None
    weights: Annotated[Path | None, _said("File of the feature network's published weights.")] = (
        None
    )
    device: Annotated[str | None, _said("cpu, cuda or mps; default a GPU where there is one.")] = (
        None
    )

    log: Annotated[
        tuple[str, ...],
        _said(
            "Loggers of the trainings, such as wandb.",
            negative="",
            consume_multiple=True,
            show_default=False,
        ),
    ] = ()

    @property
    def chosen(self) -> dict[str, Any]:
        """The user's choices by name; None for what is left to the rule."""
        return {name: getattr(self, name) for name in CHOSEN}

    def folder(self, source: str, kind: str) -> Path:
        """Where everything goes."""
        from fewstep.planning.looked_at import called

        return self.out or Path("runs") / f"{called(source)}-{kind}"

    def do(self, planned: Callable[[], Plan], budget: float | None) -> None:
        """Show a plan, or carry it out.

        A shorter budget that was begun is spent first, and then the plan is made again.

        Args:
            planned: makes the plan.
            budget: seconds that the user asked for.
        """
        from fewstep.planning.fitting import is_longer

        plan = planned()
        spent = plan.round.budget
        again = budget is not None and is_longer(budget, spent)
        if budget not in (None, spent):
            first = " first" if again else ""
            print(f"The budget of {duration(spent)} that was begun here is spent{first}.")
        if self.dry_run:
            print("\n".join(plan.lines()))
            return
        self._carry_out(plan)
        if again:
            self._carry_out(planned())

    def _carry_out(self, plan: Plan) -> None:
        from fewstep.report.fitted import Features, carry_out

        page = carry_out(plan, Features(self.features, self.weights))
        print(f"\n{duration(page.seconds)} in all. The model is {page.model}; open {page.path}")
