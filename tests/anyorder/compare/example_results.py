"""Results to make reports of: measured ones, by training for a second or two, and hostile ones."""

from __future__ import annotations

import copy
import hashlib
import math
import time
from collections.abc import Sequence
from typing import Any

import torch

from anyorder import methods
from anyorder.oracle.gradients import NonFiniteError
from anyorder.oracle.ledger import NOMINAL_RATES, Calls
from anyorder.problems import load

SPACES: dict[str, tuple[Any, float, float, dict[str, Any]]] = {
    # class, ends of the searched learning rate, other settings
    "adamw": (methods.get("adamw"), 1e-4, 1e-1, {}),
    "torch.optim:SGD": (torch.optim.SGD, 1e-3, 3.0, {"momentum": 0.9}),
    "lion": (methods.get("lion"), 1e-5, 1e-2, {}),
    "adahessian": (methods.get("adahessian"), 1e-2, 1.0, {}),
    "mezo": (methods.get("mezo"), 1e-4, 1e-1, {}),
    "rank_sgd": (methods.get("rank_sgd"), 1e-2, 10.0, {}),
}


def _train(
    problem: Any, name: str, lr: float, seed: int, budget: float, evaluations: int
) -> dict[str, Any]:
    """One run until ``budget`` forward equivalents are spent, in the form of ``results.json``."""
    cls, _, _, options = SPACES[name]
    model = problem.build(seed)
    names = sorted(model.state_dict())
    start = hashlib.sha256(b"".join(model.state_dict()[n].numpy().tobytes() for n in names))
    ours = name in methods.names()
    more = {"engine": "eager", "seed": seed} if ours else {}
    optimizer = cls(model if ours else model.parameters(), lr=lr, **options, **more)
    calls = optimizer.calls if ours else Calls()
    curve: list[dict[str, Any]] = []
    seconds, steps, status, error = 0.0, 0, "done", None
    due = [budget * (i / evaluations) ** 1.5 for i in range(evaluations + 1)]
    seen: list[float] = []

    def closure() -> torch.Tensor:
        batch = problem.batch(seed, steps)
        if ours:
            return problem.loss(model, batch)
        began = time.perf_counter()
        optimizer.zero_grad()
        loss = problem.loss(model, batch)
        loss.backward()
        calls.grads += 1
        calls.seconds += time.perf_counter() - began
        return loss

    while len(curve) <= evaluations:
        spent = calls.forwards(NOMINAL_RATES)
        if spent >= due[len(curve)]:
            found = problem.evaluate(model)
            means = [value for value in seen if math.isfinite(value)]
            curve.append(
                {
                    "fraction": spent / budget,
                    "seconds": seconds,
                    "forwards": spent,
                    "calls": {k: v for k, v in calls.to_dict().items() if k != "seconds"},
                    "steps": steps,
                    "train_loss": sum(means) / len(means) if means else None,
                    "val_loss": found["loss"] if math.isfinite(found["loss"]) else None,
                    "metric": found[problem.metric],
                    "oracle_seconds": calls.seconds,
                    "optimizer_seconds": max(0.0, seconds - calls.seconds),
                }
            )
            seen = []
            if not math.isfinite(found["loss"]) or found["loss"] > 1e3:
                status, error = "diverged", f"the validation loss rose to {found['loss']:g}"
                break
            continue
        began = time.perf_counter()
        try:
            seen.append(float(optimizer.step(closure).detach()))
        except NonFiniteError as stopped:
            status, error = "diverged", str(stopped)
            break
        seconds += time.perf_counter() - began
        steps += 1
    done = status == "done"
    last = curve[-1]
    return {
        "seed": seed,
        "config": {"lr": lr},
        "start_hash": start.hexdigest(),
        "status": status,
        "stop_reason": "budget" if done else "diverged",
        "error": error,
        "curve": curve,
        "final": {"loss": last["val_loss"], "metric": last["metric"]}
        if done
        else {"loss": None, "metric": None},
        "test": problem.test(model) if done else None,
        "peak_bytes": 300 * 2**20 + 1000 * steps,
        "base_bytes": 290 * 2**20,
        "state_bytes": sum(
            part.nbytes
            for state in optimizer.state.values()
            for part in state.values()
            if isinstance(part, torch.Tensor)
        ),
        "warmup_seconds": 0.01,
    }


