"""ZO-RankSGD: the graph's edges by loops, a whole run by hand, orders alone, people's answers."""

from __future__ import annotations

import io
import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import anyorder
from anyorder.hyper import HyperError
from anyorder.methods.rank_sgd import RankSGD
from anyorder.oracle.closures import RankingError
from anyorder.oracle.ledger import Budget, BudgetExhausted
from anyorder.points.directions import Seeded, Shift
from anyorder.testing import MethodContract, Values, World


def valley() -> tuple[dict[str, nn.Parameter], Callable[[], Tensor]]:
    """A curved function of two parameters, in float64."""
    rng = np.random.default_rng(8)
    params = {
        "matrix": nn.Parameter(torch.tensor(rng.normal(size=(3, 3)))),
        "vector": nn.Parameter(torch.tensor(rng.normal(size=5))),
    }

    def closure() -> Tensor:
        m, v = params["matrix"], params["vector"]
        return (m**2).sum() + 3 * (v**2).sum() + (m.sum() - v.sum()) ** 2

    return params, closure


def height(x: np.ndarray) -> float:
    """:func:`valley` in numpy, of all parameters end to end."""
    m, v = x[:9], x[9:]
    return float((m**2).sum() + 3 * (v**2).sum() + (m.sum() - v.sum()) ** 2)


def flat(params: dict[str, nn.Parameter]) -> np.ndarray:
    return np.concatenate([p.detach().numpy().ravel() for p in params.values()])


def noise(params: Mapping[str, Any], seed: int, step: int, index: int) -> np.ndarray:
    """The direction, taken as given; the paper asks for standard normals and no more."""
    direction = Seeded(seed, step, index)
    like = {name: torch.zeros(tuple(p.shape), dtype=torch.float64) for name, p in params.items()}
    return np.concatenate([direction.tensor(n, t).numpy().ravel() for n, t in like.items()])


def over_edges(z: Sequence[np.ndarray], order: Sequence[int | Sequence[int]]) -> np.ndarray:
    """(1 / |E|) sum over edges (i better than j) of z_j - z_i, edge by edge."""
    groups = [[entry] if isinstance(entry, int) else entry for entry in order]
    place = {point: rank for rank, group in enumerate(groups) for point in group}
    total, edges = np.zeros_like(z[0]), 0
    for i, j in itertools.permutations(range(len(z)), 2):
        known_better = i in place and (j not in place or place[i] < place[j])
        if known_better:
            total += z[j] - z[i]
            edges += 1
    return total / edges


def estimate_of(optimizer: RankSGD) -> np.ndarray:
    return np.concatenate([b.numpy().ravel() for b in optimizer.buffer("estimate").values()])


# The estimate ----------------------------------------------------------------------------------

SIZES = [(2, 1), (2, 2), (3, 1), (5, 2), (5, 5), (10, 3), (10, 9), (10, 10)]


@pytest.mark.parametrize(("m", "k"), SIZES)
def test_estimate_is_the_mean_over_the_edges_of_the_graph(m: int, k: int) -> None:
    params, _ = valley()
    optimizer = RankSGD(params.items(), points=m, top=k, lr=0.0, seed=3, engine="eager")
    order = np.random.default_rng(m * k).permutation(m).tolist()
    optimizer.tell(order)
    z = [noise(params, 3, 0, i) for i in range(m)]
    np.testing.assert_allclose(
        estimate_of(optimizer), over_edges(z, order[:k]), rtol=1e-6, atol=1e-7
    )


@pytest.mark.parametrize(("m", "k"), SIZES)
def test_weights_of_the_points_sum_to_zero(m: int, k: int) -> None:
    """Read back from the estimate: 2 r - (m - 1) for rank r < k, k for the rest, over |E|.

    The published code's m - 2 r would leave a sum of k: a bias along the mean of the best.
    """
    params, _ = valley()
    optimizer = RankSGD(params.items(), points=m, top=k, seed=3, engine="eager")
    order = np.random.default_rng(m * k).permutation(m).tolist()
    optimizer.tell(order)
    z = np.stack([noise(params, 3, 0, i) for i in range(m)], axis=1)
    weights, *_ = np.linalg.lstsq(z, estimate_of(optimizer), rcond=None)
    edges = k * (k - 1) / 2 + k * (m - k)
    expected = [2 * order.index(i) - (m - 1) if order.index(i) < k else k for i in range(m)]
    np.testing.assert_allclose(weights * edges, expected, atol=1e-4)
    assert abs(float(weights.sum())) < 1e-5


