"""A component as text: ``name`` or ``name(argument=value, ...)``, read and written.

A spec is parsed, never evaluated as code. The value of an argument is a number, a text, a truth
value, None or a tuple of them; or another spec, as in ``walk(solver=churn(S_churn=40))``. A value
that is a spec is read as its text, ``"churn(S_churn=40)"``: whoever takes the argument builds it.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Mapping
from typing import Any

from fewstep.errors import FewstepError

LONGEST = 1000  # characters of a spec
DEEPEST = 4  # specs inside each other

_HYPHEN = re.compile(
    r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|(?<=\w)-(?=[A-Za-z_])"""  # but not in quotes
)


def parse(spec: str, deepest: int = DEEPEST) -> tuple[str, dict[str, Any]]:
    """``"name(a=1, b=other(c=2))"`` -> ``("name", {"a": 1, "b": "other(c=2)"})``.

    Hyphens in names count as underscores.

    Raises:
        FewstepError: anything else, more than `LONGEST` characters, or more than ``deepest`` specs
            inside each other.
    """
    shown = spec if len(spec) < 100 else f"{spec[:80]}..."
    problem = f"cannot read {shown!r}: write name or name(argument=value, ...)."
    if len(spec) > LONGEST:  # Python's parser runs out of stack on deep nesting
        raise FewstepError(problem)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Python code, which this is not
            node = ast.parse(_HYPHEN.sub(_underscored, spec.strip()), mode="eval").body
        return _name_and_arguments(node, deepest)
    except _TooDeep:
        raise FewstepError(
            f"cannot read {shown!r}: at most {deepest} specs stand inside each other."
        ) from None
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        raise FewstepError(problem) from None


def written(name: str, arguments: Mapping[str, Any], deepest: int = DEEPEST) -> str:
    """The spec of a name and its arguments: what `parse` reads as just these."""
    inside = ", ".join(f"{key}={_text(value, deepest - 1)}" for key, value in arguments.items())
    return f"{name}({inside})" if inside else name


class _TooDeep(Exception):
    """Specs inside each other beyond the limit."""


def _underscored(found: re.Match[str]) -> str:
    return "_" if found.group() == "-" else found.group()


def _name_and_arguments(node: ast.expr, depth: int) -> tuple[str, dict[str, Any]]:
    """Of ``name`` or ``name(argument=value, ...)``; `ValueError` for any other expression."""
    if isinstance(node, ast.Name):
        return node.id, {}
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)) or node.args:
        raise ValueError("not a call with keyword arguments")
    arguments = {str(k.arg): _value(k.value, depth - 1) for k in node.keywords}
    if len(arguments) < len(node.keywords):
        raise ValueError("an argument is given twice")  # Python's parser alone lets it pass
    return node.func.id, arguments


def _value(node: ast.expr, depth: int) -> Any:
    """A literal, or the text of a spec."""
    if not isinstance(node, ast.Name | ast.Call):
        return ast.literal_eval(node)
    if depth < 1:
        raise _TooDeep
    return written(*_name_and_arguments(node, depth))


def _text(value: Any, deepest: int) -> str:
    """A value as it stands in a spec: a spec as it is, every other text in quotes."""
    return value if isinstance(value, str) and _is_spec(value, deepest) else repr(value)


def _is_spec(text: str, deepest: int) -> bool:
    """Whether a text is a spec as `written` writes it, and may stand inside others."""
    try:
        return deepest > 0 and written(*parse(text, deepest), deepest) == text
    except FewstepError:
        return False
