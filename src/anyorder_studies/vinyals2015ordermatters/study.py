"""The effect of the order of a set's elements on sequence models, and the search for an order."""

# matplotlib's types have untyped keyword arguments.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from anyorder_studies.study import (
    Claim,
    Measurement,
    Result,
    Results,
    Study,
    Unit,
    mean_interval,
)
from anyorder_studies.vinyals2015ordermatters.inputs import PointerModel
from anyorder_studies.vinyals2015ordermatters.outputs import (
    ChainModel,
    Mode,
    order_search_loss,
    sample_order,
    set_log_prob,
)
from anyorder_studies.vinyals2015ordermatters.star import StarModel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEAVES, VALUES = 8, 10
LENGTH = 5
STAR_ARMS = (
    ("head first", "few"),
    ("head last", "few"),
    ("head first", "many"),
    ("head last", "many"),
    ("random", "many"),
    ("searched", "many"),
)
SORT_ARMS: dict[str, dict[str, Any]] = {
    "LSTM in given order": {"encoder": "sequence", "steps": 0},
    "set, 0 steps": {"steps": 0},
    "set, 1 step": {"steps": 1},
    "set, 5 steps": {"steps": 5},
}
TABLE = (
    "arXiv:1511.06391, table 1, five numbers with glimpse (as quoted by a public re-implementation)"
)
NO_SIZE = "no size could be checked, so a tenth of a nat is asked for here"


def _claim(quantity: str, expected: float, unit: str, source: str, text: str) -> Claim:
    return Claim(
        quantity=quantity,
        direction="higher",
        expected=expected,
        threshold=0.0,
        tolerance=0.0,
        unit=unit,
        source=source,
        text=text,
    )