def test_answers_beyond_the_best_few_are_not_used() -> None:
    runs: list[np.ndarray] = []
    for answer in ([4, 1, 0, 2, 3], [4, 1, 3, 0, 2], [4, 1]):
        params, _ = valley()
        optimizer = RankSGD(params.items(), points=5, top=2, engine="eager")
        optimizer.tell(answer)
        runs.append(estimate_of(optimizer))
    assert np.array_equal(runs[0], runs[1]) and np.array_equal(runs[0], runs[2])


def test_estimate_points_downhill() -> None:
    """Its mean over many draws is along the gradient of a linear function."""
    slope = np.linspace(-1, 1, 8)
    g = torch.tensor(slope)
    total = np.zeros(8)
    n = 150
    for seed in range(n):
        x = nn.Parameter(torch.zeros(8, dtype=torch.float64))
        optimizer = RankSGD([("x", x)], points=6, seed=seed, line_search=0, lr=1.0, engine="eager")
        optimizer.step(lambda: g @ x)  # noqa: B023 - used within the loop
        total -= x.detach().numpy() / n
    along = total @ slope / np.linalg.norm(slope)
    across = total - slope * (along / np.linalg.norm(slope))
    # The six weights 5, 3, 1, ... over |E| = 15 give an entry the variance 70 / 225 per draw.
    bound = 5 * math.sqrt(70 / 225 / n)
    assert along > bound
    assert np.abs(across).max() < bound


# A whole run -----------------------------------------------------------------------------------


def by_hand(
    x: np.ndarray,
    noise_of: Callable[[int, int], np.ndarray],
    steps: int,
    *,
    m: int,
    k: int,
    mu: float,
    lr: float,
    tries: int,
    shrink: float = 0.5,
    adapt: bool = False,
    height: Callable[[np.ndarray], float] = height,
) -> tuple[np.ndarray, int]:
    """Algorithm 2 of Tang et al. (2024) with the line search and averaging of their code.

    ``adapt`` is not theirs: a length is doubled or halved by what wins.
    """
    direction, count, stays = np.zeros_like(x), 0, 0
    for step in range(steps):
        z = [noise_of(step, i) for i in range(m)]
        order = sorted(range(m), key=lambda i: height(x + mu * z[i]))
        fresh = over_edges(z, order[:k])
        if not tries:
            x = x - lr * fresh
            continue
        direction = (direction * count + fresh) / (count + 1)
        count += 1
        shown = [x, x + mu * z[order[0]]]
        shown += [x - lr * shrink**i * direction for i in range(tries)]
        best = min(range(len(shown)), key=lambda i: height(shown[i]))
        if best == 0:
            stays += 1
        else:
            x, direction, count = shown[best], np.zeros_like(x), 0
        if adapt:
            lr *= {2: 1 / shrink, 0: shrink, 1 + tries: shrink}.get(best, 1.0)
            mu *= {0: shrink, 1: 1 / shrink}.get(best, 1.0)
    return x, stays


@pytest.mark.parametrize(
    ("m", "k", "tries", "lr"), [(10, 10, 5, 1.0), (6, 2, 3, 3.0), (4, 1, 1, 0.2), (8, 8, 0, 0.05)]
)
def test_equals_the_algorithm_in_numpy(m: int, k: int, tries: int, lr: float) -> None:
    params, closure = valley()
    start = flat(params)
    expected, stays = by_hand(
        start, lambda step, i: noise(params, 5, step, i), 40, m=m, k=k, mu=0.05, lr=lr, tries=tries
    )
    optimizer = RankSGD(
        params.items(), points=m, top=k, mu=0.05, lr=lr, line_search=tries, seed=5, engine="eager"
    )
    for _ in range(40):
        loss = optimizer.step(closure)
        assert loss is not None and math.isnan(loss.item())
    np.testing.assert_allclose(flat(params), expected, rtol=1e-6, atol=1e-8)
    assert height(expected) < 0.5 * height(start)
    assert not tries or stays > 0  # the case of averaging did occur


