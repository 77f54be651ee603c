from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.metrics import log_loss

from anyorder import RankSGD  # pyright: ignore[reportAttributeAccessIssue]
from anyorder_studies.tang2023zoranksgd.boosting import RANGES, Boosting, Point, options_at


def test_the_losses_are_those_of_scikit_learn() -> None:
    problem, model = Boosting(split=3), Point()
    with torch.no_grad():
        model.x.copy_(torch.linspace(-2, 2, 10))
    (fitted, known), validation, test = problem._parts
    options = options_at(model.x.detach())
    peer = GradientBoostingClassifier(random_state=0, **options).fit(fitted, known)
    for (features, labels), judged in ((validation, problem.evaluate), (test, problem.test)):
        expected = log_loss(labels, peer.predict_proba(features))
        assert judged(model)["loss"] == pytest.approx(expected, rel=1e-9)
    assert problem.loss(model, None).item() == problem.evaluate(model)["loss"]


def test_patients_are_split_without_overlap() -> None:
    parts = Boosting(split=1)._parts
    assert [len(labels) for _, labels in parts] == [190, 190, 189]
    rows = np.concatenate([features for features, _ in parts])
    everybody = load_breast_cancer().data
    assert np.array_equal(np.sort(rows, axis=0), np.sort(everybody, axis=0))
    assert not np.array_equal(Boosting(split=2)._parts[0][0], parts[0][0])


@pytest.mark.parametrize(("share", "at"), [("low", -1e3), ("high", 1e3)])
def test_options_stay_within_their_ranges(share: str, at: float) -> None:
    found = options_at(torch.full((10,), at, dtype=torch.float64))
    assert found == {name: pytest.approx(getattr(ends, share)) for name, ends in RANGES.items()}
    GradientBoostingClassifier(**found)._validate_params()
    middle = options_at(torch.zeros(10, dtype=torch.float64))
    assert middle["learning_rate"] == pytest.approx(0.1) and middle["max_depth"] == 2


def test_a_ranking_sees_points_that_differ() -> None:
    """The loss is of the shifted point, not of the stored one."""
    problem, model = Boosting(), Point()
    seen: set[float] = set()

    def closure() -> torch.Tensor:
        loss = problem.loss(model, None)
        seen.add(loss.item())
        return loss

    RankSGD(model, points=4, line_search=0, mu=1.0, engine="eager").step(closure)
    assert len(seen) == 4
