r"""Rectified diffusion: make the noise prediction constant along each trajectory.

With the form :math:`x_t = \alpha_t x_0 + \sigma_t\epsilon`, one step of the first-order solver
(DDIM) from time ``t`` to ``s`` is

.. math:: x_s = \alpha_s \hat x_0 + \sigma_s \hat\epsilon
              = \frac{\alpha_s}{\alpha_t} x_t
                + \Bigl(\sigma_s - \sigma_t\frac{\alpha_s}{\alpha_t}\Bigr)\hat\epsilon(x_t, t),

and it is exact for every ``t, s`` if and only if :math:`\hat\epsilon` is constant on the
trajectory. Retraining on pairs of a noise and the sample generated from this noise, with an
unchanged network, form and loss, achieves this; one step then replaces many.

Checked against the paper's text: equations 1 to 4, algorithms 1 to 4, sections 2.2 to 2.4; and
against the authors' training script (pairs are the solver's initial noise and its final sample).

References:
    F.-Y. Wang, L. Yang, Z. Huang, M. Wang, H. Li, "Rectified Diffusion: Straightness Is Not Your
    Need in Rectified Flow", ICLR 2025, arXiv:2410.07303.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from anyorder_studies.wang2024rectified.schedules import DiffusionError, Schedule

Prediction = Literal["noise", "sample", "velocity"]


class Diffusion:
    """A network with its form of diffusion and type of prediction.

    Args:
        network: Maps ``x`` (n, ...) and times (n,) in [0, 1] to a tensor like ``x``.
        schedule: The form of diffusion.
        prediction: Output of the network: ``"noise"``, ``"sample"``, or ``"velocity"``, the sample
            minus the noise.

    Raises:
        DiffusionError: If the type of prediction is unknown.
    """

    def __init__(
        self, network: nn.Module, schedule: Schedule, prediction: Prediction = "noise"
    ) -> None:
        if prediction not in get_args(Prediction):
            raise DiffusionError(
                f"expected prediction 'noise', 'sample' or 'velocity', got {prediction!r}"
            )
        self.network, self.schedule, self.prediction = network, schedule, prediction

    def predict(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The predicted sample and noise for ``x`` (n, ...) at times (n,)."""
        out = self.network(x, t)
        alpha, sigma = self.schedule.at(t, x)
        if self.prediction == "noise":
            return (x - sigma * out) / alpha, out
        if self.prediction == "sample":
            return out, (x - alpha * out) / sigma
        noise = (x - alpha * out) / (alpha + sigma)
        return noise + out, noise

    def losses(self, sample: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Mean squared error of the network's own prediction, one per sample (n,)."""
        alpha, sigma = self.schedule.at(t, sample)
        out = self.network(alpha * sample + sigma * noise, t)
        target = {"noise": noise, "sample": sample, "velocity": sample - noise}[self.prediction]
        return (out - target).square().flatten(1).mean(dim=1)

    def step(self, x: Tensor, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """One first-order step from times ``t`` to ``s`` (n,): the new ``x`` and the noise used."""
        sample, noise = self.predict(x, t)
        alpha, sigma = self.schedule.at(s, x)
        return alpha * sample + sigma * noise, noise

    @torch.no_grad()
    def sample(self, noise: Tensor, steps: int, *, start: float = 1.0, end: float = 0.0) -> Tensor:
        """Solve from ``start`` to ``end`` in equal first-order steps.

        Args:
            noise: State (n, ...) at ``start``.
            steps: Number of network evaluations, at least 1.
            start: Time of the initial state.
            end: Time of the returned state, below ``start``.

        Returns:
            State (n, ...) at ``end``.
        """
        return self.trajectory(noise, steps, start=start, end=end)[0][-1]

    @torch.no_grad()
    def trajectory(
        self, noise: Tensor, steps: int, *, start: float = 1.0, end: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """States (steps + 1, n, ...) and noise predictions (steps, n, ...) of a trajectory."""
        if steps < 1:
            raise DiffusionError(f"expected at least one step, got {steps}")
        if not 0.0 <= end < start <= 1.0:
            raise DiffusionError(f"expected 0 <= end < start <= 1, got {end} and {start}")
        # Computed in double precision, then cast: the last time must be exactly the end.
        times = torch.linspace(start, end, steps + 1, dtype=torch.float64).to(noise.dtype)
        states, predictions = [noise], list[Tensor]()
        for now, then in pairwise(times):
            x, predicted = self.step(states[-1], now.expand(len(noise)), then.expand(len(noise)))
            states.append(x)
            predictions.append(predicted)
        return torch.stack(states), torch.stack(predictions)


@dataclass(frozen=True)
class Pairs:
    """Samples matched with noises: each row is one trajectory, treated as first-order.

    On trajectory ``i`` the state at a time ``t`` between ``end[i]`` and ``start[i]`` is assumed to
    be ``alpha(t) sample[i] + sigma(t) noise[i]``.

    Args:
        sample: (n, ...).
        noise: (n, ...).
        start: Latest time of each row, (n,).
        end: Earliest time of each row, (n,).
    """

    sample: Tensor
    noise: Tensor
    start: Tensor
    end: Tensor

    def draw(self, batch: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Draw rows with replacement: sample, noise, end, start."""
        rows = torch.randint(len(self.sample), (batch,), generator=generator)
        return self.sample[rows], self.noise[rows], self.end[rows], self.start[rows]


def train(
    diffusion: Diffusion,
    data: Tensor | Pairs,
    *,
    steps: int,
    batch: int = 256,
    lr: float = 1e-3,
    at_start: float = 0.0,
    average: float = 0.999,
    seed: int = 0,
) -> Diffusion:
    """Train a copy of a model, on samples with independent noise or on pairs.

    The only difference between training a diffusion model and rectifying it is whether sample and
    noise are drawn independently or together. The returned network has the running average of the
    weights.

    Args:
        diffusion: The model to start from; it is not changed.
        data: Samples (n, ...), or pairs.
        steps: Number of Adam steps; the learning rate decays to zero along half a cosine.
        batch: Rows per step.
        lr: Initial learning rate.
        at_start: Fraction of the training times that are the latest time of their row, which a
            one-step sampler uses.
        average: Decay of the running average of the weights; 0 keeps the last weights.
        seed: Seed of all random numbers.

    Returns:
        The trained copy.

    Raises:
        DiffusionError: If a number is out of range or there is no data.
    """
    rows = len(data.sample) if isinstance(data, Pairs) else len(data)
    if rows == 0 or steps < 1 or batch < 1:
        raise DiffusionError("expected at least one sample, one step and one row per step")
    if not 0.0 <= at_start <= 1.0 or not 0.0 <= average < 1.0:
        raise DiffusionError(
            f"expected at_start in [0, 1] and average in [0, 1), got {at_start} and {average}"
        )
    generator = torch.Generator().manual_seed(seed)

    def loss(model: Diffusion) -> Tensor:
        if isinstance(data, Pairs):
            sample, noise, low, high = data.draw(batch, generator)
        else:
            sample = data[torch.randint(rows, (batch,), generator=generator)]
            noise = torch.randn(sample.shape, generator=generator, dtype=sample.dtype)
            low, high = sample.new_zeros(batch), sample.new_ones(batch)
        where = torch.rand(batch, generator=generator, dtype=sample.dtype)
        latest = torch.rand(batch, generator=generator, dtype=sample.dtype) < at_start
        t = torch.where(latest, high, low + (high - low) * where)
        return model.losses(sample, noise, t).mean()

    return _optimise(diffusion, loss, steps=steps, lr=lr, average=average)


def make_pairs(diffusion: Diffusion, noise: Tensor, steps: int) -> Pairs:
    """Match noises with the samples that a many-step solver generates from them.

    Args:
        diffusion: The trained model.
        noise: Standard normal (n, ...).
        steps: Steps of the solver; the paper uses 25 of a second-order one.
    """
    sample = diffusion.sample(noise, steps)
    times = torch.ones(len(noise), dtype=noise.dtype)
    return Pairs(sample, noise, times, torch.zeros_like(times))


def make_phases(
    diffusion: Diffusion, samples: Tensor, *, phases: int, steps: int, seed: int = 0
) -> Pairs:
    r"""Pairs for the phased variant: first-order only within each of several time segments.

    Noise is added to a real sample up to the end of a random segment ``(s, t)``, and the state is
    solved back to its beginning. The pair is that of a first-order path through both states,

    .. math:: \epsilon = \frac{\alpha_t x_s - \alpha_s x_t}{\alpha_t\sigma_s - \alpha_s\sigma_t},
              \qquad x_0 = \frac{\sigma_s x_t - \sigma_t x_s}{\alpha_t\sigma_s - \alpha_s\sigma_t},

    which is the paper's equation 4 without its division by ``alpha``. With one phase this joins the
    two ends of the whole path exactly.

    Args:
        diffusion: The trained model.
        samples: Real samples (n, ...).
        phases: Number of equal time segments ``M``; sampling then takes ``M`` steps.
        steps: Steps of the solver within a segment.
        seed: Seed of noises and segments.
    """
    if phases < 1 or steps < 1:
        raise DiffusionError(f"expected at least one phase and step, got {phases} and {steps}")
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(samples.shape, generator=generator, dtype=samples.dtype)
    which = torch.randint(phases, (len(samples),), generator=generator)
    found: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for phase in range(phases):
        rows = which == phase
        start, end = (phase + 1) / phases, phase / phases
        t = torch.full((int(rows.sum()),), start, dtype=samples.dtype)
        s = torch.full_like(t, end)
        alpha_t, sigma_t = diffusion.schedule.at(t, samples[rows])
        alpha_s, sigma_s = diffusion.schedule.at(s, samples[rows])
        x_t = alpha_t * samples[rows] + sigma_t * noise[rows]
        x_s = diffusion.sample(x_t, steps, start=start, end=end)
        scale = alpha_t * sigma_s - alpha_s * sigma_t
        path_noise = (alpha_t * x_s - alpha_s * x_t) / scale
        path_sample = (sigma_s * x_t - sigma_t * x_s) / scale
        found.append((path_sample, path_noise, t, s))
    sample, path, start_times, end_times = (torch.cat(part) for part in zip(*found, strict=True))
    return Pairs(sample, path, start_times, end_times)


def rectify(
    diffusion: Diffusion,
    pairs: Pairs,
    *,
    steps: int,
    batch: int = 256,
    lr: float = 1e-3,
    at_start: float = 0.25,
    average: float = 0.999,
    seed: int = 0,
) -> Diffusion:
    """Retrain a copy on matched pairs, everything else unchanged (the paper's algorithm 4).

    Args:
        diffusion: The trained model.
        pairs: From :func:`make_pairs`, or from :func:`make_phases` for the phased variant.
        steps: Number of Adam steps.
        batch: Rows per step.
        lr: Initial learning rate.
        at_start: Share of the training times put where few-step samplers ask (see :func:`train`).
        average: Decay of the running average of the weights.
        seed: Seed of all random numbers.
    """
    return train(
        diffusion,
        pairs,
        steps=steps,
        batch=batch,
        lr=lr,
        at_start=at_start,
        average=average,
        seed=seed,
    )


def distil(
    diffusion: Diffusion,
    samples: Tensor,
    *,
    steps: int,
    intervals: int = 20,
    batch: int = 256,
    lr: float = 3e-4,
    average: float = 0.99,
    seed: int = 0,
) -> Diffusion:
    """Consistency distillation: the predicted sample must agree along a trajectory.

    From a noised sample at time ``t`` the fixed model takes one step to the neighbouring time
    ``s``; the student's sample predicted at ``t`` is drawn to what its running average predicts at
    ``s`` (to the state itself at ``s = 0``). The paper does this after rectification, whose
    first-order trajectories make it easy.

    Args:
        diffusion: The model that makes the steps and that the student starts from.
        samples: Real samples (n, ...).
        steps: Number of Adam steps.
        intervals: Number of equal time intervals.
        batch: Rows per step.
        lr: Initial learning rate.
        average: Decay of the running average that sets the targets and is returned.
        seed: Seed of all random numbers.
    """
    if len(samples) == 0 or intervals < 1 or not 0.0 <= average < 1.0:
        raise DiffusionError("expected samples, at least one interval and average in [0, 1)")
    generator = torch.Generator().manual_seed(seed)
    target = copy.deepcopy(diffusion)

    def loss(model: Diffusion) -> Tensor:
        sample = samples[torch.randint(len(samples), (batch,), generator=generator)]
        noise = torch.randn(sample.shape, generator=generator, dtype=sample.dtype)
        index = torch.randint(1, intervals + 1, (batch,), generator=generator).to(sample.dtype)
        t, s = index / intervals, (index - 1) / intervals
        alpha, sigma = diffusion.schedule.at(t, sample)
        x = alpha * sample + sigma * noise
        with torch.no_grad():
            nearer, _ = diffusion.step(x, t, s)
            goal, _ = target.predict(nearer, s.clamp_min(1e-6))
            shape = (-1, *([1] * (x.dim() - 1)))
            goal = torch.where((index == 1).reshape(shape), nearer, goal)
        return (model.predict(x, t)[0] - goal).square().mean()

    return _optimise(diffusion, loss, steps=steps, lr=lr, average=average, follower=target)


def first_order_defect(diffusion: Diffusion, noise: Tensor, steps: int) -> float:
    """How far noise predictions are from constant along the model's own trajectories.

    Args:
        diffusion: The model.
        noise: Starting noises (n, ...).
        steps: Steps of the solver that follows the trajectory, at least 2.

    Returns:
        Variance of the prediction over the times of a trajectory, averaged over values and
        trajectories; 0 exactly when one step does the same as many.
    """
    if steps < 2:
        raise DiffusionError(f"expected at least two steps to compare, got {steps}")
    _, predictions = diffusion.trajectory(noise, steps)
    return float(predictions.var(dim=0, correction=0).mean())


def _optimise(
    diffusion: Diffusion,
    loss: Callable[[Diffusion], Tensor],
    *,
    steps: int,
    lr: float,
    average: float,
    follower: Diffusion | None = None,
) -> Diffusion:
    """Adam with a half cosine on a copy; returns the running average of its weights."""
    if steps < 1:
        raise DiffusionError(f"expected at least one step, got {steps}")
    student = copy.deepcopy(diffusion)
    kept = copy.deepcopy(diffusion) if follower is None else follower
    weights, averages = list(student.network.parameters()), list(kept.network.parameters())
    optimizer = torch.optim.Adam(weights, lr=lr, fused=True)
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for count in range(steps):
        optimizer.zero_grad()
        loss(student).backward()  # pyright: ignore[reportUnknownMemberType]
        optimizer.step()  # pyright: ignore[reportUnknownMemberType]
        fall.step()
        with torch.no_grad():
            # A young average must not remember the untrained start.
            decay = min(average, (1.0 + count) / (10.0 + count))
            for mean, weight in zip(averages, weights, strict=True):
                mean.lerp_(weight, 1.0 - decay)
    return kept