def test_shrinking_steps_are_tried_as_many_as_asked() -> None:
    params, _ = valley()
    optimizer = RankSGD(
        params.items(), points=3, lr=0.8, shrink=0.25, line_search=4, mu=0.3, engine="eager"
    )
    optimizer.tell([2, 0, 1])
    shown = optimizer.ask()
    assert not shown[0] and shown[1] == Shift(0.3, Seeded(0, 0, 2))
    assert [s.scale for s in shown[2:]] == pytest.approx([-0.8 * 0.25**i for i in range(4)])


# Orders alone matter ---------------------------------------------------------------------------


INCREASING: dict[str, Callable[[Tensor], Tensor]] = {
    "scaled": lambda f: 8.0 * f,
    "exponential": lambda f: f.exp(),
    "cubed": lambda f: f**3,
    "logarithm": lambda f: (f + 1).log(),
    "hyperbola": lambda f: -1 / (f + 1),
}


@pytest.mark.parametrize(("line_search", "adapt"), [(0, False), (4, False), (4, True)])
@pytest.mark.parametrize("transform", INCREASING.values(), ids=INCREASING)
def test_increasing_functions_of_the_loss_change_no_bit(
    transform: Callable[[Tensor], Tensor], line_search: int, adapt: bool
) -> None:
    runs: list[Tensor] = []
    for change in (lambda f: f, transform):
        params, closure = valley()
        settings: dict[str, Any] = {"line_search": line_search, "adapt": adapt}
        optimizer = RankSGD(params.items(), lr=0.3, points=6, top=4, engine="eager", **settings)
        for _ in range(15):
            optimizer.step(lambda: change(closure() / 100))  # noqa: B023 - used within the loop
        runs.append(torch.cat([p.detach().reshape(-1) for p in params.values()]))
    assert torch.equal(runs[0], runs[1])


def test_ties_go_to_the_first_shown_so_that_flat_ground_holds() -> None:
    params, _ = valley()
    before = flat(params)
    optimizer = RankSGD(params.items(), points=4, lr=1.0, engine="eager")
    for _ in range(5):
        optimizer.step(lambda: torch.stack([p.sum() * 0.0 for p in params.values()]).sum())
    assert np.array_equal(flat(params), before)
    assert np.abs(estimate_of(optimizer)).max() > 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_points_without_a_value_come_last(bad: float) -> None:
    params, closure = valley()
    shown = 0

    def closure_with_holes() -> Tensor:
        nonlocal shown
        shown += 1
        return closure() * (bad if shown in (1, 3) else 1.0)

    optimizer = RankSGD(params.items(), points=4, top=4, line_search=0, lr=0.0, engine="eager")
    optimizer.step(closure_with_holes)
    z = [noise(params, 0, 0, i) for i in range(4)]
    x = flat(params)
    good = sorted((1, 3), key=lambda i: height(x + 0.1 * z[i]))
    np.testing.assert_allclose(estimate_of(optimizer), over_edges(z, [*good, 0, 2]), atol=1e-7)


# Averaging -------------------------------------------------------------------------------------


