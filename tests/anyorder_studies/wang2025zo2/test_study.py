from __future__ import annotations

from typing import Any

import pytest

from anyorder_studies.harness import plan
from anyorder_studies.study import Results, judge
from anyorder_studies.verdict import Verdict
from anyorder_studies.wang2025zo2 import study as module
from anyorder_studies.wang2025zo2.study import PAPER_RATIO, ZO2Offloading


def results(*, zo2: float = 5e6, difference: float = 0.0, narrow: float = 90.0) -> Results:
    found: Results = []
    for seed in range(3):
        wobble = 1 + 0.01 * seed
        parts: dict[str, Any] = {
            "equality": {"weight_difference": difference, "loss_difference": 0.0, "reads": 1.0,
                         "writes": 1.0},
            "time": {"seconds_mezo": 2.0, "seconds_zo2": 2.05 * wobble},
            "narrow": {"full": {"before": 40.0, "after": 90.0},
                       "narrow": {"before": 40.0, "after": narrow - 0.1 * seed}},
            "memory": {"weights": 1e8, "mezo": 1.1e8, "zo2": zo2 * wobble},
        }  # fmt: skip
        found += [({"part": part, "seed": seed}, result) for part, result in parts.items()]
    return found


def test_four_units_per_seed() -> None:
    units = plan(ZO2Offloading(), "small")
    assert [u["part"] for u in units[:4]] == ["equality", "time", "narrow", "memory"]
    assert len(units) == 4 * 3
    assert all(u["layers"] == 96 for u in units if u["part"] == "memory")


@pytest.mark.parametrize(
    ("changed", "verdict"),
    [
        ({}, Verdict.REPRODUCED),
        ({"zo2": 2e7}, Verdict.PARTLY),
        ({"zo2": 1.2e8}, Verdict.REFUTED),
        ({"difference": 1e-6}, Verdict.PARTLY),
        ({"narrow": 80.0}, Verdict.PARTLY),
    ],
)
def test_the_verdict_follows_from_the_measurements(changed: Any, verdict: Verdict) -> None:
    study = ZO2Offloading()
    measured = study.measure(results(**changed))
    assert judge(study.claims, measured) is verdict
    assert measured["reads_per_block_and_step"].value == 1.0


def test_the_papers_ratio() -> None:
    assert pytest.approx(0.0514, abs=1e-4) == PAPER_RATIO
    measured = ZO2Offloading().measure(results())
    assert measured["memory_ratio"].value == pytest.approx(0.0505, abs=1e-3)
    assert measured["narrow_gap"].value == pytest.approx(0.1)


def test_units_are_run_by_their_part(monkeypatch: pytest.MonkeyPatch) -> None:
    study = ZO2Offloading()
    monkeypatch.setattr(
        module,
        "footprint",
        lambda method, **given: {"weights": 10, "process": len(method), **given},
    )
    monkeypatch.setattr(module, "fine_tuned", lambda storage, **given: {"after": storage, **given})
    found = study.run({"part": "memory", "seed": 1, "width": 2, "layers": 3})
    assert found == {"weights": 10, "mezo": 4, "zo2": 3}
    found = study.run({"part": "narrow", "seed": 1, "steps": 2, "lr": 0.1})
    assert found["full"] == {"after": None, "seed": 1, "steps": 2, "lr": 0.1}
    assert found["narrow"]["after"] == "float16"
