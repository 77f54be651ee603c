"""Search spaces and the configurations drawn from them."""

from __future__ import annotations

import math
from typing import Any, get_args

import pytest
import torch

from anyorder import methods
from anyorder.compare.plan.entrants import resolve
from anyorder.compare.plan.seeds import stream
from anyorder.compare.plan.space import (
    DECADES,
    Dimension,
    Past,
    Sampler,
    SpaceError,
    at_edge,
    clamped,
    configuration,
    declared,
    distribution,
    explored,
    foreign,
    is_edge_trial,
    open_edge,
    user_space,
)
from anyorder.hyper import HyperError, hyper

SPACE = (
    Dimension("lr", "log", 1e-3, 1e-5, 1e-1),
    Dimension("decay", "log", 0.0, 1e-3, 1.0),
    Dimension("momentum", "linear", 0.0, 0.0, 0.95),
    Dimension("count", "linear", 3, 1, 9, whole=True),
    Dimension("kind", "choice", "b", choices=("a", "b", "c")),
)
LR = (Dimension("lr", "log", 1e-3, 1e-5, 1e-1),)
#: So many trials that none that is drawn here is an edge trial.
MANY = 1000


def draw(index: int, sampler: str = "qmc", space: Any = SPACE, **more: Any) -> dict[str, Any]:
    return configuration(space, index, sampler=sampler, **{"trials": MANY, **more})  # type: ignore[arg-type]


def past(count: int) -> Past:
    values = [1.0, math.inf, 0.5, 0.25, 2.0, 0.1]
    found: list[Any] = []
    for index in range(count):
        found.append((draw(index, "tpe", past=found), (values[index], 0.0)))
    return found


# --- Which space -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", methods.names())
def test_all_logarithmic_ranges_are_equally_wide(name: str) -> None:
    """They contain the default."""
    hypers = methods.get(name).hypers
    for each in declared(hypers):
        if each.kind != "log":
            continue
        low, high = each.ends
        assert math.log10(high / low) == pytest.approx(DECADES)
        assert (hypers[each.name].low, hypers[each.name].high) == pytest.approx((low, high))
        if each.default > 0:
            assert low <= each.default <= high


def test_the_same_class_has_the_same_space_and_the_same_trials() -> None:
    own, other = resolve("adamw"), resolve("torch.optim:AdamW")
    assert [each.source for each in own.space] == ["declared", "declared"]
    assert [each.source for each in other.space] == ["as adamw", "as adamw"]
    assert [each.ends for each in own.space] == [each.ends for each in other.space]
    for index in range(6):
        assert draw(index, space=own.space) == draw(index, space=other.space)


def test_a_foreign_range_follows_its_own_default() -> None:
    (lr, momentum, decay) = resolve("torch.optim:Muon").space
    assert (lr.name, lr.ends, lr.source) == ("lr", (1e-5, 0.1), "as muon")
    assert momentum.ends == resolve("muon").space[1].ends
    assert decay.ends == (1e-3, 10.0)  # its default is 0.1


def test_a_class_with_the_same_options_has_the_same_space() -> None:
    options = {name: each.default for name, each in methods.get("lion").hypers.items()}
    own = {"Lion": ("lion", methods.get("lion").hypers)}
    found = foreign(type("Tiger", (), {}), options, (), own)
    assert [each.source for each in found] == ["as lion"] * len(found)
    assert [each.ends for each in found] == [each.ends for each in resolve("lion").space]
    assert foreign(type("Tiger", (), {}), {**options, "z": 1}, (), own)[0].source == "by name"


def test_other_spaces_are_chosen_by_name() -> None:
    adam = resolve("torch.optim:Adam")
    assert [(each.name, each.ends, each.source) for each in adam.space] == [
        ("lr", (1e-5, 0.1), "by name")
    ]
    rms = foreign(torch.optim.RMSprop, {"lr": 0.01, "momentum": 0, "weight_decay": 1e-3}, (), {})
    assert [each.name for each in rms] == ["lr", "momentum", "weight_decay"]
    (lr,) = foreign(torch.optim.RMSprop, {"lr": 0.0, "momentum": 0}, ("momentum",), {})
    assert lr.ends == (1e-4, 1.0)


def test_declared_spaces_leave_out_what_is_fixed() -> None:
    hypers = methods.get("adamw").hypers
    assert [each.name for each in declared(hypers)] == ["lr", "weight_decay"]
    assert [each.name for each in declared(hypers, {"lr": 1e-3})] == ["weight_decay"]


def test_whole_numbers_and_choices_are_declared() -> None:
    space = declared(
        {
            "k": hyper(3, ge=1, search="linear", low=1, high=9),
            "mode": hyper("x", choices=("x", "y"), search="choice"),
            "flag": hyper(False, search="choice"),
        },
    )
    assert (space[0].whole, space[1].choices, space[2].choices) == (True, ("x", "y"), (False, True))


