"""Step time of the elementwise methods against torch.optim, in one run.

Run:
    python benchmarks/steps.py [--device cuda]

The floor of a step is its memory traffic: 28 bytes per float32 parameter for AdamW (weights, mean
and square read and written, gradient read), 20 for Lion and SGD with momentum, 12 for plain SGD.
"""

from __future__ import annotations

import sys
import time
import warnings
from typing import Any

import torch
from common import device_from, paired, ratios, store

from anyorder import SGD, AdamW, Lion

#: Number of tensors, parameters in all.
SETS = {"70 tensors, 12M": (70, 12_000_000), "300 tensors, 1M": (300, 1_000_000)}
BYTES = {"adamw": 28, "lion": 20, "sgd+momentum": 20, "sgd": 12}


def parameters(count: int, total: int, device: str) -> list[torch.nn.Parameter]:
    """``count`` parameters of mixed sizes, ``total`` elements in all, with gradients."""
    weights = torch.linspace(0.5, 1.5, count)
    sizes = (weights / weights.sum() * total).long().tolist()
    made = [torch.nn.Parameter(torch.randn(int(n), device=device)) for n in sizes]
    for param in made:
        param.grad = torch.randn_like(param)
    return made


def entrants(params: list[torch.nn.Parameter], device: str) -> dict[str, Any]:
    """Steppers by name; all work on the same parameters."""
    plain: dict[str, Any] = {"nonfinite": "ignore"}  # as torch.optim, which does not look
    momentum = {"lr": 1e-3, "momentum": 0.9}
    found: dict[str, Any] = {
        "torch adamw loop": torch.optim.AdamW(params, foreach=False),
        "torch adamw foreach": torch.optim.AdamW(params, foreach=True),
        "torch adamw fused": torch.optim.AdamW(params, fused=True),
        "torch sgd foreach": torch.optim.SGD(params, foreach=True, **momentum),
        "torch sgd fused": torch.optim.SGD(params, fused=True, **momentum),
    }
    for mode in ("eager", "compiled"):
        found[f"adamw {mode}"] = AdamW(params, engine=mode, **plain)
        found[f"lion {mode}"] = Lion(params, engine=mode, **plain)
        found[f"sgd+momentum {mode}"] = SGD(params, engine=mode, **momentum, **plain)
    found["adamw compiled, gradients checked"] = AdamW(params, engine="compiled")
    return found


def warm_up(params: list[torch.nn.Parameter]) -> dict[str, float]:
    """Seconds of the first compiled step: kernel made, and kernel found on disk."""
    from anyorder.engine import kernels

    times: dict[str, float] = {}
    for label in ("first step in this process", "first step, kernel on disk"):
        kernels.kernel_for.cache_clear()
        optimizer = AdamW(params, engine="compiled")
        began = time.perf_counter()
        optimizer.step()
        times[label] = round(time.perf_counter() - began, 3)
    return times


def main() -> None:
    """Measure and store."""
    warnings.simplefilter("ignore")
    device = device_from(sys.argv)
    result: dict[str, Any] = {"bytes_per_parameter": BYTES, "sets": {}}
    for name, (count, total) in SETS.items():
        params = parameters(count, total, device)
        first = warm_up(params)
        steppers = {key: o.step for key, o in entrants(params, device).items()}
        times = paired(steppers, rounds=40, device=device)
        result["sets"][name] = {
            "warm_up_s": first,
            "times": times,
            "over_torch_adamw_fused": ratios(times, "torch adamw fused"),
            "copy_ms": _copy_ms(total, device),
        }
    store("steps", device, result)


def _copy_ms(total: int, device: str) -> float:
    """Milliseconds to copy ``total`` float32 numbers (8 bytes each moved): the machine's pace."""
    a, b = torch.randn(total, device=device), torch.empty(total, device=device)
    return paired({"copy": lambda: b.copy_(a)}, rounds=20, device=device)["copy"]["median_ms"]


if __name__ == "__main__":
    main()
