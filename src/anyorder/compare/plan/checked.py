"""Values that come from outside are checked where they enter, and refused in words.

Pydantic holds a value against the types that a class declares; :func:`in_words` says what it found
in the words of this library: the place, what was expected there, and what was found.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, TypeVar, cast

from pydantic import ConfigDict, ValidationError

C = TypeVar("C")

#: Nothing unknown, nothing converted in silence, and only numbers that JSON can hold.
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
    "list_type": "a list",
    "literal_error": "{expected}",
    "string_type": "a text",
    "tuple_type": "a list",
}


def in_words(error: ValidationError, root: str = "") -> str:
    """What is wrong, with its place: ``settings.tune: expected at least 0, got -1``.

    Args:
        error: what pydantic found.
        root: name of the value as a whole.
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
    """Let a class that pydantic checks raise errors of this kind, in words, when one is made."""

    def change(cls: type[C]) -> type[C]:
        make: Any = cls.__init__
        names = [each.name for each in fields(cast(Any, cls))]

        @functools.wraps(make)
        def __init__(self: Any, *values: Any, **named: Any) -> None:  # noqa: N807
            assert len(values) <= len(names), f"expected at most {len(names)} values"
            try:  # by name, because an error tells the name
                make(self, **dict(zip(names, values, strict=False)), **named)
            except ValidationError as error:
                raise kind(in_words(error)) from None

        cls.__init__ = __init__
        return cls

    return change
