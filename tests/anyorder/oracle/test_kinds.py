"""One table of the kinds of answers: everything that names them agrees with it."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from anyorder import methods
from anyorder.compare.run.records import Costs
from anyorder.oracle.kinds import (
    ANSWERS,
    COMPOSITE,
    COUNTS,
    NEEDS,
    NOMINAL_RATES,
    UnusedOptionError,
    refuse_unused,
)
from anyorder.oracle.ledger import Budget, Calls

DOCS = Path(__file__).parents[3] / "docs"


def test_every_kind_is_counted_can_be_limited_and_has_a_unit() -> None:
    counted = [f.name for f in dataclasses.fields(Calls)]
    limited = [f.name for f in dataclasses.fields(Budget)]
    assert tuple(counted[: len(COUNTS)]) == tuple(limited[: len(COUNTS)]) == COUNTS
    for name in COUNTS:
        assert Budget.parse(f"3{name}").limits() == {name: 3}
    assert {name: price for name, price in Calls().to_dict().items() if price} == {}
    assert Calls(**dict.fromkeys(COUNTS, 1)).forwards() == sum(a.price for a in ANSWERS)
    assert set(NOMINAL_RATES) <= set(COUNTS)


def test_the_ledger_describes_every_kind() -> None:
    words = Calls.__doc__ or ""
    assert all(re.search(rf"^ +{name}: ", words, re.MULTILINE) for name in COUNTS)


def test_comparisons_record_every_kind() -> None:
    assert set(COUNTS) <= set(Costs.__annotations__)


def test_the_pages_show_the_table() -> None:
    page = " ".join((DOCS / "closure-and-oracle.md").read_text("utf-8").split())
    for answer in ANSWERS:
        row = f"| `{answer.name}` | {answer.meaning} | {answer.price:g} |"
        assert row in page, row


def test_needs_name_kinds_and_methods_name_needs() -> None:
    known = {need.name for need in NEEDS}
    assert all(need.answers <= set(COUNTS) for need in NEEDS)
    assert set().union(*(need.answers for need in NEEDS)) == set(COUNTS)
    assert known >= COMPOSITE
    for name in methods.names():
        assert methods.get(name).needs <= known
    guide = (DOCS / "writing-a-method.md").read_text("utf-8")
    listed = re.search(r"What the method needs, a subset of (.*?)\s\(", guide, re.DOTALL)
    assert listed is not None and set(re.findall(r"`(\w+)`", listed.group(1))) == known


@pytest.mark.parametrize("need", NEEDS)
def test_what_a_method_would_ignore_is_refused(need: object) -> None:
    assert need in NEEDS
    needs = frozenset({need.name})  # type: ignore[attr-defined]
    refuse_unused("Mine", needs)
    if "rank" in needs:
        refuse_unused("Mine", needs, ranker=sorted)
    else:
        with pytest.raises(UnusedOptionError, match="ranker: Mine needs .* does not use rankings"):
            refuse_unused("Mine", needs, ranker=sorted)
    if needs & {"value", "rank", "jvp"}:
        with pytest.raises(UnusedOptionError, match="scaler: Mine needs .*; leave it out"):
            refuse_unused("Mine", needs, scaler=object())
    else:
        refuse_unused("Mine", needs, scaler=object())