def test_estimates_are_averaged_until_something_beats_the_present_point() -> None:
    params, _ = valley()
    optimizer = RankSGD(params.items(), points=4, lr=0.1, mu=0.2, engine="eager")
    start, fresh = flat(params), []
    for step in range(4):
        order = np.random.default_rng(step).permutation(4).tolist()
        optimizer.tell(order)
        fresh.append(over_edges([noise(params, 0, step, i) for i in range(4)], order))
        np.testing.assert_allclose(estimate_of(optimizer), np.mean(fresh, axis=0), atol=1e-6)
        assert optimizer.tell([0])  # the present point stays the best
        assert np.array_equal(flat(params), start)
    optimizer.tell([3, 1, 2, 0])
    fresh.append(over_edges([noise(params, 0, 4, i) for i in range(4)], [3, 1, 2, 0]))
    mean = np.mean(fresh, axis=0)
    optimizer.tell([3, 0])  # the second of the steps tried
    np.testing.assert_allclose(flat(params), start - 0.05 * mean, rtol=1e-6)
    optimizer.tell([0, 1, 2, 3])
    alone = over_edges([noise(params, 0, 5, i) for i in range(4)], [0, 1, 2, 3])
    np.testing.assert_allclose(estimate_of(optimizer), alone, atol=1e-6)


def test_the_best_point_shown_may_win() -> None:
    params, _ = valley()
    start = flat(params)
    optimizer = RankSGD(params.items(), points=4, mu=0.2, engine="eager")
    optimizer.tell([2, 0, 1, 3])
    optimizer.tell([1, 0])
    np.testing.assert_allclose(flat(params), start + 0.2 * noise(params, 0, 0, 2), rtol=1e-6)


# Rankers and people ----------------------------------------------------------------------------


def test_ranker_orders_instead_of_the_closure_and_may_name_only_the_best() -> None:
    params, closure = valley()
    twin, other = valley()
    asked: list[int] = []

    def ranker(shifts: Sequence[Shift]) -> list[int]:
        asked.append(len(shifts))
        heights: list[float] = []
        for shift in shifts:
            with optimizer.shown(shift):
                heights.append(closure().item())
        return sorted(range(len(shifts)), key=heights.__getitem__)[:3]

    settings: dict[str, Any] = {"points": 6, "top": 3, "lr": 0.3, "engine": "eager"}
    optimizer = RankSGD(params.items(), ranker=ranker, **settings)
    by_values = RankSGD(twin.items(), **settings)

    def never() -> Tensor:
        raise AssertionError("the ranker answers")

    for _ in range(10):
        optimizer.step(never)
        by_values.step(other)
    assert asked == [6, 7] * 10
    np.testing.assert_allclose(flat(params), flat(twin), rtol=1e-9)
    assert (optimizer.calls.rankings, optimizer.calls.ranked) == (20, 130)


@pytest.mark.parametrize("answer", [[], [0, 0], [5], [-1], [0, 1, 2, 3, 4, 5]])
def test_answers_that_are_no_order_are_refused(answer: list[int]) -> None:
    params, closure = valley()
    before = flat(params)
    optimizer = RankSGD(params.items(), points=5, ranker=lambda shifts: answer, engine="eager")
    with pytest.raises(RankingError, match="positions from 0 to 4"):
        optimizer.step(closure)
    with pytest.raises(RankingError, match="positions from 0 to 4"):
        optimizer.tell(answer)
    optimizer.tell([0])
    with pytest.raises(RankingError, match="positions from 0 to 6"):
        optimizer.tell([7])
    assert np.array_equal(flat(params), before)


def person(optimizer: RankSGD, closure: Callable[[], Tensor]) -> list[int]:
    """Somebody who looks at every point shown and puts them in order."""
    heights: list[float] = []
    for shift in optimizer.ask():
        with optimizer.shown(shift):
            heights.append(closure().item())
    return sorted(range(len(heights)), key=heights.__getitem__)


@pytest.mark.parametrize("line_search", [0, 3])
def test_answers_by_hand_make_the_same_run_as_step(line_search: int) -> None:
    settings: dict[str, Any] = {"points": 5, "lr": 0.3, "line_search": line_search}
    params, closure = valley()
    twin, other = valley()
    optimizer = RankSGD(params.items(), engine="eager", **settings)
    stepping = RankSGD(twin.items(), engine="eager", **settings)
    for _ in range(12):
        while not optimizer.tell(person(optimizer, closure)):
            pass
        stepping.step(other)
        np.testing.assert_allclose(flat(params), flat(twin), rtol=1e-9)
    assert height(flat(params)) < height(flat(valley()[0]))


