"""skorch: scikit-learn estimators around our methods."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, nll_loss

import anyorder
from anyorder.oracle.closures import ClosureError

pytestmark = pytest.mark.skipif(importlib.util.find_spec("skorch") is None, reason="needs skorch")


def test_the_example(example: Callable[..., dict[str, Any]]) -> None:
    found = example("skorch_net")
    search, second = found["search"], found["second"]
    assert search.best_params_ == {"lr": 0.01} and search.best_score_ > 0.6
    best = search.best_estimator_
    assert best.optimizer_.param_groups[0]["lr"] < 0.01  # the schedule lowered it
    assert best.optimizer_.calls.grads == best.optimizer_.steps > 0
    assert second.optimizer_.calls.products == second.optimizer_.steps > 0
    assert second.history[-1, "train_loss"] < second.history[0, "train_loss"]
    averaged, x, y = found["averaged"], found["x"], found["y"]
    rows = next(iter(averaged.train_split(x, y)[1:])).indices
    logs = torch.tensor(averaged.predict_proba(x[rows])).log()
    loss = nll_loss(logs, torch.tensor(y[rows])).item()
    assert averaged.history[-1, "valid_loss"] == pytest.approx(loss, rel=1e-4)


def net(network: Callable[[], nn.Module], **settings: Any) -> Any:
    from skorch import NeuralNetClassifier

    common: dict[str, Any] = {"criterion": nn.CrossEntropyLoss, "train_split": None, "verbose": 0}
    return NeuralNetClassifier(network(), batch_size=64, **common, **settings)


def test_it_trains_as_the_loop_does(
    digits: tuple[Tensor, Tensor], network: Callable[[], nn.Module], equal: Callable[..., bool]
) -> None:
    x, y = digits
    fitted = net(network, optimizer=anyorder.AdamW, lr=1e-2, max_epochs=2).fit(x.numpy(), y.numpy())
    model = network()
    optimizer = anyorder.AdamW(model.parameters(), lr=1e-2)
    for _ in range(2):
        for a, b in zip(x.split(64), y.split(64), strict=True):
            optimizer.zero_grad()
            cross_entropy(model(a), b).backward()
            optimizer.step()
    assert equal(fitted.module_, model)
    assert fitted.optimizer_.calls.grads == 8


def test_a_run_that_is_saved_goes_on(
    digits: tuple[Tensor, Tensor],
    network: Callable[[], nn.Module],
    equal: Callable[..., bool],
    tmp_path: Path,
) -> None:
    x, y = digits[0].numpy(), digits[1].numpy()
    files = {f"f_{part}": str(tmp_path / part) for part in ("params", "optimizer", "history")}
    whole = net(network, optimizer=anyorder.AdamW, max_epochs=4).fit(x, y)
    begun = net(network, optimizer=anyorder.AdamW, max_epochs=2).fit(x, y)
    begun.save_params(**files)
    again = net(network, optimizer=anyorder.AdamW, max_epochs=2).initialize()
    again.load_params(**files)
    again.partial_fit(x, y)
    assert equal(whole.module_, again.module_)
    assert again.optimizer_.calls.grads == 16


@pytest.mark.parametrize("name", ["mezo", "rank_sgd", "adahessian"])
def test_methods_that_need_more_say_what_to_write(
    digits: tuple[Tensor, Tensor], network: Callable[[], nn.Module], name: str
) -> None:
    fit = net(network, optimizer=anyorder.methods.get(name), max_epochs=1).fit
    with pytest.raises(ClosureError, match="In skorch override train_step_single without"):
        fit(digits[0].numpy(), digits[1].numpy())


def test_composites_go_through_train_step(
    digits: tuple[Tensor, Tensor], network: Callable[[], nn.Module]
) -> None:
    from skorch import NeuralNetClassifier
    from skorch.dataset import unpack_data

    class CompositeNet(NeuralNetClassifier):
        def train_step(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
            self._set_training(True)
            x, y = unpack_data(batch)
            closure = anyorder.Composite(
                lambda: self.infer(x, **fit_params), lambda outputs: self.get_loss(outputs, y)
            )
            loss = self.optimizer_.step(closure)
            return {"loss": loss, "y_pred": self.infer(x, **fit_params)}

    fitted = CompositeNet(
        network(), criterion=nn.CrossEntropyLoss, optimizer=anyorder.SSO, batch_size=64,
        train_split=None, verbose=0, max_epochs=2,
    )  # fmt: skip
    fitted.fit(digits[0].numpy(), digits[1].numpy())
    assert fitted.optimizer_.calls.output_grads == fitted.optimizer_.steps == 8
    assert fitted.history[-1, "train_loss"] < fitted.history[0, "train_loss"]
