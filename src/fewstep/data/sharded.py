"""Rows of several mapped files as one tensor, as far as a data set needs one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Sharded:
    """Rows [N, ...] that lie in several tensors, such as files mapped into memory.

    Only the rows that are asked for are read.

    Args:
        parts: tensors [m, ...] of one shape and type; all but the last have equally many rows.
    """

    def __init__(self, parts: Sequence[Tensor]) -> None:
        self.parts = list(parts)
        self._rows = len(self.parts[0])
        self.shape = torch.Size([sum(map(len, self.parts)), *self.parts[0].shape[1:]])
        self.ndim = len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Tensor | int) -> Tensor:
        """The rows [B] in the order asked for, [B, ...]; or one of them, [...]."""
        if isinstance(rows, int):
            return self.parts[rows // self._rows][rows % self._rows]
        whole = self.parts[0].new_empty(len(rows), *self.shape[1:])
        part = rows // self._rows
        for i in part.unique().tolist():
            mine = part == i
            whole[mine] = self.parts[i][rows[mine] - i * self._rows]
        return whole

    def index_select(self, dim: int, rows: Tensor) -> Tensor:
        """`__getitem__`, under the name that a tensor has for it; ``dim`` is 0."""
        return self[rows]

    def is_floating_point(self) -> bool:
        return self.parts[0].is_floating_point()

    def whole(self) -> Tensor:
        """All rows, copied into memory."""
        return torch.cat(self.parts)
