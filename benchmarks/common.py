"""What the benchmarks share: paired timing, the environment, and where results go."""

from __future__ import annotations

import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from anyorder.compare.run.environment import computer, cores, load

RESULTS = Path(__file__).parent / "results"


def paired(
    entrants: Mapping[str, Callable[[], Any]], *, rounds: int, warmup: int = 3, device: str = "cpu"
) -> dict[str, dict[str, float]]:
    """Time entrants in turn, in another order in each round.

    So drift of the machine, and what the entrant before leaves in caches, affect all alike.

    Returns:
        Milliseconds per call by entrant: median, fastest and slowest of ``rounds``.
    """
    for run in entrants.values():
        for _ in range(warmup):
            run()
    seconds: dict[str, list[float]] = {name: [] for name in entrants}
    order = random.Random(0)
    for _ in range(rounds):
        for name, run in order.sample(list(entrants.items()), len(entrants)):
            _wait(device)
            began = time.perf_counter()
            run()
            _wait(device)
            seconds[name].append(time.perf_counter() - began)
    return {
        name: {
            "median_ms": round(1e3 * statistics.median(times), 4),
            "min_ms": round(1e3 * min(times), 4),
            "max_ms": round(1e3 * max(times), 4),
        }
        for name, times in seconds.items()
    }


def ratios(times: Mapping[str, Mapping[str, float]], base: str) -> dict[str, float]:
    """Median of each entrant over that of ``base``."""
    floor = times[base]["median_ms"]
    return {name: round(entry["median_ms"] / floor, 3) for name, entry in times.items()}


def environment(device: str) -> dict[str, Any]:
    """Versions and hardware, without names of hosts or folders."""
    busy = load()
    found: dict[str, Any] = {
        **computer(),
        "cores": cores(),
        "threads": torch.get_num_threads(),
        "load_before": None if busy is None else round(busy, 2),
    }
    if device == "cuda":
        found["gpu"] = torch.cuda.get_device_name()
    return found


def store(name: str, device: str, result: dict[str, Any]) -> None:
    """Write ``results/<name>-<device>.json`` and print it."""
    RESULTS.mkdir(exist_ok=True)
    folder = Path(os.environ.get("ANYORDER_BENCH_OUT", RESULTS))
    record = {"benchmark": name, "environment": environment(device), **result}
    path = folder / f"{name}-{device}.json"
    path.write_text(json.dumps(record, indent=2) + "\n")
    json.dump(record, sys.stdout, indent=1)
    print()


def device_from(arguments: list[str]) -> str:
    """``cuda`` if asked for by ``--device cuda``, else ``cpu``."""
    return "cuda" if arguments[-1:] == ["cuda"] else "cpu"


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
