"""ONNX files as onnxruntime runs them, and what they say of themselves."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fewstep.errors import FewstepError, not_there
from fewstep.exchange.graphs.onnx import require_onnx

KEY = "fewstep"
"""Key of a file's metadata that says as JSON what the graph is of."""

Run = Callable[..., Tensor]


@dataclass(frozen=True)
class OnnxFile:
    """A graph in a file.

    Args:
        path: of the file.
        session: what onnxruntime made of it.
        about: what the file says of itself; empty where this package did not write it.
    """

    path: Path
    session: Any
    about: Mapping[str, Any]

    @property
    def names(self) -> list[str]:
        """Names of its inputs."""
        return [given.name for given in self.session.get_inputs()]

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The output, of the inputs in their order."""
        given = {
            name: x.detach().contiguous().numpy()
            for name, x in zip(self.names, inputs, strict=True)
        }
        return torch.from_numpy(self.session.run(None, given)[0])


def opened(path: Path) -> OnnxFile:
    """A graph that runs on the CPU with torch's number of threads.

    Raises:
        FewstepError: onnxruntime is not installed; there is no such file, or it is no ONNX graph.
    """
    require_onnx("onnxruntime")
    import onnxruntime

    if not path.is_file():
        raise not_there("ONNX file", path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors: what it cannot optimise is of no use to a user
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # it has a class for every cause, without a common one
        reason = " ".join(str(error).split())[:200]
        raise FewstepError(f"{path} is no ONNX graph that onnxruntime runs: {reason}.") from error
    return OnnxFile(path, session, _said(session))


def _said(session: Any) -> Mapping[str, Any]:
    """What a file says of itself."""
    try:
        about = json.loads(session.get_modelmeta().custom_metadata_map.get(KEY, "{}"))
    except ValueError:
        return {}
    return about if isinstance(about, dict) else {}