class OrderMattersStudy(Study):
    """The chain rule applies to every order, but a trained model depends on the order.

    *Outputs.* Sets of nine tokens are drawn from star-shaped models: a head with ten values, and
    eight leaves that depend on it. An LSTM learns to emit them with the head first or last, in
    uniformly random orders, or in orders that it samples itself (after a quarter of the training
    with random ones). The test loss is in nats per set above the exact entropy, at the weights that
    were best on a validation set. With one fixed order it is the loss of that order; with random or
    searched orders it is that of the set in any order, estimated from 16 sampled orders, so models
    of one order and of many are comparable. *Few* means 1,000 training sets, *many* 10,000.

    *Inputs.* A pointer network with one glimpse learns to sort five random numbers. Its initial
    state is either a summary by attention that is independent of the order of the numbers (read and
    process, with 0, 1 or 5 steps), or the last state of an LSTM that reads them in input order.
    Accuracy is the percentage of lists sorted without any mistake.
    """

    key: ClassVar[str] = "vinyals2015ordermatters"
    paper: ClassVar[int] = 100
    title: ClassVar[str] = "Order matters: sequence models for sets"
    claims: ClassVar[tuple[Claim, ...]] = (
        replace(
            _claim(
                "order_gap_few",
                0.1,
                "nats per set",
                "arXiv:1511.06391, section 5.1.4 (known from a public re-implementation; "
                f"{NO_SIZE})",
                "Emitting the head of a star first is learned better from few data than emitting "
                "it last.",
            ),
            central=True,
        ),
        _claim(
            "process_gain",
            8.0,
            "percentage points",
            f"{TABLE}: 92 against 84",
            "One process step raises the accuracy of sorting over none.",
        ),
        _claim(
            "set_gain",
            2.0,
            "percentage points",
            f"{TABLE}: 92 against 90",
            "The set encoder with one step sorts better than an LSTM that reads in given order.",
        ),
        _claim(
            "five_process_steps_gain",
            8.0,
            "percentage points",
            f"{TABLE}: 92 against 84 with one step; more steps are said to gain more",
            "Five process steps raise it at least as much.",
        ),
        _claim(
            "search_gain",
            0.1,
            "nats per set",
            "arXiv:1511.06391, section 5.2 (abstract checked: the loss searches over orders "
            f"during training; {NO_SIZE})",
            "Searching for the order during training beats training on random orders.",
        ),
    )
    headline: ClassVar[str] = (
        "the order of input and output data matters in learning a model of them (abstract of "
        "arXiv:1511.06391, first result; no figure)"
    )
    scales: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "smoke": {
            "seeds": 2,
            "star_steps": 8,
            "sort_steps": 8,
            "few": 100,
            "many": 200,
            "test": 100,
        },
        "small": {
            "seeds": 5,
            "star_steps": 400,
            "sort_steps": 400,
            "few": 1000,
            "many": 10_000,
            "test": 2000,
        },
        "full": {
            "seeds": 20,
            "star_steps": 4000,
            "sort_steps": 10_000,
            "few": 1000,
            "many": 10_000,
            "test": 10_000,
            "need": "about ten hours of one core; the paper's parsing and language models need "
            "their licensed corpora",
        },
    }

    def runs(self, scale: str) -> Iterable[Unit]:
        """Return one unit per seed, task and arm."""
        settings = self.settings(scale)
        for seed in range(settings["seeds"]):
            for arm, data in STAR_ARMS:
                yield {
                    "task": "star",
                    "seed": seed,
                    "arm": arm,
                    "data": data,
                    "size": settings[data],
                    "steps": settings["star_steps"],
                    "test": settings["test"],
                }
            for arm in SORT_ARMS:
                yield {
                    "task": "sort",
                    "seed": seed,
                    "arm": arm,
                    "steps": settings["sort_steps"],
                    "test": settings["test"],
                }

    def run(self, unit: Unit) -> Result:
        """Train one model and test it."""
        seed, arm, steps = int(unit["seed"]), str(unit["arm"]), int(unit["steps"])
        tests = int(unit["test"])
        if unit["task"] == "sort":
            return _sort(seed, SORT_ARMS[arm], steps, tests)
        return _star(seed, arm, int(unit["size"]), steps, tests)

    def measure(self, results: Results) -> dict[str, Measurement]:
        """Differences paired by seed; positive if they support the paper."""

        def losses(arm: str, data: str) -> list[float]:
            return _column(results, "excess", arm, data)

        def difference(worse: list[float], better: list[float]) -> Measurement:
            return mean_interval([a - b for a, b in zip(worse, better, strict=True)])

        sort = {arm: _column(results, "accuracy", arm) for arm in SORT_ARMS}
        none, one, five = (sort[f"set, {n}"] for n in ("0 steps", "1 step", "5 steps"))
        return {
            "order_gap_few": difference(losses("head last", "few"), losses("head first", "few")),
            "process_gain": difference(one, none),
            "set_gain": difference(one, sort["LSTM in given order"]),
            "search_gain": difference(losses("random", "many"), losses("searched", "many")),
            "order_gap_many": difference(losses("head last", "many"), losses("head first", "many")),
            "fixed_head_first_over_searched": difference(
                losses("searched", "many"), losses("head first", "many")
            ),
            "searched_head_first_share": mean_interval(
                _column(results, "head_first", "searched", "many")
            ),
            "five_process_steps_gain": difference(five, none),
            "accuracy_one_step": mean_interval(one),
        }

    def figure(self, results: Results, measurements: dict[str, Measurement]) -> Figure:
        """Plot loss by output order and accuracy by encoder; one dot per seed, bars for means."""
        from matplotlib.figure import Figure

        figure = Figure()
        left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": (1.6, 1)})
        for place, (arm, data) in enumerate(STAR_ARMS):
            values = _column(results, "excess", arm, data)
            colour = {"head first": "C0", "head last": "C6", "random": "C1", "searched": "C2"}[arm]
            left.scatter([place] * len(values), values, s=12, color=colour, alpha=0.5)
            left.scatter(place, sum(values) / len(values), s=220, marker="_", color=colour)
        names = [arm.replace(" ", "\n") for arm, _ in STAR_ARMS]
        left.set_xticks(range(len(STAR_ARMS)), names)
        left.axvline(1.5, color="#8a8f98", linewidth=0.8)
        top = 1.1 * left.get_ylim()[1]
        for place, text in ((0.5, "few data"), (3.5, "many data")):
            left.annotate(text, (place, top), ha="center", va="top", fontsize=8)
        left.set_ylim(0.0, top)
        left.set_ylabel("loss above the entropy, nats per set")
        left.set_title("order of outputs: a star's variables")
        for place, arm in enumerate(SORT_ARMS):
            values = _column(results, "accuracy", arm)
            colour = "C6" if place == 0 else "C0"
            right.scatter([place] * len(values), values, s=12, color=colour, alpha=0.5)
            right.scatter(place, sum(values) / len(values), s=220, marker="_", color=colour)
        right.set_xticks(
            range(len(SORT_ARMS)), ["LSTM", "set\n0 steps", "set\n1 step", "set\n5 steps"]
        )
        right.set_ylim(0.0, 100.0)
        right.set_ylabel("lists sorted exactly, %")
        right.set_title("order of inputs: sorting")
        for axes in (left, right):
            axes.grid(axis="x", visible=False)
            axes.tick_params(axis="x", length=0, labelsize=7)
            axes.margins(x=0.1)
        return figure