@pytest.mark.parametrize("stop", range(6))
def test_answers_may_come_after_a_restart(stop: int) -> None:
    """Also between the two questions of one step: state_dict holds all that ask needs."""

    def run(restart: bool) -> np.ndarray:
        params, closure = valley()
        optimizer = RankSGD(params.items(), points=4, lr=0.3, seed=7, engine="eager")
        for question in range(12):
            answer = person(optimizer, closure)
            if restart and question == stop:
                file = io.BytesIO()
                torch.save((dict(params), optimizer.state_dict()), file)
                file.seek(0)
                kept, state = torch.load(file)
                params, closure = valley()
                for name, p in params.items():
                    p.data.copy_(kept[name])
                optimizer = RankSGD(params.items(), points=4, lr=0.3, engine="eager")
                optimizer.load_state_dict(state)
            optimizer.tell(answer)
        return flat(params)

    assert np.array_equal(run(restart=False), run(restart=True))


def test_questions_stay_the_same_until_they_are_answered() -> None:
    params, _ = valley()
    optimizer = RankSGD(params.items(), points=4, engine="eager")
    first = optimizer.ask()
    assert optimizer.ask() == first
    assert not optimizer.tell([1, 0, 2, 3])

    def points() -> list[np.ndarray]:
        found: list[np.ndarray] = []
        for shift in optimizer.ask():
            with optimizer.shown(shift):
                found.append(flat(params))
        return found

    assert all(np.array_equal(a, b) for a, b in zip(points(), points(), strict=True))
    assert optimizer.tell([2])
    assert optimizer.ask() != first  # a new round draws new points


def test_shown_puts_the_weights_back() -> None:
    params, _ = valley()
    before = flat(params)
    optimizer = RankSGD(params.items(), points=2, mu=0.5, engine="eager")
    with pytest.raises(KeyError), optimizer.shown(optimizer.ask()[0]):
        np.testing.assert_allclose(flat(params), before + 0.5 * noise(params, 0, 0, 0), rtol=1e-6)
        raise KeyError
    assert np.array_equal(flat(params), before)


def test_answers_by_hand_are_counted() -> None:
    params, _ = valley()
    optimizer = RankSGD(params.items(), points=4, engine="eager")
    optimizer.tell([0])
    optimizer.tell([0])
    assert optimizer.steps == 1
    assert (optimizer.calls.rankings, optimizer.calls.ranked) == (2, 4 + 7)


# How well orders alone do ----------------------------------------------------------------------

EXAMPLE = re.search(
    r"^```python\n(target = .*?)^```$",
    (Path(__file__).parents[3] / "docs/quick-start.md").read_text(encoding="utf-8"),
    re.MULTILINE | re.DOTALL,
)


def test_the_person_of_the_quick_start_comes_closer_with_every_seed() -> None:
    assert EXAMPLE is not None and EXAMPLE[1].count("seed=1") == 1
    ends: list[float] = []
    for seed in range(20):
        code = EXAMPLE[1].replace("seed=1", f"seed={seed}")
        names: dict[str, Any] = {"torch": torch, "anyorder": anyorder}
        exec(compile(code, "quick-start.md", "exec"), names)
        ends.append((names["colour"] - names["target"]).abs().sum().item())
    assert max(ends) < 0.8, "it begins at a distance of 0.8"
    assert np.median(ends) < 0.1


def questions(n: int, unit: float, **options: Any) -> float:
    """The distance to a colour after ``n`` rankings, over that at the start."""
    target = torch.tensor([0.3, 0.7, 0.1]) * unit
    colour = nn.Parameter(torch.full((3,), 0.5 * unit))
    optimizer = RankSGD([colour], engine="eager", **options)
    for _ in range(n):
        optimizer.tell(person(optimizer, lambda: (colour - target).abs().sum()))
    return (colour - target).abs().sum().item() / (0.8 * unit)