def test_a_tuple_cannot_be_searched() -> None:
    with pytest.raises(SpaceError, match="betas"):
        declared({"betas": hyper((0.9, 0.99), search="linear", low=0.0, high=1.0)})


def test_a_user_describes_a_space() -> None:
    found = resolve("torch.optim:RMSprop", ranges={"alpha": "linear:0.9..0.999", "lr": "log:1..9"})
    assert list(map(str, found.space)) == [
        "lr log 1..9 (user)", "momentum linear 0..0.95 (by name)", "alpha linear 0.9..0.999 (user)",
    ]  # fmt: skip
    history = resolve("torch.optim:LBFGS", ranges={"history_size": "log:5..50"}).space[-1]
    assert history.whole
    assert not resolve("torch.optim:LBFGS", ranges={"lr": "log:0.1..1"}).space[0].whole
    own = resolve("sgd", ranges={"nesterov": "true|false", "dampening": "linear:0..1"}).space
    assert own[-2].choices == (True, False)


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("1e-3", SpaceError, r"adamw\.lr: expected log:LOW\.\.HIGH, .* got '1e-3'"),
        ("log:1..", SpaceError, "expected two numbers"),
        ("log:0..1", SpaceError, "needs LOW > 0"),
        ("linear:1..1", SpaceError, "LOW < HIGH"),
        ("linear:0..inf", SpaceError, "finite"),
        ("linear:-1..1", HyperError, "lr: expected a value >= 0"),
        ("0.1|fast", HyperError, "lr: expected a number"),
    ],
)
def test_a_range_that_cannot_be_used(text: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        resolve("adamw", ranges={"lr": text})


def test_a_tuple_has_no_range() -> None:
    with pytest.raises(SpaceError, match="a tuple cannot be searched"):
        user_space((), {"betas": "linear:0..1"}, {"betas": (0.9, 0.99)}, None)


# --- Trials ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", get_args(Sampler))
def test_trial_0_is_the_default(sampler: str) -> None:
    assert draw(0, sampler) == {each.name: each.default for each in SPACE}


@pytest.mark.parametrize("sampler", get_args(Sampler))
def test_configurations_lie_inside_differ_and_repeat(sampler: str) -> None:
    before = past(5)
    drawn = [draw(index, sampler, past=before) for index in range(1, 6)]
    assert drawn == [draw(index, sampler, past=before) for index in range(1, 6)]
    assert len({str(config) for config in drawn}) == 5
    for config in drawn:
        assert 1e-5 <= config["lr"] <= 1e-1
        assert 1e-3 <= config["decay"] <= 1.0
        assert 0.0 <= config["momentum"] <= 0.95
        assert config["count"] in range(1, 10)
        assert type(config["count"]) is int
        assert config["kind"] in ("a", "b", "c")


def test_whole_numbers_and_choices_are_drawn_evenly() -> None:
    drawn = [draw(index) for index in range(1, 91)]
    counts = [[each["count"] for each in drawn].count(n) for n in range(1, 10)]
    kinds = [[each["kind"] for each in drawn].count(kind) for kind in "abc"]
    assert (min(counts) >= 8, max(counts) <= 12) == (True, True)
    assert (min(kinds) >= 28, max(kinds) <= 32) == (True, True)


def test_sobol_points_cover_the_range_evenly() -> None:
    drawn = [draw(i, space=LR)["lr"] for i in range(1, 17)]
    quarters = [int(math.log10(value) + 5) for value in drawn]
    assert [quarters.count(q) for q in range(4)] == [4, 4, 4, 4]


def test_different_methods_and_tunings_lie_at_different_places() -> None:
    """The first point was at one quantile of every range: the rank followed from the ranges."""

    def place(space: Any, **more: Any) -> float:
        low, high = space[0].ends
        return round(math.log(draw(1, space=space, **more)["lr"] / low) / math.log(high / low), 9)

    spaces = {resolve(name).space for name in methods.names()} - {()}
    spaces = {space for space in spaces if space[0].name == "lr"}
    assert len({place(space) for space in spaces}) == len(spaces) > 8
    names = ("adamw", "adamw (A/A)")
    streams = [stream(name, tuning) for name in names for tuning in (0, 1, 2)]
    assert len({place(LR, stream=each) for each in streams}) == 6
    assert place(LR) != place(LR, sampler_seed=1)


def test_more_trials_begin_with_the_same_ones() -> None:
    assert draw(2, trials=3) == draw(2, trials=100)


def test_tpe_learns_and_random_does_not() -> None:
    good = [(each[0], (float(index > 0), 0.0)) for index, each in enumerate(past(6))]
    bad = [(each[0], (float(index == 0), 0.0)) for index, each in enumerate(past(6))]
    assert draw(6, "tpe", past=good) != draw(6, "tpe", past=bad)
    assert draw(6, "random", past=good) == draw(6, "random", past=bad)


def test_an_empty_space_has_one_configuration() -> None:
    assert draw(3, space=()) == {}


# --- Edges -------------------------------------------------------------------------------------


def seen(*values: float, best: int) -> Past:
    return [({"lr": lr}, (float(i != best), 0.0)) for i, lr in enumerate(values)]


def test_the_last_quarter_are_edge_trials() -> None:
    assert [sum(is_edge_trial(i, n) for i in range(n)) for n in (1, 3, 4, 7, 8, 16)] == [
        0, 0, 1, 1, 2, 4,
    ]  # fmt: skip
    assert is_edge_trial(15, 16) > is_edge_trial(11, 16)


@pytest.mark.parametrize(("best", "beyond"), [(0.08, 1.0), (1.2e-5, 1e-6)])
def test_a_best_value_at_an_edge_is_followed_beyond_it(best: float, beyond: float) -> None:
    before = seen(1e-3, best, 2e-3, best=1)
    assert draw(3, space=LR, trials=4, past=before) == {"lr": pytest.approx(beyond)}
    (after,) = explored(LR, 4, [*before, ({"lr": beyond}, (2.0, 0.0))])
    assert after.extended
    assert beyond in after.ends
    assert "extended" in str(after)


def test_a_best_value_inside_is_not() -> None:
    before = seen(1e-3, 0.08, 2e-3, best=2)
    assert draw(3, space=LR, trials=4, past=before) == draw(3, space=LR)
    assert explored(LR, 4, before) == LR
    lost = [({"lr": 0.1}, (math.inf, math.inf))] * 3
    assert draw(3, space=LR, trials=4, past=lost) == draw(3, space=LR)


def test_an_edge_is_followed_as_long_as_it_is_the_best() -> None:
    before = list(seen(1e-3, 0.08, *[1e-3] * 4, best=1))
    first = draw(6, space=LR, trials=8, past=before)
    better = [*before, (first, (-1.0, 0.0))]
    assert draw(7, space=LR, trials=8, past=better) == {"lr": pytest.approx(10.0)}
    worse = [*before, (first, (5.0, 0.0))]
    assert draw(7, space=LR, trials=8, past=worse) == draw(7, space=LR)


def test_the_first_dimension_at_an_edge_moves_and_the_rest_stays_with_the_best() -> None:
    config = {"lr": 0.09, "decay": 0.9, "momentum": 0.5, "count": 9, "kind": "a"}
    before = [(draw(0), (1.0, 0.0)), (config, (0.0, 0.0)), (draw(2), (1.0, 0.0))]
    assert draw(3, trials=4, past=before) == {**config, "lr": pytest.approx(1.0)}


def test_ends_stop_at_what_the_hyper_parameter_may_be() -> None:
    (momentum,) = (each for each in resolve("sgd").space if each.name == "momentum")
    assert (momentum.floor, momentum.ceiling) == (0.0, 0.975)
    for value, expected in ((0.01, None), (0.94, 0.975)):
        before = [({"momentum": v}, (float(v != value), 0.0)) for v in (0.5, value, 0.6)]
        found = draw(3, space=(momentum,), trials=4, past=before)["momentum"]
        assert found == (expected or draw(3, space=(momentum,))["momentum"])
    # A decay of 0 is the default and outside the range: not at its edge.
    decay = resolve("lion").space[1]
    assert at_edge(decay, 0.0) is None
    # A user's range is meant, and a best value at its end is still worth a word.
    (own,) = resolve("torch.optim:Adam", ranges={"lr": "log:1e-3..1e-1"}).space
    before = seen(1e-2, 0.1, 2e-2, best=1)
    assert draw(3, space=(own,), trials=4, past=before) == draw(3, space=(own,))
    assert (open_edge(own, 0.1), open_edge(momentum, 0.0)) == ("upper", None)


def test_whole_numbers_move_by_a_quarter() -> None:
    (count,) = declared({"k": hyper(3, ge=1, search="linear", low=1, high=9)})
    before = [({"k": k}, (float(k != 9), 0.0)) for k in (3, 9, 5)]
    assert draw(3, space=(count,), trials=4, past=before) == {"k": 11}


def test_a_dimension_says_what_it_is() -> None:
    assert str(SPACE[0]) == "lr log 1e-05..0.1 (declared)"
    assert str(SPACE[4]) == "kind choice a|b|c (declared)"


def test_optuna_takes_what_was_clamped() -> None:
    for each in SPACE:
        inside = clamped(each, each.default)
        assert distribution(each)._contains(distribution(each).to_internal_repr(inside))
