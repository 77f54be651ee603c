"""Lightning: every method in it, automatic or manual, or the words that say what to write."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

import anyorder
from anyorder import methods
from anyorder.integrations.lightning import AnswerMixin
from anyorder.optimizer import Optimizer
from anyorder.oracle.closures import ClosureError

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("lightning") is None, reason="needs lightning"),
    # Its own use of PyTorch, and advice about machines with more cores and larger data.
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:.*smaller than the logging interval"),
]

NAMES = methods.names()
GRADIENTS = [n for n in NAMES if methods.get(n).needs == {"grad"}]
VALUES = [n for n in NAMES if methods.get(n).needs <= {"value", "rank"}]
COMPOSITES = [n for n in NAMES if "output_grad" in methods.get(n).needs]
OTHERS = [n for n in NAMES if n not in GRADIENTS]


@pytest.fixture
def module(digits: tuple[Tensor, Tensor]) -> Callable[..., Any]:
    """Makes a module by the name of a method; ``how`` says who takes its steps."""
    import lightning.pytorch as lightning

    class Module(lightning.LightningModule):
        def __init__(self, name: str, how: str, **options: Any) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.layers = nn.Sequential(
                nn.Linear(64, 16), nn.Tanh(), nn.Dropout(0.1), nn.Linear(16, 10)
            )
            self.method, self.how, self.options = name, how, options
            self.automatic_optimization = how == "automatic"
            self.losses: list[float] = []

        def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor | None:
            x, y = batch
            if self.automatic_optimization:
                return cross_entropy(self.layers(x), y)
            closure = anyorder.Composite(lambda: self.layers(x), lambda z: cross_entropy(z, y))
            apart = self.method in COMPOSITES
            self.optimizers().step(closure if apart else lambda: closure())
            return None

        def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> None:
            x, y = batch
            self.losses.append(cross_entropy(self.layers(x), y).item())

        def configure_optimizers(self) -> Any:
            optimizer = methods.get(self.method)(self.layers, **self.options)
            schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
            return {"optimizer": optimizer, "lr_scheduler": schedule}

    class WithoutBackward(Module):
        def backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
            pass

    def make(
        name: str, how: str = "automatic", *mixins: type, backward: bool = True, **options: Any
    ) -> Any:
        kind = type("Made", (*mixins, Module if backward else WithoutBackward), {})
        return kind(name, how, **options)

    return make


@pytest.fixture
def fit(digits: tuple[Tensor, Tensor], tmp_path: Path) -> Callable[..., Any]:
    """Trains a module and returns its trainer."""
    import lightning.pytorch as lightning

    def run(module: Any, path: str | None = None, *, saving: bool = False, **settings: Any) -> Any:
        trainer = lightning.Trainer(
            default_root_dir=tmp_path, accelerator="cpu", logger=False, enable_checkpointing=saving,
            enable_progress_bar=False, enable_model_summary=False,
            **({"max_epochs": 1, "num_sanity_val_steps": 0} | settings),
        )  # fmt: skip
        data = TensorDataset(*digits)
        trainer.fit(module, DataLoader(data, 64), DataLoader(data, 256), ckpt_path=path)
        return trainer

    return run


def inner(module: Any) -> Optimizer:
    """The optimizer of this package that a module trained with."""
    return module.optimizers(use_pl_optimizer=False)


def weights(module: Any) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# Every method ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GRADIENTS)
def test_methods_that_take_gradients_run(
    module: Callable[..., Any], fit: Callable[..., Any], name: str
) -> None:
    made = module(name)
    before = weights(made)
    trainer = fit(made)
    assert not same(before, weights(made))
    assert inner(made).calls.grads == inner(made).steps == trainer.global_step == 4


@pytest.mark.parametrize("name", OTHERS)
def test_the_others_say_what_to_write(
    module: Callable[..., Any], fit: Callable[..., Any], name: str
) -> None:
    made = module(name)
    before = weights(made)
    words = "In Lightning set self.automatic_optimization = False and write in training_step"
    with pytest.raises(ClosureError, match=words):
        fit(made)
    assert same(before, weights(made))


@pytest.mark.parametrize("name", VALUES)
def test_values_and_rankings_need_no_backward(
    module: Callable[..., Any], fit: Callable[..., Any], name: str
) -> None:
    made, manual = module(name, backward=False), module(name, "manual")
    torch.manual_seed(1)
    trainer = fit(made)
    torch.manual_seed(1)
    fit(manual)
    assert same(weights(made), weights(manual))
    assert inner(made).calls.grads == 0 and trainer.global_step == 4


@pytest.mark.parametrize("name", NAMES)
def test_manual_optimisation_runs_every_method(
    module: Callable[..., Any], fit: Callable[..., Any], name: str
) -> None:
    made = module(name, "manual")
    before = weights(made)
    trainer = fit(made)
    assert not same(before, weights(made))
    assert inner(made).steps == trainer.global_step == 4
    assert inner(made).calls.forwards() > 0


# What it trains ---------------------------------------------------------------------------------


@pytest.mark.parametrize("clip", [None, 0.5])
@pytest.mark.parametrize("parts", [1, 2])
def test_it_trains_as_the_loop_does(
    module: Callable[..., Any],
    fit: Callable[..., Any],
    digits: tuple[Tensor, Tensor],
    parts: int,
    clip: float | None,
) -> None:
    made = module("adamw")
    torch.manual_seed(1)
    fit(made, max_epochs=2, accumulate_grad_batches=parts, gradient_clip_val=clip)
    other = module("adamw")
    layers = other.layers
    optimizer = anyorder.AdamW(layers)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
    torch.manual_seed(1)
    batches = list(zip(digits[0].split(64), digits[1].split(64), strict=True))
    for _ in range(2):
        layers.train()
        torch.empty((), dtype=torch.int64).random_()  # a loader draws one seed for each pass
        for index, (x, y) in enumerate(batches):
            (cross_entropy(layers(x), y) / parts).backward()
            if (index + 1) % parts == 0:
                if clip is not None:
                    torch.nn.utils.clip_grad_norm_(layers.parameters(), clip)
                optimizer.step()
                optimizer.zero_grad()
        torch.empty((), dtype=torch.int64).random_()  # the loader for validation, too
        schedule.step()
    assert same(weights(made), weights(other))
    assert inner(made).param_groups[0]["lr"] == optimizer.param_groups[0]["lr"]
    assert inner(made).calls.grads == 8 // parts


def test_manual_closures_train_as_automatic_backward_does(
    module: Callable[..., Any], fit: Callable[..., Any]
) -> None:
    found: list[dict[str, Tensor]] = []
    for how in ("automatic", "manual"):
        made = module("adamw", how)
        torch.manual_seed(1)
        fit(made)
        found.append(weights(made))
    assert same(*found)


@pytest.mark.parametrize("name", ["adamw", "adahessian"])
def test_bfloat16(module: Callable[..., Any], fit: Callable[..., Any], name: str) -> None:
    made = module(name, "automatic" if name == "adamw" else "manual")
    fit(made, precision="bf16-mixed")
    assert inner(made).calls.grads == inner(made).steps == 4


def test_float16_scales_the_loss(module: Callable[..., Any], fit: Callable[..., Any]) -> None:
    from lightning.pytorch.plugins import MixedPrecision

    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**4)
    found: list[dict[str, Tensor]] = []
    for scale in (None, scaler):
        made = module("sgd")
        torch.manual_seed(1)
        plugin = MixedPrecision("bf16-mixed" if scale is None else "16-mixed", "cpu", scale)
        fit(made, plugins=[plugin])
        found.append(weights(made))
    for key, value in found[0].items():
        torch.testing.assert_close(found[1][key], value, rtol=1e-2, atol=1e-4)


# Checkpoints, and the point to evaluate ---------------------------------------------------------


@pytest.mark.parametrize("name", ["adamw", "muon", "mezo"])
def test_a_resumed_run_equals_an_uninterrupted_one(
    module: Callable[..., Any], fit: Callable[..., Any], tmp_path: Path, name: str
) -> None:
    def make() -> Any:
        made = module(name, "manual" if name == "mezo" else "automatic")
        made.layers[2].p = 0.0  # Lightning does not keep the state of random numbers
        return made

    whole, begun, again = make(), make(), make()
    fit(whole, max_epochs=2)
    fit(begun).save_checkpoint(tmp_path / "half.ckpt")
    fit(again, str(tmp_path / "half.ckpt"), max_epochs=2)
    assert same(weights(whole), weights(again))
    ledgers = [inner(made).calls.to_dict() | {"seconds": 0} for made in (whole, again)]
    assert ledgers[0] == ledgers[1]
    assert inner(whole).param_groups[0]["lr"] == inner(again).param_groups[0]["lr"]


def test_an_average_is_validated_saved_and_left_in_the_module(
    module: Callable[..., Any], fit: Callable[..., Any], digits: tuple[Tensor, Tensor]
) -> None:
    made = module("schedule_free_adamw", "automatic", AnswerMixin, lr=0.05)
    trainer = fit(made, max_epochs=2, saving=True)
    left = weights(made)
    saved = torch.load(trainer.checkpoint_callback.best_model_path, weights_only=True)
    assert same(saved["state_dict"], left)
    loss = cross_entropy(made.eval().layers(digits[0]), digits[1]).item()
    assert made.losses[-1] == pytest.approx(loss, rel=1e-6)
    inner(made).train()
    assert not same(weights(made), left)  # the training point is another one


@pytest.mark.parametrize("validated", [False, True])
def test_an_average_resumes(
    module: Callable[..., Any], fit: Callable[..., Any], tmp_path: Path, validated: bool
) -> None:
    from lightning.pytorch.callbacks import ModelCheckpoint

    def make() -> Any:
        made = module("schedule_free_adamw", "automatic", AnswerMixin, lr=0.05)
        made.layers[2].p = 0.0
        return made

    whole, again = make(), make()

    def settings() -> dict[str, Any]:
        often = {"every_n_train_steps": 2, "save_top_k": -1, "save_on_train_epoch_end": False}
        saver = ModelCheckpoint(tmp_path, "{step}", **often)
        every = 1 if validated else None
        return {"max_epochs": 2, "callbacks": [saver], "check_val_every_n_epoch": every,
                "val_check_interval": None if validated else 100}  # fmt: skip

    fit(whole, saving=True, **settings())
    saved = torch.load(tmp_path / "step=8.ckpt", weights_only=True)["state_dict"]
    assert same(saved, weights(whole))
    fit(again, str(tmp_path / "step=4.ckpt"), saving=True, **settings())
    for key, value in weights(whole).items():  # the way back from a saved average rounds
        torch.testing.assert_close(weights(again)[key], value)
    assert inner(again).steps == 8


def test_the_example(
    example: Callable[..., dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    example("lightning_module")
    lines = [line.rsplit(" ", 1) for line in capsys.readouterr().out.splitlines()]
    losses = {name: float(loss) for name, loss in lines if name in NAMES}
    assert set(losses) == {"muon", "schedule_free_adamw", "mezo", "adahessian", "sso"}
    assert all(loss < 2.35 for loss in losses.values())
    assert losses["adahessian"] < 1.5 and losses["sso"] < 1.5
