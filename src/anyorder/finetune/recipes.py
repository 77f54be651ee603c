"""Settings with which methods fine-tune, by what is tuned."""

from __future__ import annotations

from typing import Any

#: Settings by method and by what is tuned, from benchmarks/finetune.py. LoRA: a third of a rate
#: that learned from class means and diverged from a random head.
RECIPES: dict[str, dict[str, dict[str, Any]]] = {
    "mezo": {
        "full": {"lr": 3e-4, "eps": 1e-3},
        "last": {"lr": 3e-4, "eps": 1e-3},
        "head": {"lr": 3e-3, "eps": 1e-3},
        "lora": {"lr": 3e-3, "eps": 1e-3},
    },
    "adamw": {"full": {"lr": 1e-4}, "lora": {"lr": 1e-3}},
}


def recipe(method: str, tune: str) -> dict[str, Any]:
    """Return the settings of a method; empty where its own defaults are used."""
    return RECIPES.get(method, {}).get(tune, {})
