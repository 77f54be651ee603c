"""Tables of what the benchmarks measured, from the JSON they leave."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent.parent / "benchmarks/results"


def read(name: str) -> dict[str, Any]:
    """The record called ``name``."""
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def page() -> str:
    """The whole page."""
    first, steps, forwards = (read(f"{n}-cpu") for n in ("first_order", "steps", "forwards"))
    quality = [read(path.stem) for path in sorted(RESULTS.glob("quality-*.json"))]
    return PAGE.format(
        machine=machine(first),
        first_order=first_order(first),
        peers=", ".join(f"{name} {version}" for name, version in first["peers"].items()),
        parameters=f"{first['parameters'] / 1e6:.1f}",
        steps=many_tensors(steps),
        forwards=in_forwards(forwards),
        quality="\n\n".join(map(reached, quality)),
    )


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def machine(found: Mapping[str, Any]) -> str:
    """Where it was measured, in words."""
    where = found["environment"]
    return (
        f"{where['cpu']}, {where['cores']} cores, {where['threads']} threads, {where['platform']}, "
        f"Python {where['python']}, torch {where['torch']}"
    )


def first_order(found: Mapping[str, Any]) -> str:
    """Time and state of one step of every method and peer, fastest first."""
    times, over = found["times"], found["over_torch_adamw_fused"]
    bytes_, count = found["state_bytes"], found["parameters"]
    per_byte = found["per_byte_over_torch_adamw_fused"]
    ours = set(per_byte) | {"scale", "muon", "muon bfloat16"}
    rows = [
        [
            f"**{name}**" if name in ours else name,
            f"{times[name]['median_ms']:.1f}",
            f"{over[name]:.2f}",
            f"{per_byte[name]:.2f}" if name in per_byte else "",
            f"{bytes_[name] / count:.2f}" if bytes_[name] else "",
        ]
        for name in sorted(times, key=lambda name: times[name]["median_ms"])
    ]
    return table(
        ["method", "ms", "relative to fused AdamW", "per byte", "state, bytes per parameter"],
        rows,
    )


def many_tensors(found: Mapping[str, Any]) -> str:
    """Times of steps on the two sets of tensors."""
    sets = found["sets"]
    names = [n for n in next(iter(sets.values()))["times"] if "checked" not in n]
    head = ["method", *(f"{name}: ms | relative to fused" for name in sets)]
    head = [cell for name in head for cell in name.split(" | ")]
    rows = [
        [name]
        + [
            cell
            for each in sets.values()
            for cell in (
                f"{each['times'][name]['median_ms']:.2f}",
                f"{each['over_torch_adamw_fused'][name]:.2f}",
            )
        ]
        for name in names
    ]
    return table(head, rows)


def in_forwards(found: Mapping[str, Any]) -> str:
    """Steps in forward passes and in gradient steps."""
    times = {name: entry["median_ms"] for name, entry in found["times"].items()}
    rows = [
        [name, f"{ms:.0f}", f"{ms / times['forward']:.2f}", f"{ms / times['sgd step']:.2f}"]
        for name, ms in times.items()
    ]
    return table(["", "ms", "in forward passes", "in steps of SGD"], rows)


def reached(found: Mapping[str, Any]) -> str:
    """What the methods reached on one problem, best first, and how they compare with AdamW."""
    problem, plan = found["problem"], found["plan"]["settings"]
    options = "".join(f", {name} {value}" for name, value in problem["options"].items())
    methods = {method["name"]: method for method in found["methods"]}
    metric = problem["metric"].replace("_", " ")
    rows = sorted(found["leaderboard"], key=lambda row: row["final_loss"])
    body = [
        [
            f"`{row['name']}`",
            _spread(row["final_loss"], row["low"], row["high"]),
            _spread(row["metric"], row["metric_low"], row["metric_high"]),
            _against(row["name"], found["against_adamw"]),
            _time(methods[row["name"]]),
            f"{(row['state_bytes'] or 0) / problem['parameters']:.2f}",
            _settings(methods[row["name"]]),
        ]
        for row in rows
    ]
    head = [
        "method",
        "final loss",
        metric,
        f"{metric} minus AdamW's",
        "gradients to AdamW's final result",
        "state, bytes per parameter",
        "tuned hyperparameters",
    ]
    return (
        f"### {problem['name']}{options}\n\n"
        f"{problem['parameters']:,} parameters; {plan['budget']} per run, {plan['tune']} tuning "
        f"runs and {plan['seeds']} seeds per method.\n\n{table(head, body)}"
    )


def aa() -> str:
    """How many real comparisons of a method with itself separate it from itself."""
    found = read("aa-cpu")
    done, least = found["done"], min(each["p"] for each in found["done"])
    against = list(dict.fromkeys(each["against"] for each in done))
    names = " or ".join(f"`{name}`" for name in against)
    problems = ", ".join(f"`{name}`" for name in found["problems"])
    text = (
        f"`benchmarks/aa.py` runs real comparisons of `adamw` with itself: with {names}, tuned "
        f"{found['tunings']} times, independently, with {found['trials']} trials each, on "
        f"{problems}. {found['separated']} of {found['of']} comparisons separate the two; the "
        f"smallest p-value is {least:.2g}."
    )
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)


def _settings(method: Mapping[str, Any]) -> str:
    names = [each["name"] for each in method["space"]]
    words = ", ".join(f"{name} {_short(method['settings'][name])}" for name in names)
    return words + (" (boundary)" if method["edge"] else "")


def _short(value: Any) -> str:
    return f"{value:.2g}" if isinstance(value, float) else str(value)


def _spread(middle: float, low: float | None, high: float | None) -> str:
    if not math.isfinite(middle):
        return "none"
    if low is None or high is None:
        return f"{middle:.4g}"
    return f"{middle:.4g} ({low:.4g} to {high:.4g})"


def _against(name: str, pairs: Iterable[Mapping[str, Any]]) -> str:
    for pair in pairs:
        if name in (pair["a"], pair["b"]) and name != "adamw":
            if pair["interval"] is None:
                return str(pair["why"] or pair["verdict"])
            sign = 1.0 if pair["a"] == name else -1.0
            ends = sorted(sign * pair["interval"][end] for end in ("low", "high"))
            return f"{sign * pair['difference']:+.4f} ({ends[0]:+.4f} to {ends[1]:+.4f})"
    return ""


def _time(method: Mapping[str, Any]) -> str:
    reach, runs = method["to_adamw"], len(method["runs"])
    if not reach["success"]:
        return "never"
    ends = (f"{reach[end]:.0f}" if reach[end] is not None else "∞" for end in ("low", "high"))
    return f"{reach['grads']:.0f} ({' to '.join(ends)}), {reach['success'] * runs:.0f} of {runs}"


PAGE = """<!-- Written by docs/generate.py from benchmarks/results; rerun the benchmarks instead.
-->

