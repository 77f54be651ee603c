"""What is wrong with a value from outside, said in words."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from anyorder.compare.plan.checked import STRICT, in_words, refusing


class OddError(ValueError):
    """For this test."""


@dataclass(config=STRICT)
class Inner:
    x: float
    names: list[str]


@refusing(OddError)
@dataclass(config=STRICT)
class Outer:
    flag: bool
    parts: dict[str, list[Inner]]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("3", "it: expected an object, got 3"),
        ('{"flag": true}', "it.parts is missing"),
        ('{"flag": 1, "parts": {}}', "it.flag: expected true or false, got 1"),
        ('{"flag": true, "parts": []}', "it.parts: expected an object, got []"),
        ('{"flag": true, "parts": {}, "z": 1}', "it.z is unknown"),
        (
            '{"flag": true, "parts": {"a": [{"x": "1", "names": [null]}]}}',
            "it.parts.a[0].x: expected a number, got '1'; "
            "it.parts.a[0].names[0]: expected a string, got null",
        ),
        (
            '{"flag": true, "parts": {"a": [{"x": NaN, "names": []}]}}',
            "it.parts.a[0].x: expected a finite number, got nan",
        ),
        ('{"flag": "' + 99 * "x" + '", "parts": {}}', "it.flag: expected true or false, got str"),
    ],
)
def test_the_place_what_was_expected_and_what_was_found(text: str, says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(Outer).validate_json(text)
    assert in_words(caught.value, "it").startswith(says)


def test_a_class_refuses_with_its_own_error() -> None:
    assert Outer(True, {}).flag
    with pytest.raises(OddError, match="flag: expected true or false, got 3"):
        Outer(3, {})  # type: ignore[arg-type]
