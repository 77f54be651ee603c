"""Golden traces: where every method, in every precision of state, went before, it goes today.

A trace is a few weights after a few steps. ``pytest tests/test_golden.py --write-golden`` writes
the file anew; its diff is to be reviewed, since it says that some method computes other numbers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from anyorder import Composite, methods

PLACE = Path(__file__).parent / "golden" / "traces.json"
#: What bare parameters need to be told.
OPTIONS: dict[str, dict[str, Any]] = {
    "deepzero": {"density": 0.01, "score_directions": 10},
    "muon": {"roles": "shape", "adjust_lr": "match_rms_adamw"},
    "scale": {"roles": "shape"},
    "mezo": {"lr": 1e-4, "directions": 2},
    "sgd": {"momentum": 0.9},
    "zeroth_order": {"lr": 1e-3, "rule": "adamw", "directions": 2},
    "zo_adam": {"lr": 1e-3},
    "zo_hybrid": {"lr": 1e-3, "blocks": "parameters"},
    "zo_sign": {"lr": 1e-3},
    "sso": {"lr": 0.01},
}
#: Further settings by the name of a trace, for methods that have all of them.
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "bf16": {"state": "bf16"},
    "8bit": {"state": "8bit"},
    "decay": {"weight_decay": 0.1},
    "coupled": {"weight_decay": 0.1, "decoupled_weight_decay": False},
    "clipped": {"clip_norm": 1.0},
    "cautious": {"cautious": True, "weight_decay": 0.1},
}


def trace(name: str, variant: dict[str, Any]) -> list[float]:
    """Some weights after six steps on a function whose gradient is exact."""
    generator = torch.Generator().manual_seed(3)
    shapes = {"matrix": (80, 60), "vector": (7,), "other": (5, 3)}
    params = {n: nn.Parameter(torch.randn(s, generator=generator)) for n, s in shapes.items()}

    def outputs() -> torch.Tensor:
        return torch.cat([p.reshape(-1) for p in params.values()])

    def loss(z: torch.Tensor) -> torch.Tensor:
        return (z**4).sum() / 4 + (z * z).sum()

    optimizer = methods.get(name)(
        params.items(), engine="eager", **{**OPTIONS.get(name, {}), **variant}
    )
    for _ in range(6):
        optimizer.step(Composite(outputs, loss))
    return [float(w) for p in params.values() for w in p.detach().reshape(-1)[:: p.numel() // 5]]


def cases() -> list[str]:
    """Every method in every variant it has."""
    return [
        f"{name}-{variant}"
        for name in methods.names()
        for variant, settings in VARIANTS.items()
        if set(settings) <= set(methods.get(name).hypers)
        and not (name in ("muon", "scale", "adagrad_norm") and variant == "coupled")
    ]


@pytest.mark.parametrize("case", cases())
def test_goes_where_it_went(case: str, request: pytest.FixtureRequest) -> None:
    name, _, variant = case.rpartition("-")
    found = trace(name, VARIANTS[variant])
    known: dict[str, list[float]] = json.loads(PLACE.read_text()) if PLACE.exists() else {}
    if request.config.getoption("--write-golden"):
        known[case] = found
        lines = ",\n".join(f'"{k}": {json.dumps(v)}' for k, v in sorted(known.items()))
        PLACE.write_text("{\n" + lines + "\n}\n")
    # Sums and matrix products differ in the last digit from processor to processor.
    assert found == pytest.approx(known[case], rel=1e-5, abs=1e-7)