def test_the_defaults_come_closer_with_every_seed() -> None:
    assert max(questions(20, 1.0, seed=seed) for seed in range(20)) < 0.2


@pytest.mark.parametrize("unit", [0.01, 1.0, 100.0])
def test_adapted_scales_fit_any_unit(unit: float) -> None:
    ends = [questions(40, unit, points=4, line_search=2, adapt=True, seed=s) for s in range(5)]
    assert max(ends) < 0.2


@pytest.mark.parametrize(
    ("m", "k", "cosine"), [(15, 15, 0.335), (15, 3, 0.254), (15, 1, 0.178), (50, 50, 0.564)]
)
def test_cosine_to_the_gradient(m: int, k: int, cosine: float) -> None:
    """Means over 2,000 draws in 100 dimensions; here fewer, so five standard errors are allowed."""
    draws = 60 if m == 15 else 25
    x = nn.Parameter(torch.zeros(100))
    slope = torch.linspace(-1, 1, 100)
    optimizer = RankSGD([("x", x)], points=m, top=k, line_search=0, lr=1.0, engine="eager")
    found: list[float] = []
    for _ in range(draws):
        x.data.zero_()
        optimizer.step(lambda: slope @ x)
        found.append(torch.cosine_similarity(-x.detach(), slope, dim=0).item())
    error = np.std(found, ddof=1) / math.sqrt(draws)
    assert error < 0.02
    assert abs(np.mean(found) - cosine) < 5 * error


# Ties, and answers that are too short ------------------------------------------------------------


