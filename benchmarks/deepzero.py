"""DeepZero: cosine to the gradient, accuracy at equal queries, feature reuse, two processes.

Speed-ups are ratios of CPU seconds of a process, which depend little on what else runs; wall-clock
seconds stand beside them.

    python benchmarks/deepzero.py
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from typing import Any

import common
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import Tensor, nn

from anyorder import problems
from anyorder.methods.deepzero import DeepZero
from anyorder.methods.mezo import MeZO
from anyorder.methods.sgd import SGD
from anyorder.points.directions import Seeded

DIGITS: Any = problems.load("digits")
HIDDEN = 32
#: Steps of a method that evaluates every coordinate; the others get as many values.
STEPS = 20
#: Steps that are timed, after one that is not.
ROUNDS = 3
SGD_OPTIONS: dict[str, Any] = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.0}


def small(seed: int) -> nn.Sequential:
    """A network of 2,410 weights."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 10))


def loss_of(model: nn.Module, seed: int, step: int) -> Callable[[], Tensor]:
    """The closure of one batch of 64 digits."""
    batch = DIGITS.batch(seed, step)
    return lambda: F.cross_entropy(model(batch.pixels), batch.labels)


def cosines() -> dict[str, float]:
    """Cosine of estimates to the gradient, on one batch."""
    model = small(0)
    closure = loss_of(model, 0, 0)
    exact = torch.autograd.grad(closure(), list(model.parameters()))
    flat = torch.cat([g.reshape(-1) for g in exact])
    found: dict[str, float] = {}
    for density in (1.0, 0.1):
        moved = small(0)
        optimizer = DeepZero(moved, lr=1.0, density=density, ratios="uniform", momentum=0.0,
                             weight_decay=0.0, engine="eager")  # fmt: skip
        optimizer.step(loss_of(moved, 0, 0))
        pairs = zip(model.parameters(), moved.parameters(), strict=True)
        step = torch.cat([(a - b).detach().reshape(-1) for a, b in pairs])
        active = torch.where(step != 0, flat, 0.0)
        found[f"coordinates, density {density:g}"] = cosine(step, flat)
        found[f"the same, on active coordinates, density {density:g}"] = cosine(step, active)
    for count in (192, 2410):
        found[f"{count} Gaussian directions"] = cosine(gaussian(model, closure, count), flat)
        found[f"{count} Gaussian directions, expected"] = (count / (count + 2411)) ** 0.5
    return {name: round(value, 5) for name, value in found.items()}


@torch.no_grad()
def gaussian(
    model: nn.Module, closure: Callable[[], Tensor], count: int, eps: float = 1e-3
) -> Tensor:
    """Mean of forward differences along random directions."""
    base, eps = closure().item(), 1e-3
    total = torch.zeros(sum(p.numel() for p in model.parameters()))
    kept = nn.utils.parameters_to_vector(model.parameters()).clone()
    for index in range(count):
        z = Seeded(1, 0, index).tensor("all", kept)
        nn.utils.vector_to_parameters(kept + eps * z, model.parameters())
        total += (closure().item() - base) / eps / count * z
    nn.utils.vector_to_parameters(kept, model.parameters())
    return total


def cosine(a: Tensor, b: Tensor) -> float:
    """Cosine of two vectors."""
    return F.cosine_similarity(a, b, dim=0).item()


def accuracy() -> dict[str, Any]:
    """Accuracy on validation digits after as many values as ``STEPS`` dense steps take."""
    weights = 2410
    budget = STEPS * (weights + 1)
    zeroth: dict[str, Any] = {
        "deepzero, density 1": lambda m: DeepZero(m, density=1.0, engine="eager", **SGD_OPTIONS),
        "deepzero, density 0.1": lambda m: DeepZero(m, engine="eager", **SGD_OPTIONS),
        **{
            f"mezo, {weights // 2} directions, lr {lr:g}": lambda m, lr=lr: MeZO(
                m, lr=lr, directions=weights // 2, engine="eager"
            )
            for lr in (0.3, 1.0)
        },
    }
    rows: dict[str, Any] = {}
    for name, make in zeroth.items():
        seeds = (0,) if name.startswith("mezo") else (0, 1)
        runs = []
        for seed in seeds:
            model = small(seed)
            optimizer = make(model)
            while optimizer.calls.values < budget:
                optimizer.step(loss_of(model, seed, optimizer.steps))
            runs.append(judged(model, optimizer))
        rows[name] = runs
    rows["sgd with gradients, as many steps as density 1"] = []
    for seed in (0, 1):
        model = small(seed)
        optimizer = SGD(model, engine="eager", **SGD_OPTIONS)
        for step in range(STEPS):
            optimizer.step(loss_of(model, seed, step))
        rows["sgd with gradients, as many steps as density 1"].append(judged(model, optimizer))
    return {"values": budget, "seeds": "a row for each", "runs": rows}


