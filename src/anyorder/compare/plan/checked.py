"""Validation of external values, with readable error messages.

Pydantic checks a value against the declared types; :func:`in_words` turns its errors into messages
of this library: the field, what was expected, and what came.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, TypeVar, cast

from pydantic import ConfigDict, ValidationError

C = TypeVar("C")

#: No unknown fields, no implicit conversion, and only numbers that JSON can represent.
STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

_EXPECTED = {
    "bool_type": "true or false",
    "dataclass_exact_type": "an object",
    "dataclass_type": "an object",
    "dict_type": "an object",
    "finite_number": "a finite number",
    "float_type": "a number",
    "greater_than_equal": "at least {ge}",
    "int_type": "a whole number",
    "less_than_equal": "at most {le}",
    "list_type": "a list",
    "literal_error": "{expected}",
    "string_type": "a string",
    "tuple_type": "a list",
}


def in_words(error: ValidationError, root: str = "") -> str:
    """Return the message with the field: ``settings.tune: expected at least 0, got -1``.

    Args:
        error: the error of pydantic.
        root: name of the whole value.
    """
    return "; ".join(dict.fromkeys(_said(each, root) for each in error.errors()))


def _said(found: Mapping[str, Any], root: str) -> str:
    place = root
    for part in found["loc"]:
        place += f"[{part}]" if isinstance(part, int) else f".{part}"
    place = place.removeprefix(".")
    context: dict[str, Any] = found.get("ctx", {})
    kind = found["type"]
    if kind == "value_error":
        return f"{place}: {context['error']}"
    if kind == "missing":
        return f"{place} is missing"
    if kind in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"{place} is unknown"
    if kind not in _EXPECTED:
        return f"{place}: {found['msg']}"
    return f"{place}: expected {_EXPECTED[kind].format(**context)}, got {_shown(found['input'])}"


def _shown(value: Any) -> str:
    text = "null" if value is None else repr(value)
    return text if len(text) <= 60 else f"{type(value).__name__} {text[:50]}..."


def refusing(kind: type[ValueError]) -> Callable[[type[C]], type[C]]:
    """Class decorator: raise ``kind`` with a readable message if pydantic rejects an argument."""

    def change(cls: type[C]) -> type[C]:
        make: Any = cls.__init__
        names = [each.name for each in fields(cast(Any, cls))]

        @functools.wraps(make)
        def __init__(self: Any, *values: Any, **named: Any) -> None:  # noqa: N807
            assert len(values) <= len(names), f"expected at most {len(names)} values"
            try:  # by name, because errors include the name
                make(self, **dict(zip(names, values, strict=False)), **named)
            except ValidationError as error:
                raise kind(in_words(error)) from None

        cls.__init__ = __init__
        return cls

    return change