def measured(
    names: Sequence[str] = ("adamw", "torch.optim:SGD", "adahessian", "mezo"),
    seeds: int = 3,
    trials: int = 4,
    budget: float = 600,
    evaluations: int = 12,
    problem_name: str = "digits",
) -> dict[str, Any]:
    """Tune and run methods on a small problem; a comparison in miniature."""
    problem = load(problem_name)
    found: list[dict[str, Any]] = []
    for name in names:
        cls, low, high, options = SPACES[name]
        rates = [low * (high / low) ** (i / max(1, trials - 1)) for i in range(trials)]
        tuning = [_train(problem, name, lr, 1000, budget, 2) for lr in rates]
        scores = [
            math.inf
            if (v := run["final"]["metric"]) is None
            else -v
            if problem.goal == "max"
            else v
            for run in tuning
        ]
        chosen = scores.index(min(scores))
        runs = [
            _train(problem, name, rates[chosen], seed, budget, evaluations) for seed in range(seeds)
        ]
        found.append(
            {
                "name": name,
                "spec": name,
                "class": f"{cls.__module__}.{cls.__qualname__}",
                "version": f"torch {torch.__version__}",
                "order": getattr(cls, "order", 1),
                "needs": sorted(getattr(cls, "needs", {"grad"})),
                "settings": {"lr": rates[chosen], **options},
                "chosen": chosen,
                "space": [{"name": "lr", "kind": "log", "low": low, "high": high, "choices": None}],
                "tuning": [
                    {
                        "index": i,
                        "config": run["config"],
                        "seed": 1000,
                        "value": run["final"]["metric"],
                        "loss": run["final"]["loss"],
                        "cost": {k: run["curve"][-1][k] for k in ("seconds", "forwards", "steps")},
                        "status": run["status"],
                        "error": run["error"],
                    }
                    for i, run in enumerate(tuning)
                ],
                "runs": runs,
                "failed": None,
            }
        )
    return {
        "schema": 1,
        "created_by": "0.1.0",
        "created": "2026-01-02T03:04:05+00:00",
        "command": f"anyorder compare {problem_name} --methods {','.join(names)}",
        "plan": {
            "budget": f"{budget:g}forwards",
            "tune": trials,
            "seeds": seeds,
            "schedule": "constant",
            "device": "cpu",
        },
        "problem": {
            "name": problem_name,
            "options": {},
            "metric": problem.metric,
            "goal": problem.goal,
            "target": problem.target,
            "optimum": problem.optimum,
        },
        "environment": {
            "python": "3.11",
            "packages": {"torch": str(torch.__version__)},
            "cores": 2,
        },
        "probe": {
            "parameters": 17226,
            "deterministic": True,
            "noise": {"batches": 16, "mean": 2.31, "std": 0.02},
            "costs": {
                "value": {"seconds": 1.1e-4, "bytes": 0},
                "gradient": {"seconds": 3.1e-4, "bytes": 4096},
            },
            "findings": [
                {
                    "level": "warning",
                    "topic": "loss",
                    "found": "differs from finite differences by 3 %",
                    "instead": "Look for a step in the loss.",
                    "where": None,
                }
            ],
        },
        "rates": {
            "used": "nominal",
            "nominal": dict(NOMINAL_RATES),
            "measured": {"values": 1.0, "grads": 2.82, "products": None, "ranked": 1.0},
        },
        "budget": {"forwards": budget},
        "methods": found,
        "warnings": [],
    }


# --- Hostile ones ------------------------------------------------------------------------------


