"""Step cost of the methods that ask more than a gradient, in plain forwards and gradient steps.

Run:
    python benchmarks/forwards.py [--device cuda]

Floors: MeZO 2 forwards per step; AdaHessian about 3 gradient steps (a backward that keeps its
graph, and a second backward through it). Memory is the peak during a step over that of a forward.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

import torch
from common import device_from, paired, ratios, store

from anyorder import SGD, AdaHessian, MeZO
from anyorder.problems import load, move


def world(device: str) -> tuple[torch.nn.Module, Any]:
    """The small language model and the closure of one batch."""
    problem = load("stdlib-lm", size="small")
    model = problem.build(0).to(device)
    return model, problem.closure(model, move(problem.batch(0, 0), device))


def main() -> None:
    """Measure and store."""
    warnings.simplefilter("ignore")
    device = device_from(sys.argv)
    model, closure = world(device)
    sizes = [p.numel() for p in model.parameters()]
    quiet = torch.no_grad()(closure)
    mezo = MeZO(model, lr=1e-9, engine="compiled")
    adahessian = AdaHessian(model, lr=1e-9, engine="compiled")
    lazy = AdaHessian(model, lr=1e-9, every=10, engine="compiled")
    sgd = SGD(model, lr=1e-9, engine="compiled")
    times = paired(
        {
            "forward": quiet,
            "mezo step": lambda: mezo.step(closure),
            "official mezo pattern": _official(model, quiet),
            "sgd step": lambda: sgd.step(closure),
            "adahessian step": lambda: adahessian.step(closure),
            "ten lazy adahessian steps": lambda: [lazy.step(closure) for _ in range(10)],
        },
        rounds=12,
        device=device,
    )
    result = {
        "model": {"parameters": sum(sizes), "largest": max(sizes), "tensors": len(sizes)},
        "times": times,
        "in_forwards": ratios(times, "forward"),
        "in_sgd_steps": ratios(times, "sgd step"),
        "peak_bytes": {
            "forward": peak(quiet, device),
            "mezo step": peak(lambda: mezo.step(closure), device),
            "sgd step": peak(lambda: sgd.step(closure), device),
            "adahessian step": peak(lambda: adahessian.step(closure), device),
            "largest parameter": 4 * max(sizes),
        },
    }
    store("forwards", device, result)


def _official(model: torch.nn.Module, quiet: Any) -> Any:
    """The pattern of the published loop: add noise, subtract it twice, add it back, update."""
    params = list(model.parameters())
    scale = 1e-9

    @torch.no_grad()
    def noise(amount: float, seed: int) -> None:
        torch.manual_seed(seed)
        for param in params:
            param.add_(torch.randn_like(param), alpha=amount)

    def step() -> None:
        noise(scale, 0)
        quiet()
        noise(-2 * scale, 0)
        quiet()
        noise(scale, 0)
        noise(-scale, 0)

    return step


def peak(run: Any, device: str) -> int:
    """Peak bytes above the present during a call (CUDA: allocator; CPU: resident set, sampled)."""
    run()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        base = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - base
    return _allocated(run)


def _allocated(run: Any) -> int:
    """Peak bytes held by tensors that one call allocates, from the profiler's record."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        run()
    held = highest = 0
    for event in record.profiler.kineto_results.events():  # in time order
        if event.name() == "[memory]":
            held += event.nbytes()
            highest = max(highest, held)
    return highest


if __name__ == "__main__":
    main()
