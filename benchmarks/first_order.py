"""Step time and state of every first-order method, beside the packages people know.

Run:
    pip install pytorch_optimizer torchao bitsandbytes schedulefree heavyball   (all optional)
    python benchmarks/first_order.py [--device cuda]

All entrants work on the same matrices (12.6 million parameters) with the same gradients, in turns.
For elementwise rules the floor is the bytes they must move; the scale is torch's fused AdamW, which
moves 28 bytes per parameter.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable
from importlib import metadata
from typing import Any

import torch
from common import device_from, paired, ratios, store

from anyorder import methods

SHAPES = [(512, 512)] * 24 + [(1024, 1024)] * 6
SCALE = "torch adamw fused"
#: Settings of our methods: name in the results, method, options, bytes moved per parameter (weights
#: and buffers read and written, gradient read; 0 where whole matrices are multiplied).
OURS: list[tuple[str, str, dict[str, Any], float]] = [
    ("adamw", "adamw", {}, 28),
    ("adamw bf16", "adamw", {"state": "bf16"}, 20),
    ("adamw 8bit", "adamw", {"state": "8bit"}, 16.06),
    ("adamw 8bit 2048", "adamw", {"state": "8bit", "state_block": 2048}, 16.01),
    ("lion", "lion", {}, 20),
    ("lion 8bit", "lion", {"state": "8bit"}, 14.03),
    ("lion_k huber", "lion_k", {"kappa": "huber"}, 20),
    ("sgd momentum", "sgd", {"momentum": 0.9}, 20),
    ("exadam", "exadam", {}, 28),
    ("adagrad", "adagrad", {}, 20),
    ("schedule_free_adamw", "schedule_free_adamw", {}, 28),
    ("accelerated", "accelerated", {"form": "nesterov", "L": 1e3, "mu": 1.0}, 20),
    ("scale", "scale", {"roles": "shape"}, 0),
    ("muon", "muon", {"roles": "shape"}, 0),
    ("muon bfloat16", "muon", {"roles": "shape", "precision": "bfloat16"}, 0),
]
PEERS = ("pytorch_optimizer", "torchao", "bitsandbytes", "schedulefree", "heavyball")


def parameters(device: str) -> list[torch.nn.Parameter]:
    """Matrices with gradients."""
    torch.manual_seed(0)
    made = [torch.nn.Parameter(torch.randn(shape, device=device)) for shape in SHAPES]
    for param in made:
        param.grad = torch.randn_like(param)
    return made


def peers(params: list[torch.nn.Parameter], trouble: dict[str, str]) -> dict[str, Any]:
    """What others offer for the same methods; ``trouble`` says why one is missing."""
    found: dict[str, Any] = {
        SCALE: torch.optim.AdamW(params, fused=True),
        "torch adamw foreach": torch.optim.AdamW(params, foreach=True),
        "torch adagrad foreach": torch.optim.Adagrad(params, foreach=True),
        "torch muon": torch.optim.Muon(params),
    }
    wanted: dict[str, Callable[[], Any]] = {}
    modules = {name: _module(name, trouble) for name in PEERS}
    if bnb := modules["bitsandbytes"]:
        wanted |= {
            "bitsandbytes adamw 8bit": lambda: bnb.optim.AdamW8bit(params, min_8bit_size=4096),
            "bitsandbytes lion 8bit": lambda: bnb.optim.Lion8bit(params, min_8bit_size=4096),
        }
    if ao := modules["torchao"]:
        wanted["torchao adamw 8bit"] = lambda: ao.optim.AdamW8bit(params)
    if po := modules["pytorch_optimizer"]:
        for name in ("AdamW", "Lion", "EXAdam", "ScheduleFreeAdamW"):
            wanted[f"pytorch_optimizer {name}"] = lambda name=name: getattr(po, name)(params)
    if sf := modules["schedulefree"]:
        wanted["schedulefree adamw"] = lambda: _training(sf.AdamWScheduleFree(params))
    if hb := modules["heavyball"]:
        for name in ("AdamW", "SFAdamW", "Muon"):
            wanted[f"heavyball {name}"] = lambda name=name: _Kept(getattr(hb, name)(params))
    for name, make in wanted.items():
        try:
            found[name] = make()
            found[name].step()
        except Exception as error:
            trouble[name] = " ".join(str(error).split())[:200]
            found.pop(name, None)
    return found


def _module(name: str, trouble: dict[str, str]) -> Any:
    try:
        module = importlib.import_module(name)
        if name == "torchao":
            importlib.import_module("torchao.optim")
        return module
    except Exception as error:
        trouble[name] = " ".join(str(error).split())[:200]
        return None


class _Kept:
    """HeavyBall's optimizers take the gradients away with each step; they are put back before."""

    def __init__(self, optimizer: Any) -> None:
        self.optimizer, self.state = optimizer, optimizer.state
        self.params = [p for group in optimizer.param_groups for p in group["params"]]
        self.grads = [p.grad for p in self.params]

    def step(self) -> None:
        """One step."""
        for param, grad in zip(self.params, self.grads, strict=True):
            param.grad = grad
        self.optimizer.step()
        for param, grad in zip(self.params, self.grads, strict=True):
            param.grad = grad


def _training(optimizer: Any) -> Any:
    optimizer.train()
    return optimizer


def state_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of the storage behind all tensors of the state, each counted once."""
    storages: dict[int, int] = {}
    for entries in optimizer.state.values():
        for value in entries.values() if isinstance(entries, dict) else ():
            for part in _parts(value):
                kept = part.untyped_storage()
                storages[kept.data_ptr()] = kept.nbytes()
    return sum(storages.values())


def _parts(value: Any) -> list[torch.Tensor]:
    """The plain tensors of a value; subclasses of tensors hold theirs inside."""
    if hasattr(value, "__tensor_flatten__"):
        return [getattr(value, name) for name in value.__tensor_flatten__()[0]]
    return [value] if isinstance(value, torch.Tensor) else []


def main() -> None:
    """Measure and store."""
    warnings.simplefilter("ignore")
    device = device_from(sys.argv)
    params = parameters(device)
    trouble: dict[str, str] = {}
    entrants = peers(params, trouble)
    for label, name, options, _ in OURS:
        method: Any = methods.get(name)
        made = method(params, engine="compiled", nonfinite="ignore", **options)
        made.step()
        entrants[label] = made
    times = paired({name: o.step for name, o in entrants.items()}, rounds=15, device=device)
    over = ratios(times, SCALE)
    floors = {label: moved / 28 for label, _, _, moved in OURS if moved}
    full = state_bytes(entrants["adamw"])
    store(
        "first_order",
        device,
        {
            "parameters": sum(p.numel() for p in params),
            "peers": {name: metadata.version(name) for name in PEERS if name not in trouble},
            "missing": trouble,
            "times": times,
            "over_torch_adamw_fused": over,
            "per_byte_over_torch_adamw_fused": {
                name: round(over[name] / floor, 3) for name, floor in floors.items()
            },
            "state_bytes": {name: state_bytes(o) for name, o in entrants.items()},
            "state_of_adamw_fp32": {
                name: round(state_bytes(entrants[name]) / full, 4)
                for name in ("adamw bf16", "adamw 8bit", "adamw 8bit 2048")
            },
        },
    )


if __name__ == "__main__":
    main()
