"""The star's exact probabilities against enumeration and samples."""

from __future__ import annotations

import pytest
import torch

from anyorder_studies.vinyals2015ordermatters.inputs import OrderError
from anyorder_studies.vinyals2015ordermatters.star import StarModel


def small() -> StarModel:
    return StarModel.draw(2, 3, torch.Generator().manual_seed(0))


def test_probabilities_and_entropy_by_enumeration():
    star = small()
    values = torch.cartesian_prod(*[torch.arange(3)] * 3)
    log_probs = star.log_prob(values)
    assert float(log_probs.exp().sum()) == pytest.approx(1.0)
    assert star.entropy() == pytest.approx(-float((log_probs.exp() * log_probs).sum()))


def test_samples_follow_the_probabilities():
    star = small()
    drawn = star.sample(20_000, torch.Generator().manual_seed(1))
    assert -float(star.log_prob(drawn).mean()) == pytest.approx(star.entropy(), abs=0.03)
    value = torch.tensor([1, 2, 0])
    share = float((drawn == value).all(dim=1).double().mean())
    assert share == pytest.approx(float(star.log_prob(value[None]).exp()), abs=0.01)


def test_tokens_name_variable_and_value():
    star = small()
    assert star.tokens(torch.tensor([[2, 0, 1]])).tolist() == [[2, 3, 7]]


def test_too_small_a_star():
    for leaves, values in ((0, 3), (2, 1)):
        with pytest.raises(OrderError, match="a leaf and two values"):
            StarModel.draw(leaves, values, torch.Generator())
