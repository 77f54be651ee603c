"""``results.json``: made from what the storage holds, checked, written whole, read back."""

from __future__ import annotations

import contextlib
import copy
import datetime
import json
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import anyorder
from anyorder.compare.plan.entrants import Entrant
from anyorder.compare.plan.plan import Item, Limits, Plan, best_trial
from anyorder.compare.run.pilot import prices
from anyorder.compare.store.schema import SCHEMA, Results, ResultsError, validate
from anyorder.compare.store.storage import StorageError
from anyorder.oracle.kinds import NOMINAL_RATES

Outcomes = Mapping[str, Mapping[str, Any]]


def build(
    plan: Plan,
    facts: Mapping[str, Any],
    entrants: Sequence[Entrant],
    outcomes: Outcomes,
    command: str,
) -> Results:
    """Everything that was measured, in the form of ``docs/results.md``.

    Args:
        plan: the plan that was followed.
        facts: what was found before the first run: ``problem``, ``probe``, ``environment``.
        entrants: the methods, in order.
        outcomes: every finished run by key.
        command: what repeats the comparison.
    """
    rates = rates_of(plan, facts)
    goal = facts["problem"]["goal"]
    found = {
        "schema": SCHEMA,
        "created_by": anyorder.__version__,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": command,
        "plan": plan.to_dict(),
        "problem": {
            **{name: value for name, value in facts["problem"].items() if name != "schedule"},
            "parameters": facts["probe"]["parameters"],
            "source": plan.source,
        },
        "environment": {**facts["environment"], "machines": _machines(outcomes)},
        "probe": facts["probe"],
        "rates": {
            "used": plan.rates,
            "nominal": dict(NOMINAL_RATES),
            "measured": facts["probe"]["measured"],
        },
        "budget": Limits.read(plan.budget, rates).to_dict(),
        "methods": [_method(plan, each, outcomes, goal) for each in entrants],
        "warnings": [],
    }
    found["warnings"] = _warnings(found)
    return validate(json.loads(json.dumps(found)))


def rates_of(plan: Plan, facts: Mapping[str, Any]) -> dict[str, float]:
    """The price list that a comparison goes by."""
    return prices(facts["probe"]["measured"] if plan.rates == "measured" else None)


def score(record: Mapping[str, Any], goal: str) -> tuple[float, float]:
    """Metric and loss of a run, smaller is better; inf if it diverged or failed."""
    value, loss = record["final"]["metric"], record["final"]["loss"]
    if record["status"] != "done" or value is None or loss is None:
        return float("inf"), float("inf")
    return (value if goal == "min" else -value), loss


def chosen(plan: Plan, method: Mapping[str, Any], outcomes: Outcomes, goal: str) -> int:
    """Index of the configuration that is reported for a method."""
    keys = [Item("tune", method["name"], i, 0).key for i in range(plan.trials(method))]
    return best_trial([score(outcomes[key]["record"], goal) for key in keys])


def _method(plan: Plan, entrant: Entrant, outcomes: Outcomes, goal: str) -> dict[str, Any]:
    entry = next(method for method in plan.methods if method["name"] == entrant.name)
    tuning = [
        outcomes[Item("tune", entrant.name, index, 0).key] for index in range(plan.trials(entry))
    ]
    index = chosen(plan, entry, outcomes, goal)
    config = tuning[index]["config"] if tuning else {}
    runs = _runs(plan, "report", entrant.name, outcomes)
    defaults = _runs(plan, "default", entrant.name, outcomes) if plan.defaults else []
    return {
        "name": entrant.name,
        "spec": entrant.spec,
        "class": entrant.path,
        "version": entrant.version,
        "order": entrant.order,
        "needs": entrant.needs,
        "settings": plain(entrant.settings(config)),
        "chosen": index,
        "space": [each.to_dict() for each in entrant.space],
        "tuning": [_trial(number, outcome) for number, outcome in enumerate(tuning)],
        "runs": runs,
        "default_runs": runs if plan.defaults and index == 0 else defaults,
        "failed": _failure(runs),
    }


def _runs(plan: Plan, kind: Any, method: str, outcomes: Outcomes) -> list[dict[str, Any]]:
    keys = [Item(kind, method, -1, seed).key for seed in range(plan.seeds)]
    return [outcomes[key]["record"] for key in keys if outcomes[key]["record"] is not None]


def _trial(index: int, outcome: Mapping[str, Any]) -> dict[str, Any]:
    record = outcome["record"]
    last = record["curve"][-1] if record["curve"] else {}
    return {
        "index": index,
        "config": outcome["config"],
        "seed": record["seed"],
        "value": record["final"]["metric"],
        "loss": record["final"]["loss"],
        "cost": {name: last.get(name, 0) for name in ("seconds", "forwards", "steps")},
        "status": record["status"],
        "error": record["error"],
    }