def judged(model: nn.Module, optimizer: Any) -> dict[str, Any]:
    """What a run reached and took."""
    measured = DIGITS.evaluate(model)
    return {
        "accuracy": round(measured["accuracy"], 4),
        "loss": round(measured["loss"], 4),
        "steps": optimizer.steps,
        "values": optimizer.calls.values,
    }


def deep(kind: str) -> tuple[nn.Sequential, Tensor, Tensor]:
    """A network with blocks of equal cost, or a convolutional one whose first blocks cost most."""
    torch.manual_seed(0)
    if kind == "equal":
        parts = [nn.Sequential(nn.Linear(256, 256, bias=False), nn.Tanh()) for _ in range(8)]
        return nn.Sequential(*parts), torch.randn(128, 256), torch.randint(0, 256, (128,))
    layers = [
        nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(inplace=True)),
        nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(inplace=True)),
        nn.MaxPool2d(2),
        nn.Sequential(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(inplace=True)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    ]
    return nn.Sequential(*layers), torch.randn(64, 1, 16, 16), torch.randint(0, 10, (64,))


def stepping(kind: str, **options: Any) -> tuple[Callable[[], Any], DeepZero]:
    """A step of DeepZero on a deep network."""
    model, x, y = deep(kind)
    density = 0.001 if kind == "equal" else 0.05
    optimizer = DeepZero(
        model, lr=1e-3, density=density, ratios="uniform", engine="eager", **options
    )
    return lambda: optimizer.step(lambda: F.cross_entropy(model(x), y)), optimizer


def timed(step: Callable[[], Any]) -> tuple[float, float]:
    """CPU and wall-clock seconds of a step, the smallest of some."""
    step()
    found: list[tuple[float, float]] = []
    for _ in range(ROUNDS):
        cpu, wall = time.process_time(), time.perf_counter()
        step()
        found.append((time.process_time() - cpu, time.perf_counter() - wall))
    return min(each[0] for each in found), min(each[1] for each in found)


def reuse(kind: str) -> dict[str, Any]:
    """What feature reuse saves."""
    with_reuse, optimizer = stepping(kind)
    without, _ = stepping(kind, blocks=[])
    a, b = timed(with_reuse), timed(without)
    return {
        "values per step": optimizer.calls.values // optimizer.steps,
        "cpu_s with reuse": round(a[0], 4),
        "cpu_s without": round(b[0], 4),
        "speed-up": round(b[0] / a[0], 2),
        "speed-up, wall clock": round(b[1] / a[1], 2),
    }


def work(rank: int, file: str, found: Any) -> None:
    """One of two processes."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    for kind in ("equal", "convolutional"):
        step, optimizer = stepping(kind, process_group=dist.group.WORLD)
        cpu, wall = timed(step)
        weights = [p.detach().clone() for p in optimizer.named_params().values()]
        found[kind, rank] = cpu, wall, optimizer.calls.values, optimizer.calls.bytes_sent, weights
    dist.destroy_process_group()


def two_processes() -> dict[str, Any]:
    """What a second process saves; the slower of the two counts."""
    with tempfile.TemporaryDirectory() as folder, mp.Manager() as manager:
        shared = manager.dict()
        mp.start_processes(work, (f"{folder}/meet", shared), nprocs=2, start_method="spawn")
        found = dict(shared)
    rows: dict[str, Any] = {}
    for kind in ("equal", "convolutional"):
        step, optimizer = stepping(kind)
        cpu, wall = timed(step)
        both = [found[kind, rank] for rank in (0, 1)]
        alone = [p.detach() for p in optimizer.named_params().values()]
        rows[kind] = {
            "values per process": [each[2] for each in both],
            "values of one process alone": optimizer.calls.values,
            "cpu_s per process": [round(each[0], 4) for each in both],
            "cpu_s alone": round(cpu, 4),
            "speed-up": round(cpu / max(each[0] for each in both), 2),
            "speed-up, wall clock": round(wall / max(each[1] for each in both), 2),
            "bytes sent per step": both[0][3] // (ROUNDS + 1),
            "equal weights": all(
                torch.equal(a, b) and torch.equal(a, c)
                for a, b, c in zip(alone, both[0][4], both[1][4], strict=True)
            ),
        }
    return rows


def main() -> None:
    """Measure all."""
    torch.set_num_threads(1)
    result = {
        "cosine": cosines(),
        "reuse": {kind: reuse(kind) for kind in ("equal", "convolutional")},
        "two_processes": two_processes(),
        "digits": accuracy(),
    }
    common.store("deepzero", "cpu", result)


if __name__ == "__main__":
    main()
