"""What there is, as plain data."""

from __future__ import annotations

import json
from pathlib import Path

from anyorder import methods
from anyorder.command import catalogue
from anyorder.problems import names


def test_all_methods_are_listed() -> None:
    rows = catalogue.methods()
    assert [row["name"] for row in rows] == methods.names()
    assert all(row["summary"] and row["needs"] for row in rows)
    assert json.loads(json.dumps(rows)) == rows


def test_a_method_in_full() -> None:
    found = catalogue.method("adamw")
    assert found["class"] == "anyorder.methods.adamw.AdamW"
    assert "Kingma and Ba" in found["doc"]
    assert Path(found["source"]).name == "adamw.py"
    options = {row["name"]: row for row in found["options"]}
    assert options["lr"]["search"] == "log 1e-05..0.1"
    assert options["lr"]["range"] == ">= 0"
    assert options["eps"]["search"] == ""
    assert options["betas"]["default"] == (0.9, 0.999)


def test_a_foreign_class_in_full() -> None:
    found = catalogue.method("torch.optim:LBFGS")
    options = {row["name"]: row for row in found["options"]}
    assert options["lr"]["search"] == "log 0.01..100 (by name)"
    assert options["history_size"]["default"] == 100
    assert found["needs"] == ["grad"]


def test_all_problems_are_listed() -> None:
    rows = catalogue.problems()
    assert [row["name"] for row in rows] == names()
    digits = next(row for row in rows if row["name"] == "digits")
    assert (digits["metric"], digits["goal"], digits["options"]) == (
        "accuracy",
        "max",
        {"batch_size": 64},
    )


def test_summaries() -> None:
    class Named:
        """Name: what it does."""

    class Bare:
        pass

    assert catalogue.summary(Named) == "What it does"
    assert isinstance(catalogue.summary(Bare), str)
