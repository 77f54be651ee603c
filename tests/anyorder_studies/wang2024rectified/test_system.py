"""Rectified diffusion against closed forms: exact predictors, Gaussian data, known limits."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from anyorder_studies.wang2024rectified.distance import sliced_wasserstein
from anyorder_studies.wang2024rectified.network import PointNetwork
from anyorder_studies.wang2024rectified.schedules import (
    SCHEDULES,
    DiffusionError,
    Schedule,
    flow_schedule,
    vp_schedule,
)
from anyorder_studies.wang2024rectified.system import (
    Diffusion,
    Pairs,
    Prediction,
    distil,
    first_order_defect,
    make_pairs,
    make_phases,
    rectify,
    train,
)

KINDS: tuple[Prediction, ...] = ("noise", "sample", "velocity")


class GaussianDenoiser(nn.Module):
    """The best prediction for one-dimensional data N(mean, spread^2), in closed form."""

    def __init__(self, schedule: Schedule, kind: Prediction, mean: float, spread: float) -> None:
        super().__init__()
        self.schedule, self.kind, self.mean, self.spread = schedule, kind, mean, spread

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = self.schedule.at(t, x)
        variance = (alpha * self.spread) ** 2 + sigma**2
        sample = self.mean + alpha * self.spread**2 / variance * (x - alpha * self.mean)
        noise = sigma / variance * (x - alpha * self.mean)
        return {"noise": noise, "sample": sample, "velocity": sample - noise}[self.kind]


class Constant(nn.Module):
    """Predicts the same noise everywhere: every trajectory is first-order."""

    def __init__(self) -> None:
        super().__init__()
        self.noise = nn.Parameter(torch.tensor([0.5, -1.0], dtype=torch.float64))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return self.noise.expand_as(x)


@pytest.mark.parametrize("name", list(SCHEDULES))
@pytest.mark.parametrize("kind", KINDS)
def test_many_steps_solve_the_gaussian_exactly(name: str, kind: Prediction):
    schedule = SCHEDULES[name]()
    model = Diffusion(GaussianDenoiser(schedule, kind, 0.7, 0.3), schedule, kind)
    x = torch.linspace(-2.0, 2.0, 9, dtype=torch.float64)[:, None]
    # The probability flow of a Gaussian maps quantiles to quantiles.
    one = torch.ones(9, dtype=torch.float64)
    alpha, sigma = schedule.at(one, x)
    quantile = (x - alpha * 0.7) / ((alpha * 0.3) ** 2 + sigma**2).sqrt()
    # At alpha = 0 a noise prediction says nothing about the sample: start just below.
    start = 0.999 if name == "flow" and kind == "noise" else 1.0
    found = model.sample(x, 2000, start=start)
    torch.testing.assert_close(found, 0.7 + 0.3 * quantile, atol=6e-3, rtol=0.0)


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_prediction_are_one_model(kind: Prediction):
    schedule = vp_schedule()
    x, t = torch.randn(6, 1, dtype=torch.float64), torch.full((6,), 0.4, dtype=torch.float64)
    model = Diffusion(GaussianDenoiser(schedule, kind, -0.2, 0.5), schedule, kind)
    sample, noise = model.predict(x, t)
    alpha, sigma = schedule.at(t, x)
    torch.testing.assert_close(alpha * sample + sigma * noise, x)
    reference = Diffusion(GaussianDenoiser(schedule, "noise", -0.2, 0.5), schedule)
    torch.testing.assert_close(noise, reference.predict(x, t)[1])


def test_step_is_the_papers_equation_two():
    schedule = vp_schedule()
    model = Diffusion(PointNetwork(2, width=8).double(), schedule)
    x = torch.randn(5, 2, dtype=torch.float64)
    t, s = (torch.full((5,), v, dtype=torch.float64) for v in (0.8, 0.3))
    a_t, s_t, a_s, s_s = (f(v)[0] for v in (t, s) for f in (schedule.alpha, schedule.sigma))
    found, noise = model.step(x, t, s)
    torch.testing.assert_close(found, a_s / a_t * x + a_s * noise * (s_s / a_s - s_t / a_t))


def test_flow_matching_velocity_step_is_euler():
    model = Diffusion(PointNetwork(2, width=8).double(), flow_schedule(), "velocity")
    x = torch.randn(5, 2, dtype=torch.float64)
    t, s = (torch.full((5,), v, dtype=torch.float64) for v in (1.0, 0.6))
    torch.testing.assert_close(model.step(x, t, s)[0], x + 0.4 * model.network(x, t))


@pytest.mark.parametrize("name", ["vp", "sub-vp"])
def test_constant_noise_makes_one_step_as_good_as_many(name: str):
    model = Diffusion(Constant(), SCHEDULES[name]())
    x = torch.randn(7, 2, dtype=torch.float64)
    torch.testing.assert_close(model.sample(x, 1), model.sample(x, 60))
    assert first_order_defect(model, x, 20) < 1e-28
    # The path itself is curved all the same: its middle is off the chord.
    states, _ = model.trajectory(x, 2)
    assert (states[1] - 0.5 * (states[0] + states[2])).abs().max() > 0.05


def test_defect_is_the_variance_over_times():
    model = Diffusion(PointNetwork(2, width=8), vp_schedule())
    noise = torch.randn(6, 2)
    _, predictions = model.trajectory(noise, 5)
    mean = sum(predictions) / 5
    naive = sum(((p - mean) ** 2).mean() for p in predictions) / 5
    assert first_order_defect(model, noise, 5) == pytest.approx(float(naive), rel=1e-5)


@pytest.mark.parametrize("name", list(SCHEDULES))
@pytest.mark.parametrize("phases", [1, 3])
def test_phases_join_both_ends_of_their_segment(name: str, phases: int):
    kind: Prediction = "velocity" if name == "flow" else "noise"
    model = Diffusion(PointNetwork(2, width=8).double(), SCHEDULES[name](), kind)
    samples = torch.randn(40, 2, dtype=torch.float64)
    pairs = make_phases(model, samples, phases=phases, steps=4, seed=1)
    assert len(pairs.sample) == 40
    for row in range(0, 40, 7):
        one = slice(row, row + 1)
        ends = []
        for times in (pairs.start[one], pairs.end[one]):
            alpha, sigma = model.schedule.at(times, pairs.sample[one])
            ends.append(alpha * pairs.sample[one] + sigma * pairs.noise[one])
        start, end = float(pairs.start[row]), float(pairs.end[row])
        assert start - end == pytest.approx(1.0 / phases)
        solved = model.sample(ends[0], 4, start=start, end=end)
        torch.testing.assert_close(solved, ends[1], atol=1e-9, rtol=1e-9)


def test_phase_noise_is_the_papers_equation_four():
    model = Diffusion(PointNetwork(1, width=8).double(), vp_schedule())
    pairs = make_phases(model, torch.randn(9, 1, dtype=torch.float64), phases=2, steps=3)
    a_t, s_t = model.schedule.at(pairs.start, pairs.sample)
    a_s, s_s = model.schedule.at(pairs.end, pairs.sample)
    x_t, x_s = a_t * pairs.sample + s_t * pairs.noise, a_s * pairs.sample + s_s * pairs.noise
    torch.testing.assert_close(pairs.noise, (x_s / a_s - x_t / a_t) / (s_s / a_s - s_t / a_t))


def test_pairs_are_noise_and_its_own_sample():
    model = Diffusion(PointNetwork(2, width=8), vp_schedule())
    noise = torch.randn(5, 2)
    pairs = make_pairs(model, noise, 6)
    assert torch.equal(pairs.noise, noise)
    assert torch.equal(pairs.sample, model.sample(noise, 6))
    assert pairs.start.tolist() == [1.0] * 5 and pairs.end.tolist() == [0.0] * 5


def test_loss_against_a_loop():
    for kind in KINDS:
        model = Diffusion(PointNetwork(2, width=8).double(), vp_schedule(), kind)
        sample, noise = torch.randn(2, 4, 2, dtype=torch.float64)
        t = torch.rand(4, dtype=torch.float64)
        found = model.losses(sample, noise, t).detach()
        for i in range(4):
            alpha, sigma = model.schedule.alpha(t[i]), model.schedule.sigma(t[i])
            out = model.network((alpha * sample[i] + sigma * noise[i])[None], t[i : i + 1])[0]
            target = {"noise": noise, "sample": sample, "velocity": sample - noise}[kind][i]
            assert float(found[i]) == pytest.approx(float((out - target).detach().square().mean()))


def test_training_leaves_the_given_model_alone_and_is_seeded():
    model = Diffusion(PointNetwork(2, width=8), vp_schedule())
    before = copy.deepcopy(model.network.state_dict())
    data = torch.randn(50, 2)
    one, two = (train(model, data, steps=5, batch=16, seed=3) for _ in range(2))
    for name, value in before.items():
        assert torch.equal(model.network.state_dict()[name], value)
        assert torch.equal(one.network.state_dict()[name], two.network.state_dict()[name])
    assert any(
        not torch.equal(one.network.state_dict()[name], value) for name, value in before.items()
    )


def test_one_pair_is_learned_as_a_first_order_path():
    """With a single trajectory nothing crosses it, so retraining must reach the exact property."""
    schedule = vp_schedule()
    pairs = Pairs(
        torch.tensor([[1.0, -0.5]]), torch.tensor([[0.3, 0.8]]), torch.ones(1), torch.zeros(1)
    )
    model = Diffusion(PointNetwork(2, width=32, layers=2), schedule)
    trained = rectify(model, pairs, steps=400, batch=64, lr=3e-3, average=0.9)
    alpha, sigma = schedule.at(torch.ones(1), pairs.sample)
    start = alpha * pairs.sample + sigma * pairs.noise
    assert first_order_defect(trained, start, 20) < 0.05 * first_order_defect(model, start, 20)
    torch.testing.assert_close(trained.sample(start, 1), pairs.sample, atol=0.3, rtol=0.0)


def test_rectifying_two_blobs_shortens_sampling():
    generator = torch.Generator().manual_seed(0)
    sign = torch.randint(2, (2000, 1), generator=generator) * 2.0 - 1.0
    data = sign + 0.1 * torch.randn(2000, 1, generator=generator)
    model = train(
        Diffusion(PointNetwork(1, width=32, layers=2), vp_schedule()), data, steps=500, seed=1
    )
    pairs = make_pairs(model, torch.randn(2000, 1, generator=generator), 50)
    rectified = rectify(model, pairs, steps=500, seed=2)
    fresh = torch.randn(2000, 1, generator=generator)
    before, after = (sliced_wasserstein(m.sample(fresh, 1), data) for m in (model, rectified))
    assert after < 0.7 * before
    assert first_order_defect(rectified, fresh, 20) < 0.3 * first_order_defect(model, fresh, 20)


def test_distillation_keeps_a_model_that_is_already_consistent():
    model = Diffusion(Constant(), vp_schedule())
    student = distil(model, torch.randn(100, 2, dtype=torch.float64), steps=20, batch=32)
    # Gradients are rounding only, which Adam enlarges a little.
    torch.testing.assert_close(student.network.noise, model.network.noise, atol=1e-4, rtol=0.0)


def test_distillation_improves_one_step():
    generator = torch.Generator().manual_seed(3)
    sign = torch.randint(2, (2000, 1), generator=generator) * 2.0 - 1.0
    data = sign + 0.1 * torch.randn(2000, 1, generator=generator)
    model = train(
        Diffusion(PointNetwork(1, width=32, layers=2), vp_schedule()), data, steps=500, seed=1
    )
    student = distil(model, data, steps=400, lr=1e-3, seed=4)
    fresh = torch.randn(2000, 1, generator=generator)
    before, after = (sliced_wasserstein(m.sample(fresh, 1), data) for m in (model, student))
    assert after < 0.8 * before


def bad_model() -> Diffusion:
    return Diffusion(PointNetwork(2, width=8), vp_schedule())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Diffusion(nn.Identity(), vp_schedule(), "score"), "'score'"),
        (lambda: bad_model().sample(torch.zeros(2, 2), 0), "at least one step"),
        (lambda: bad_model().sample(torch.zeros(2, 2), 1, start=0.5, end=0.5), "end < start"),
        (lambda: train(bad_model(), torch.zeros(0, 2), steps=1), "at least one sample"),
        (lambda: train(bad_model(), torch.zeros(3, 2), steps=0), "one step"),
        (lambda: train(bad_model(), torch.zeros(3, 2), steps=1, at_start=2.0), "at_start"),
        (lambda: make_phases(bad_model(), torch.zeros(3, 2), phases=0, steps=1), "one phase"),
        (lambda: first_order_defect(bad_model(), torch.zeros(3, 2), 1), "two steps"),
        (lambda: distil(bad_model(), torch.zeros(3, 2), steps=1, intervals=0), "one interval"),
    ],
)
def test_bad_input_is_explained(call, message: str):
    with pytest.raises(DiffusionError, match=message):
        call()
