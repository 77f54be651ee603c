"""The summary of a race."""

from __future__ import annotations

from anyorder.compare.report.race import Race, Stage, Tried, text


def test_text() -> None:
    best = Tried("adamw", {"lr": 0.00316}, "done", None, 0.95, 0.1, 600.0, 1.0, 2**20)
    other = Tried("sgd", {}, "diverged", "inf", None, None, 30.0, 1.0, 2**20)
    found = Race(
        schema=1, created_by="0", command="c", problem="digits", options={}, metric="accuracy",
        goal="max", budget="400grads", seed=0, stages=[Stage("60forwards", [best, other])],
        dropped={"muon": "too large"}, length="600forwards", winner=best,
        test={"accuracy": 0.94, "loss": None}, spent=1200.0, total=1200.0, unit="forwards",
    )  # fmt: skip
    lines = text(found).splitlines()
    assert lines[0].startswith("digits: adamw lr=0.00316, trained for 600forwards")
    assert "accuracy 0.95" in lines[1]
    assert "accuracy 0.94, loss —" in lines[2]
    assert "1,200 forwards" in lines[3]
    assert "2 candidates x 60forwards; best: adamw lr=0.00316" in lines[4]
    assert lines[5] == "dropped:    muon: too large"
    assert other.name == "sgd"
