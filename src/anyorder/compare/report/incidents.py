"""Warnings and failures of the runs of each method, and those that met a limit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from anyorder.compare.report.formats import listing, plural
from anyorder.compare.run.records import RunRecord
from anyorder.compare.store.schema import MethodRecord

#: Maximum number of runs that are named.
_NAMED = 3

Kind = Literal["failed", "timed out", "over the memory limit", "diverged", "warning"]


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that happened in some runs of a method.

    Attributes:
        kind: What happened.
        text: The message of the warning, or the error.
        runs: The runs, in words; empty if the method had none.
    """

    kind: Kind
    text: str
    runs: list[str]

    @property
    def where(self) -> str:
        """The first runs, and the number of others."""
        more = len(self.runs) - _NAMED
        others = [f"{plural(more, 'more run')}"] if more > 0 else []
        return listing([*self.runs[:_NAMED], *others])


def incidents(method: MethodRecord) -> list[Incident]:
    """Warnings and losses of the runs of a method; equal ones are merged, losses first."""
    found: dict[tuple[Kind, str], list[str]] = {}
    for where, run in _runs(method):
        if (kind := _loss(run)) is not None:
            found.setdefault((kind, run.error or "unknown reason"), []).append(where)
        for text in run.warnings:
            found.setdefault(("warning", text), []).append(where)
    if method.failed and not method.runs:
        found["failed", method.failed] = []
    order: tuple[Kind, ...] = get_args(Kind)
    return [
        Incident(kind, text, where)
        for (kind, text), where in sorted(found.items(), key=lambda each: order.index(each[0][0]))
    ]


def summary(found: Sequence[Incident]) -> str:
    """How many runs were lost, and how many different warnings there are."""
    lost = {each.kind: 0 for each in found if each.kind != "warning"}
    for each in found:
        if each.kind != "warning":
            lost[each.kind] += len(each.runs)
    said = [f"{plural(count, 'run')} {kind}" if count else kind for kind, count in lost.items()]
    warnings = sum(each.kind == "warning" for each in found)
    return ", ".join([*said, *([plural(warnings, "warning")] if warnings else [])])


def _runs(method: MethodRecord) -> Iterable[tuple[str, RunRecord]]:
    """The runs of a method, and what each is called."""
    several = len(method.tunings) > 1
    for run in method.runs:
        yield f"tuning {run.tuning} seed {run.seed}" if several else f"seed {run.seed}", run
    for run in method.default_runs:
        if run not in method.runs:
            yield f"default seed {run.seed}", run


def _loss(run: RunRecord) -> Kind | None:
    if run.status == "done":
        return None
    kinds: dict[str, Kind] = {"timeout": "timed out", "memory": "over the memory limit"}
    return kinds.get(run.stop_reason, run.status)