@pytest.mark.parametrize(
    ("top", "answer", "used"),
    [
        (0, [3, [0, 4], 1, 2], [3, [0, 4], 1, 2]),
        (0, [[1, 2]], [[1, 2]]),
        (0, [[2, 0], 4], [[2, 0], 4]),
        (2, [3, [0, 4], 1, 2], [3, [0, 4]]),
        (1, [3, [0, 4], 1, 2], [3]),
    ],
)
def test_ties_have_no_edge(top: int, answer: list[Any], used: list[Any]) -> None:
    params, _ = valley()
    optimizer = RankSGD(params.items(), points=5, top=top, seed=3, engine="eager")
    optimizer.tell(answer)
    z = [noise(params, 3, 0, i) for i in range(5)]
    np.testing.assert_allclose(estimate_of(optimizer), over_edges(z, used), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("m", [2, 5])
def test_equal_information_gives_equal_bits(m: int) -> None:
    """The last place follows from the others, and a group of one is no tie."""
    order = np.random.default_rng(m).permutation(m).tolist()
    runs: list[np.ndarray] = []
    for top, answer in ((0, order), (0, [[p] for p in order]), (m - 1, order), (0, order[:-1])):
        params, _ = valley()
        optimizer = RankSGD(params.items(), points=m, top=top, engine="eager")
        optimizer.tell(answer)
        runs.append(estimate_of(optimizer))
    assert all(np.array_equal(runs[0], run) for run in runs[1:])


def test_two_points_are_a_difference_along_one_direction() -> None:
    params, _ = valley()
    optimizer = RankSGD(params.items(), points=2, line_search=0, lr=0.5, seed=1, engine="eager")
    before = flat(params)
    optimizer.tell([1, 0])
    z = [noise(params, 1, 0, i) for i in range(2)]
    np.testing.assert_allclose(flat(params), before - 0.5 * (z[0] - z[1]), rtol=1e-6)


@pytest.mark.parametrize(("adapt", "mu"), [(False, 0.1), (True, 0.2)])
def test_nothing_is_learned_where_all_tie(adapt: bool, mu: float) -> None:
    params, _ = valley()
    before = flat(params)
    optimizer = RankSGD(params.items(), points=3, adapt=adapt, engine="eager")
    first = optimizer.ask()
    assert optimizer.tell([[0, 1, 2]])  # the step is over
    shown = optimizer.ask()
    assert np.array_equal(flat(params), before)
    assert [s.scale for s in shown] == [pytest.approx(mu)] * 3  # adapted, they lie further apart
    assert [s.direction for s in shown] != [s.direction for s in first]
    optimizer.tell([2, 1, 0])
    z = [noise(params, 0, 1, i) for i in range(3)]
    np.testing.assert_allclose(estimate_of(optimizer), over_edges(z, [2, 1, 0]), atol=1e-6)


def test_the_present_point_wins_a_tie() -> None:
    params, _ = valley()
    before = flat(params)
    optimizer = RankSGD(params.items(), points=3, engine="eager")
    optimizer.tell([0, 1, 2])
    assert optimizer.tell([[3, 0, 2]])
    assert np.array_equal(flat(params), before)


@pytest.mark.parametrize(
    ("answer", "lr", "mu"),
    [
        ([0], 0.5, 0.5),  # the present point
        ([1], 1.0, 2.0),  # the best random point
        ([2], 2.0, 1.0),  # the longest step
        ([3], 1.0, 1.0),
        ([4], 0.5, 1.0),  # the shortest step
        ([[0, 3]], 1.0, 1.0),  # nothing is known to be worse than the present point
        ([[0, 1, 2, 3, 4]], 2.0, 2.0),  # all look the same
    ],
)
def test_scales_follow_what_wins(answer: list[Any], lr: float, mu: float) -> None:
    params, _ = valley()
    settings = {"lr": 0.3, "mu": 0.2, "points": 4, "line_search": 3, "engine": "eager"}
    optimizer = RankSGD(params.items(), adapt=True, **settings)
    optimizer.tell([3, 1, 0, 2])
    optimizer.tell(answer)
    assert [s.scale for s in optimizer.ask()] == [0.2 * mu] * 4
    optimizer.tell([3, 1, 0, 2])
    assert [s.scale for s in optimizer.ask()[2:]] == [-0.3 * lr * 0.5**i for i in range(3)]


def test_a_ranker_may_tell_ties() -> None:
    params, closure = valley()
    optimizer = RankSGD(
        params.items(), points=3, seed=3, ranker=lambda shifts: [[2, 0], 1], engine="eager"
    )
    optimizer.step(closure)
    z = [noise(params, 3, 0, i) for i in range(3)]
    np.testing.assert_allclose(estimate_of(optimizer), over_edges(z, [[2, 0], 1]), atol=1e-6)


def test_fewer_than_the_best_few_are_refused_and_nothing_is_lost() -> None:
    params, closure = valley()
    twin, other = valley()
    optimizer = RankSGD(params.items(), points=5, top=3, engine="eager")
    plain = RankSGD(twin.items(), points=5, top=3, engine="eager")
    for answer in ([4, 1], [[4, 1]]):
        with pytest.raises(RankingError, match="the best 3 .* of 5 points in order, got 2"):
            optimizer.tell(answer)
    assert (optimizer.calls.rankings, optimizer.steps) == (0, 0)
    optimizer.ranker = lambda shifts: [4, 1]
    with pytest.raises(RankingError, match="the best 3"):
        optimizer.step(closure)
    optimizer.ranker = None
    for _ in range(3):
        optimizer.step(closure)
        plain.step(other)
    assert np.array_equal(flat(params), flat(twin))


def test_checkpoints_without_factors_still_load() -> None:
    params, closure = valley()
    optimizer = RankSGD(params.items(), points=4, adapt=True, engine="eager")
    for _ in range(6):
        optimizer.step(closure)
    factors = {n: v for n, v in optimizer.extra_state().items() if n.endswith("factor")}
    assert set(factors.values()) != {1.0}
    state = optimizer.state_dict()
    optimizer.load_state_dict(state)
    assert factors.items() <= optimizer.extra_state().items()
    record = optimizer.extra_state()
    optimizer.load_extra_state({"best": record["best"], "averaged": record["averaged"]})
    assert optimizer.extra_state()["lr_factor"] == 1.0


# Ledger and input ------------------------------------------------------------------------------


@pytest.mark.parametrize(("points", "line_search"), [(10, 5), (4, 1), (3, 0)])
def test_ledger_of_a_step(points: int, line_search: int) -> None:
    params, closure = valley()
    runs = 0

    def counted() -> Tensor:
        nonlocal runs
        runs += 1
        return closure()

    optimizer = RankSGD(params.items(), points=points, line_search=line_search, engine="eager")
    shown = points + (line_search + 2 if line_search else 0)
    for step in range(1, 5):
        optimizer.step(counted)
        calls = optimizer.calls.to_dict()
        assert calls.pop("seconds") > 0
        assert {name: count for name, count in calls.items() if count} == {
            "rankings": (2 if line_search else 1) * step,
            "ranked": shown * step,
        }
        assert runs == shown * step


def test_budget_between_the_two_questions_leaves_the_second_to_be_asked() -> None:
    params, closure = valley()
    twin, other = valley()
    optimizer = RankSGD(params.items(), points=4, lr=0.3, budget=Budget(rankings=3), engine="eager")
    optimizer.step(closure)
    before = flat(params)
    with pytest.raises(BudgetExhausted):
        optimizer.step(closure)
    assert np.array_equal(flat(params), before) and optimizer.calls.rankings == 3
    optimizer.budget = None
    optimizer.step(closure)
    plain = RankSGD(twin.items(), points=4, lr=0.3, engine="eager")
    for _ in range(2):
        plain.step(other)
    assert np.array_equal(flat(params), flat(twin))


def test_maximize_turns_the_order() -> None:
    params, closure = valley()
    twin, other = valley()
    up = RankSGD(params.items(), points=5, lr=0.1, maximize=True, engine="eager")
    down = RankSGD(twin.items(), points=5, lr=0.1, engine="eager")
    for _ in range(5):
        up.step(closure)
        down.step(lambda: -other())
    assert np.array_equal(flat(params), flat(twin))


@pytest.mark.parametrize(
    "settings",
    [{"lr": 0.5}, {"mu": 0.5}, {"points": 3}, {"top": 2}, {"line_search": 1}, {"adapt": True}],
)
def test_groups_may_not_differ(settings: dict[str, Any]) -> None:
    a, b = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    (name,) = settings
    with pytest.raises(HyperError, match=name):
        RankSGD([{"params": [a]}, {"params": [b], **settings}])
    RankSGD([{"params": [a], **settings}, {"params": [b], **settings}])


@pytest.mark.parametrize(
    "settings",
    [
        {"top": 11},
        {"top": -1},
        {"points": 1},
        {"mu": 0.0},
        {"shrink": 1.0},
        {"shrink": 0.0},
        {"line_search": -1},
        {"line_search": 0.5},
        {"adapt": True, "line_search": 0},
    ],
)
def test_settings_out_of_range_are_named(settings: dict[str, Any]) -> None:
    name = next(iter(settings))
    with pytest.raises(HyperError, match=name):
        RankSGD([nn.Parameter(torch.ones(1))], **settings)


# The contract ----------------------------------------------------------------------------------


class TestContract(MethodContract):
    method = RankSGD
    reference_settings = (
        {},
        {"lr": 3.0, "mu": 0.05, "points": 6, "top": 2, "shrink": 0.25, "seed": 5},
        {"lr": 3.0, "mu": 0.5, "points": 6, "top": 3, "line_search": 2},  # stays, and averages
        {"lr": 0.05, "points": 8, "line_search": 0},
        {"lr": 0.01, "mu": 1.0, "points": 6, "line_search": 3, "adapt": True, "seed": 2},
    )

    def reference(
        self, values: Values, world: World, steps: int, options: Mapping[str, Any]
    ) -> Values:
        end, _ = by_hand(
            world.joined(values),
            lambda step, index: noise(values, options["seed"], step, index),
            steps,
            m=options["points"],
            k=options["top"] or options["points"],
            mu=options["mu"],
            lr=options["lr"],
            tries=options["line_search"],
            shrink=options["shrink"],
            adapt=options["adapt"],
            height=lambda x: world.value(world.parted(x)),
        )
        return world.parted(end)
