"""What ``fewstep reproduce digits --full`` adds: every method and sampler of the paper's table."""

from __future__ import annotations

from fewstep.report.plan import DIRECT, DISTILLED, SAMPLED, SHORT, Plan, Row
from fewstep.stages.stage import Pairs, Stage, Training

TEACHER, PAIRS = "--teacher", "--data"


def _flow(k: int) -> tuple[Stage, ...]:
    """Flow ``k``'s pairs, its one-step distillation, and the next flow."""
    flow, pairs = f"rf{k}", f"pairs-rf{k}"
    use = {TEACHER: flow, PAIRS: pairs}
    following = (Training(f"rf{k + 1}", use, f"digits/rf{k + 1}"),) if k < 3 else ()
    distilled = Training(f"{flow}-distill", use, f"digits/{flow}-distill")
    return (Pairs(pairs, model=flow), *following, distilled)


# The flows wait longest for each other, so they come first.
STAGES: tuple[Stage, ...] = (
    Training("rf1", recipe="digits/rf1"),
    *_flow(1),
    *_flow(2),
    *_flow(3),
    Training("autoencoder", recipe="digits/autoencoder"),
    Training("lsgm", {"--autoencoder": "autoencoder"}, "digits/lsgm"),
    Training("ddpm", recipe="digits/ddpm"),
    Training("vp", recipe="digits/vp"),
    Training("ve", recipe="digits/ve"),
    Training("pfgm", recipe="digits/pfgm"),
    Pairs("pairs", model="edm"),
    Pairs("trajectories", model="edm", trajectory=4),
    Training("kd", {TEACHER: "edm", PAIRS: "pairs"}, "digits/kd"),
    Training("dfno", {PAIRS: "trajectories"}, "digits/dfno"),
    Training("pd", {TEACHER: "edm"}, "digits/pd"),
    Training("pd2", {TEACHER: "edm"}, "digits/pd2"),
    Training("continuous-cd", {TEACHER: "edm"}, "digits/continuous-cd"),
    Training("continuous-ct", {TEACHER: "edm"}, "digits/continuous-ct"),
)

ROWS = (
    Row(SAMPLED, "EDM, DDIM", "edm", solver="ddim", nfe=50, published=("DDIM", 50)),
    Row(SAMPLED, "EDM, DDIM", "edm", solver="ddim", nfe=20, published=("DDIM", 20)),
    Row(SAMPLED, "EDM, DDIM", "edm", solver="ddim", nfe=12),
    Row(SAMPLED, "EDM, DDIM, eta 1", "edm", solver="ddim(eta=1)", nfe=50),
    Row(SAMPLED, "EDM, DPM-Solver-1", "edm", solver="dpm1", nfe=12),
    Row(SAMPLED, "EDM, DPM-Solver-2", "edm", solver="dpm2", nfe=12, published=("DPM-Solver-2", 12)),
    Row(SAMPLED, "EDM, DPM-Solver-3", "edm", solver="dpm3", nfe=12, published=("DPM-Solver-3", 12)),
    Row(SAMPLED, "EDM, DPM-Solver++(2M)", "edm", solver="dpmpp_2m", nfe=10),
    Row(SAMPLED, "EDM, 1-DEIS", "edm", solver="deis(order=1)", nfe=10),
    Row(SAMPLED, "EDM, 2-DEIS", "edm", solver="deis(order=2)", nfe=10),
    Row(SAMPLED, "EDM, 3-DEIS", "edm", solver="deis", nfe=10, published=("3-DEIS", 10)),
    Row(SAMPLED, "EDM, adaptive RK45", "edm", solver="rk45"),
    Row(SAMPLED, "EDM, stochastic", "edm", solver="churn", nfe=35),
    Row(SAMPLED, "EDM, ancestral", "edm", solver="ancestral", nfe=100),
    Row(SAMPLED, "EDM, Euler-Maruyama", "edm", solver="euler_maruyama", nfe=1000),
    Row(SAMPLED, "DDPM, DDIM", "ddpm", solver="ddim", nfe=50),
    Row(SAMPLED, "DDPM, DDIM", "ddpm", solver="ddim", nfe=12),
    Row(SAMPLED, "DDPM, DPM-Solver-2", "ddpm", solver="dpm2", nfe=12),
    Row(SAMPLED, "DDPM, DPM-Solver-3", "ddpm", solver="dpm3", nfe=12),
    Row(SAMPLED, "VP, Euler-Maruyama", "vp", solver="euler_maruyama", nfe=1000),
    Row(DISTILLED, "Continuous-time CD", "continuous-cd", 1),
    Row(DISTILLED, "Continuous-time CD", "continuous-cd", 2),
    Row(DISTILLED, "Continuous-time CT, from EDM's weights", "continuous-ct", 1),
    Row(DISTILLED, "Continuous-time CT, from EDM's weights", "continuous-ct", 2),
    Row(DISTILLED, "PD", "pd", 1, published=("PD", 1)),
    Row(DISTILLED, "PD", "pd2", 2, published=("PD", 2)),
    Row(DISTILLED, "Knowledge distillation", "kd", 1, published=("Knowledge Distillation", 1)),
    Row(DISTILLED, "DFNO", "dfno", 1, published=("DFNO", 1)),
    *(
        Row(
            *(DISTILLED, f"{k}-rectified flow, distilled", f"rf{k}-distill", 1),
            published=(f"{k}-Rectified Flow (+distill)", 1),
        )
        for k in (1, 2, 3)
    ),
    *(
        Row(DISTILLED, f"{k}-rectified flow, Euler", f"rf{k}", steps, "euler")
        for k in (2, 3)
        for steps in (1, 2)
    ),
    Row(DIRECT, "Score SDE, VP", "vp", solver="pc", nfe=2000, published=("Score SDE", 2000)),
    Row(DIRECT, "Score SDE, VE", "ve", solver="pc", nfe=2000),
    Row(DIRECT, "DDPM", "ddpm", solver="ancestral", nfe=1000, published=("DDPM", 1000)),
    Row(DIRECT, "LSGM", "lsgm", solver="rk45", published=("LSGM", 147)),
    Row(DIRECT, "LSGM, Heun", "lsgm", 18),
    Row(DIRECT, "PFGM++, RK45", "pfgm", solver="rk45", published=("PFGM", 110)),
    Row(DIRECT, "PFGM++, Heun", "pfgm", 18),
    Row(DIRECT, "1-rectified flow, Euler", "rf1", 1, "euler", published=("1-Rectified Flow", 1)),
    Row(DIRECT, "1-rectified flow, Euler", "rf1", 2, "euler"),
    Row(DIRECT, "1-rectified flow, Heun", "rf1", 18),
)


def _together(group: str) -> tuple[Row, ...]:
    return tuple(row for row in (*SHORT.rows, *ROWS) if row.group == group)


FULL = Plan(
    stages=(*SHORT.stages[:1], *STAGES, *SHORT.stages[1:]),
    rows=(*_together(SAMPLED), *_together(DISTILLED), *_together(DIRECT)),
    shown=(
        *("edm-heun-18", "edm-dpm3-12", "edm-ddim-12", "cd-heun-1", "cd-heun-2", "ect-heun-1"),
        *("pd-heun-1", "kd-heun-1", "dfno-heun-1", "rf1-distill-heun-1", "rf1-euler-1"),
        *("ict-heun-1", "ct-heun-1", "ddpm-ancestral-1000", "lsgm-heun-18", "pfgm-heun-18"),
    ),
)
