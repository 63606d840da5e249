"""Names that tensors of diffusers once had."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_OLD = re.compile(rf"(.*\.attentions\.\d+)\.({'|'.join(OLD_ATTENTION)})\.(weight|bias)$")


def todays_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by the names that they have today, those of an attention as they once were."""

    def today(name: str) -> str:
        old = _OLD.match(name)
        return f"{old[1]}.{OLD_ATTENTION[old[2]]}.{old[3]}" if old else name

    return {today(name): x for name, x in tensors.items()}