def _failure(runs: Sequence[Mapping[str, Any]]) -> str | None:
    """Why no run of a method is usable; None if one is."""
    if any(run["status"] == "done" for run in runs):
        return None
    failed = [run for run in runs if run["status"] == "failed"] or list(runs)
    return f"all {len(runs)} runs {failed[0]['status']}: {failed[0]['error']}"


def _machines(outcomes: Outcomes) -> list[str]:
    return sorted({outcome["machine"] for outcome in outcomes.values() if outcome["machine"]})


def _warnings(found: Mapping[str, Any]) -> list[str]:
    """What makes a comparison less fair than it looks."""
    says: list[str] = []
    starts: dict[int, set[str]] = {}
    for method in found["methods"]:
        for run in method["runs"]:
            if run["start_hash"]:
                starts.setdefault(run["seed"], set()).add(run["start_hash"])
    unequal = [str(seed) for seed, hashes in starts.items() if len(hashes) > 1]
    if unequal:
        says.append(
            f"methods did not start at the same point (seed {', '.join(unequal)}): build(seed) of "
            "the problem gives another model in another process"
        )
    machines = found["environment"]["machines"]
    if "seconds" in found["budget"] and len(machines) > 1:
        says.append(f"seconds of {len(machines)} machines are compared: {', '.join(machines)}")
    load, cores = found["environment"]["load"], found["environment"]["cores"]
    busy = found["environment"]["jobs"] * found["environment"]["threads"]
    if load is not None and load + busy > 1.5 * cores:
        says.append(f"other programs were running (load {load:.1f} on {cores} cores): times vary")
    for method in found["methods"]:
        says += _edges(method)
    return says


def _edges(method: Mapping[str, Any]) -> list[str]:
    """Searched values that were best at an end of their range."""
    if method["chosen"] == 0:
        return []
    says: list[str] = []
    for each in method["space"]:
        value, low, high = method["settings"][each["name"]], each["low"], each["high"]
        if each["kind"] == "choice" or low == high:
            continue
        share = (value - low) / (high - low)
        if each["kind"] == "log":
            share = _log_share(value, low, high)
        if share < 0.02 or share > 0.98:
            says.append(
                f"{method['name']}: the best {each['name']} ({value:.3g}) lies at the edge of what "
                f"was searched ({low:g} to {high:g})"
            )
    return says


def _log_share(value: float, low: float, high: float) -> float:
    return math.log(value / low) / math.log(high / low)


# --- Files -------------------------------------------------------------------------------------


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as JSON can hold them; what it cannot is described in words."""
    return {name: json.loads(json.dumps(value, default=str)) for name, value in values.items()}


def write(results: Results, path: Path) -> None:
    """Write a results file whole or not at all.

    Raises:
        StorageError: the folder cannot be written or is full.
    """
    write_whole(path, json.dumps(results, indent=1, allow_nan=False) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Put ``text`` into a file in one step, so that nobody ever reads half of it."""
    scratch = ""
    try:
        with tempfile.NamedTemporaryFile(
            "w", dir=path.parent, prefix=f".{path.name}.", delete=False, encoding="utf-8"
        ) as file:
            scratch = file.name
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(scratch, 0o644)
        os.replace(scratch, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(scratch)
        raise StorageError(
            f"cannot write {path}: {error.strerror or error}. Make room or choose another folder "
            "with --out"
        ) from error


def load(path: Path) -> Results:
    """Read a results file and check it.

    Raises:
        ResultsError: it is no results file, is damaged, or another version wrote it.
    """
    try:
        return validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        if isinstance(error, ResultsError):
            raise
        raise ResultsError(f"cannot read the results file {path}: {error}") from error


#: Fields that hold times, memory, or circumstances, wherever they stand.
_TIMES = frozenset(
    """created command environment probe measured seconds oracle_seconds optimizer_seconds
    data_seconds warmup_seconds evaluation_seconds peak_bytes base_bytes state_bytes
    warnings traceback""".split()
)


def strip_times(results: Mapping[str, Any]) -> dict[str, Any]:
    """What is left of results without times, memory and circumstances.

    With a budget counted in answers, two comparisons with one plan are equal in this, however
    often one of them was killed.
    """
    return cast("dict[str, Any]", _stripped(copy.deepcopy(dict(results))))


def _stripped(tree: Any) -> Any:
    if isinstance(tree, dict):
        fields = cast("dict[str, Any]", tree)
        return {name: _stripped(part) for name, part in fields.items() if name not in _TIMES}
    if isinstance(tree, list):
        return [_stripped(part) for part in cast("list[Any]", tree)]
    return tree