# Benchmarks

`make bench` measures the times of this page on your machine. `make quality` measures what the
methods reach (takes hours). The entries of a table ran alternately in one process, A B C A B C,
so that drift of the machine affects all equally; times are medians. Machine: {machine}. No GPU
was available; the benchmarks accept `--device cuda`.

## One step of a first-order method

The same matrices and gradients for all, {parameters} million float32 parameters. Methods of this
library are in bold and compiled. They do not check for NaN, because the others do not either. A
memory-bound step cannot be faster than the memory transfer; for such methods the fourth column
divides the time by the number of bytes that the method must transfer. Other libraries: {peers}.

{first_order}

8-bit state and norms (`accelerated`) need additional arithmetic, matrix products (`muon`,
`scale`) even more; these methods are not memory-bound.

## Large tensors and many small ones

{steps}

*Eager* is the same rule without a compiler. The check for NaN before each step, which is on by
default (`nonfinite="raise"`), is one more pass over the gradients.

## Forward passes

A transformer of 4.9 million parameters, batches of 32 times 64 bytes.

{forwards}

## Final quality

Equal tuning for all methods, paired seeds, equal numbers of gradients. The loss is the validation
loss: the interquartile mean over seeds with its 95 % interval. Differences to tuned AdamW are
means over the same seeds. Five seeds cannot separate any two methods at the 5 % level after
correction for all pairs; an interval that excludes zero is an indication, not a conclusion.
*Gradients to AdamW's final result* is the expected cost until a method is as good as tuned AdamW
is on average after the whole budget: the cost of all runs until then, including runs that never
reached it, divided by the number of runs that did. The number of such runs follows.

{quality}
"""
