"""What a network that NVIDIA's code pickled says of itself beside its tensors.

An object remembers its attributes and the arguments that it was made with. Both are read here;
what nothing of this package expresses is refused, unless it is what their code has by default.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fewstep.errors import FewstepError, listed
from fewstep.exchange.files.pickles import Record

KARRAS = ("EDMPrecond", "ECMPrecond", "Precond")
PRECONDITIONINGS = (*KARRAS, "VPPrecond", "VEPrecond", "iDDPMPrecond")
"""Those of NVIDIA's code (Karras et al. 2022, Table 1), of locuslab/ect and of EDM2."""
COSINE = {"C_1": 0.001, "C_2": 0.008}
"""The least ratio and the offset of iDDPM's schedule, which `cosine` betas have."""
DROPOUTS = {"dropout": "dropout", "label_dropout": "label_dropout"}
ARGUMENTS: Mapping[str, Mapping[str, str]] = {
    "edm2": {
        **DROPOUTS,
        "label_balance": "label_balance",
        "concat_balance": "concat_balance",
        "channels_per_head": "head_channels",
    }
}
"""Their settings and our arguments that are the same, by our network."""
FIXED: Mapping[str, Mapping[str, Any]] = {
    "edm2": {
        "res_balance": 0.3,
        "attn_balance": 0.3,
        "clip_act": 256,
        "resample_filter": [1, 1],
    }
}
"""What their settings have to be, by our network."""


def process_of(precond: Record) -> dict[str, Any]:
    """Name and arguments of the process of a preconditioning.

    Raises:
        FewstepError: a preconditioning that is not known; a number that no process here has.
    """

    def number(name: str, default: float) -> float:
        value = settings_of(precond).get(name, default)
        try:
            return float(value)
        except (TypeError, ValueError):
            raise FewstepError(f"its {name} is {value!r:.60}, and no number") from None

    kind = precond.kind
    if kind in KARRAS:
        ends = {"eps": number("sigma_min", 0.002)} if kind == "ECMPrecond" else {}
        return {"name": "edm", "sigma_data": number("sigma_data", 0.5), **ends}
    if kind == "VEPrecond":
        return {"name": "ve", "eps": number("sigma_min", 0.02), "T": number("sigma_max", 100.0)}
    steps = number("M", 1000)
    if kind == "VPPrecond":
        low, rise = number("beta_min", 0.1), number("beta_d", 19.9)
        return {
            "name": "vp",
            "beta_min": low,
            "beta_max": round(low + rise, 9),
            "time_scale": steps - 1,
        }
    if kind == "iDDPMPrecond":
        _check({name: number(name, default) for name, default in COSINE.items()}, COSINE)
        chain = {"N": int(steps), "betas": "cosine", "time_scale": steps - 1, "eps": 1 / steps}
        return {"name": "vp_discrete", **chain}
    raise FewstepError(
        f"its preconditioning {kind} is not known: say its process, such as --process edm. Known: "
        f"{listed(PRECONDITIONINGS)}"
    )


def arguments_of(settings: Mapping[str, Any], network: str) -> dict[str, Any]:
    """The arguments of a network of ours that their settings say.

    Args:
        settings: of theirs.
        network: name of ours.

    Raises:
        FewstepError: a setting that it does not have.
    """
    _check(settings, FIXED.get(network, {}))
    known = ARGUMENTS.get(network, DROPOUTS)
    return {ours: settings[theirs] for theirs, ours in known.items() if theirs in settings}


def settings_of(network: Record) -> dict[str, Any]:
    """What a network was made with, and what its attributes say."""
    return {**network.settings, **{k: v for k, v in network.state.items() if k[:1] != "_"}}


def _check(found: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Raise `FewstepError` for a setting that nothing here expresses."""
    for name, only in known.items():
        value = found.get(name, only)
        if (list(value) if isinstance(value, list | tuple) else value) != only:
            raise FewstepError(f"its {name} is {value!r:.60}, and {only!r} alone is known here")