def run(seed: int, values: Sequence[float | None], **more: Any) -> dict[str, Any]:
    """A run with these validation losses, whose metric is 1 minus the loss."""
    curve = [
        {
            "fraction": i / 5,
            "seconds": 0.5 * i,
            "forwards": 30.0 * i,
            "calls": {"values": 0, "grads": 10 * i, "products": 0, "rankings": 0, "ranked": 0},
            "steps": 10 * i,
            "train_loss": value,
            "val_loss": value,
            "metric": None if value is None else 1 - value,
            "oracle_seconds": 0.3 * i,
            "optimizer_seconds": 0.2 * i,
        }
        for i, value in enumerate(values)
    ]
    last = values[-1] if values else None
    final = {"loss": last, "metric": None if last is None else 1 - last}
    return {
        "seed": seed,
        "start_hash": f"s{seed}",
        "status": "done",
        "stop_reason": "budget",
        "error": None,
        "curve": curve,
        "final": final,
        "test": None,
        "peak_bytes": 1 << 20,
        "state_bytes": 1 << 10,
        "warmup_seconds": 0.0,
    } | more


def made_up(losses: dict[str, list[list[float | None]]], **problem: Any) -> dict[str, Any]:
    """Results from nothing but the losses of every run of every method."""
    return {
        "schema": 1,
        "plan": {"budget": "150forwards", "seeds": 3, "tune": 0},
        "problem": {"name": "made up", "metric": "score", "goal": "max", "target": 0.8} | problem,
        "methods": [
            {
                "name": name,
                "runs": [run(i, values) for i, values in enumerate(runs)],
                "failed": None,
            }
            for name, runs in losses.items()
        ],
    }


def hostile() -> dict[str, dict[str, Any]]:
    """Results that a report must survive, by what is wrong with them."""
    fine: dict[str, list[list[float | None]]] = {
        "a": [[1.0, 0.5 + 0.01 * s, 0.2, 0.1 + 0.01 * s] for s in range(3)],
        "b": [[1.0, 0.6, 0.4, 0.3 + 0.02 * s] for s in range(3)],
    }
    one = made_up({name: runs[:1] for name, runs in fine.items()})
    failed = made_up({name: [[1.0]] * 3 for name in fine})
    for method in failed["methods"]:
        method["failed"] = "all 3 runs failed: RuntimeError: no"
        for each in method["runs"]:
            each |= {
                "status": "failed",
                "error": "RuntimeError: no",
                "curve": [],
                "final": {"loss": None, "metric": None},
            }
    nan = made_up(copy.deepcopy(fine))
    nan["methods"][0]["runs"][1] = run(1, [1.0, math.nan, None], status="diverged", error="NaN")
    nan["methods"][0]["runs"][1]["final"] = {"loss": math.nan, "metric": math.nan}
    nan["methods"][1]["tuning"] = [
        {"config": {"lr": 0.1}, "value": math.nan, "status": "diverged"},
        {"config": {"lr": 1.0}, "value": None, "status": "failed", "error": "boom"},
    ]
    nan["methods"][1]["chosen"] = 0
    exploding = made_up({"up": [[1.0, 50.0, 1e30]] * 3, "down": [[1.0, 0.1, 1e-6]] * 3})
    shouting = (
        "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
    )
    names = made_up({f"{shouting}{i}": copy.deepcopy(runs) for i, runs in enumerate(fine.values())})
    names["problem"]["name"] = names["problem"]["metric"] = "</script><b>"
    names["warnings"] = [shouting]
    names["command"] = f"anyorder '{shouting}'"
    names["methods"][0]["runs"][0] |= {"status": "failed", "error": f"{shouting}\n| `x` |"}
    names["methods"][1]["settings"] = {shouting: shouting}
    twelve = {
        f"method number {i:02d}": [
            [1.0, 0.9 - 0.05 * i, 0.5, 0.5 - 0.03 * i + 0.004 * s] for s in range(3)
        ]
        for i in range(12)
    }
    return {
        "one seed": one,
        "all failed": failed,
        "nan": nan,
        "exploding": exploding,
        "no target": made_up(copy.deepcopy(fine), target=None),
        "constant": made_up({name: [[0.5, 0.5, 0.5]] * 3 for name in "ab"}),
        "twelve": made_up(twelve),
        "names": names,
        "optimum": made_up(
            {"a": [[1.0, 0.1, 0.0]] * 3, "b": [[1.0, 0.01, -1e-12]] * 3}, optimum=0.0
        ),
        "no methods": made_up({}),
        "nothing": {},
        "empty curves": made_up({"a": [[], [], []]}),
    }