def _column(results: Results, name: str, arm: str, data: str | None = None) -> list[float]:
    return [
        float(result[name])
        for unit, result in results
        if unit["arm"] == arm and (data is None or unit["data"] == data)
    ]


def _seeded(make: type[nn.Module], seed: int, *args: Any, **settings: Any) -> Any:
    """Return a module whose initial weights depend on the seed only."""
    with torch.random.fork_rng(devices=[]):
        torch.random.manual_seed(seed)
        return make(*args, **settings)


def _star(seed: int, arm: str, size: int, steps: int, tests: int) -> Result:
    generator = torch.Generator().manual_seed(100_000 + seed)
    star = StarModel.draw(LEAVES, VALUES, generator)
    valid, test = (star.tokens(star.sample(n, generator)) for n in (1000, tests))
    train = star.tokens(star.sample(size, generator))
    if arm == "head last":
        valid, test, train = (torch.roll(sets, -1, dims=1) for sets in (valid, test, train))
    fixed = arm in ("head first", "head last")
    model: ChainModel = _seeded(ChainModel, seed, (1 + LEAVES) * VALUES, width=64)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3, fused=True)

    @torch.no_grad()
    def loss(sets: Tensor, samples: int) -> float:
        if fixed:
            return float(order_search_loss(model, sets, "given"))
        return -float(set_log_prob(model, sets, generator, samples=samples).mean())

    best, weights = float("inf"), {}
    for count in range(steps):
        mode: Mode = "given" if fixed else "uniform"
        if arm == "searched" and count >= steps // 4:
            mode = "sample"
        rows = torch.randint(size, (128,), generator=generator)
        optimizer.zero_grad()
        order_search_loss(model, train[rows], mode, generator).backward()
        optimizer.step()
        if (count + 1) % max(1, steps // 20) == 0 and (now := loss(valid, 1)) < best:
            best = now
            weights = {name: value.clone() for name, value in model.state_dict().items()}
    model.load_state_dict(weights)
    first = sample_order(model, test, greedy=True)[0][:, 0]
    head = 0 if arm != "head last" else LEAVES
    return {
        "excess": loss(test, 16) - star.entropy(),
        "head_first": float((first == head).double().mean()),
    }


def _sort(seed: int, settings: Mapping[str, Any], steps: int, tests: int) -> Result:
    generator = torch.Generator().manual_seed(100_500 + seed)
    model: PointerModel = _seeded(PointerModel, seed, 1, width=64, glimpses=1, **settings)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, fused=True)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        numbers = torch.rand(128, LENGTH, 1, generator=generator)
        optimizer.zero_grad()
        loss = -model.log_prob(numbers, numbers[..., 0].argsort(dim=1)).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        optimizer.step()
        fall.step()
    numbers = torch.rand(tests, LENGTH, 1, generator=generator)
    right = model.decode(numbers, LENGTH) == numbers[..., 0].argsort(dim=1)
    return {"accuracy": 100.0 * float(right.all(dim=1).double().mean())}
