"""Compares each method with a reference implementation of its paper in float64.

Methods are optimised for speed: packed, in place and shared. A reference consists of simple loops,
so it is easy to verify. The contract runs both on :class:`World`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from anyorder.optimizer import Optimizer
from anyorder.points.directions import Seeded

#: Float64 arrays by parameter name.
Values = dict[str, NDArray[np.float64]]
#: Steps of the two runs that are compared.
STEPS = 20


class World:
    """A nonlinear function that couples a kernel, a matrix, a vector and a scalar.

    References evaluate it at named arrays; evaluations are not counted.
    """

    #: The parameters, in order.
    shapes: ClassVar[Mapping[str, tuple[int, ...]]] = {
        "kernel": (3, 2, 2),
        "matrix": (4, 3),
        "vector": (5,),
        "number": (),
    }

    def start(self) -> Values:
        """The fixed initial values of runs."""
        generator = np.random.default_rng(5)
        return {name: np.array(generator.normal(size=s)) for name, s in self.shapes.items()}

    def loss(self, at: Mapping[str, Tensor]) -> Tensor:
        """The function of tensors."""
        kernel, matrix, vector, number = (at[name] for name in self.shapes)
        powers = torch.stack([(t**4).sum() / 4 for t in (kernel, matrix, vector, number)]).sum()
        gap = matrix.sum() - vector.sum() + number
        return powers + 3 * (vector**2).sum() + kernel.sum() * number / 2 + gap**2 / 2

    def joined(self, values: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
        """Concatenate all arrays."""
        return np.concatenate([np.ravel(values[name]) for name in self.shapes])

    def parted(self, joined: NDArray[np.float64]) -> Values:
        """Split the result of :meth:`joined` into arrays."""
        ends = np.cumsum([math.prod(shape) for shape in self.shapes.values()])
        pieces = zip(self.shapes.items(), np.split(joined, ends[:-1]), strict=True)
        return {name: piece.reshape(shape) for (name, shape), piece in pieces}

    def value(self, at: Mapping[str, NDArray[np.float64]]) -> float:
        """The function at ``at``."""
        return self.loss(_tensors(at)).item()

    def gradient(self, at: Mapping[str, NDArray[np.float64]]) -> Values:
        """The gradient at ``at``."""
        tensors = _tensors(at)
        found = torch.autograd.grad(self.loss(tensors), list(tensors.values()))
        return _arrays(dict(zip(tensors, found, strict=True)))

    def estimate(
        self,
        at: Mapping[str, NDArray[np.float64]],
        seed: int,
        step: int,
        *,
        directions: int = 1,
        eps: float = 1e-3,
        keep: Mapping[str, NDArray[np.bool_]] | None = None,
    ) -> Values:
        """The mean of two-sided slopes times Gaussian directions at ``at`` (n-SPSA), by loops.

        Args:
            at: the point.
            seed: of the run.
            step: number of the step.
            directions: number of directions.
            eps: size of the perturbation.
            keep: masks of the directions.
        """
        found = {name: np.zeros_like(value) for name, value in at.items()}
        for index in range(directions):
            direction = Seeded(seed, step, index)
            z = {
                name: direction.tensor(name, torch.from_numpy(np.array(value))).numpy()
                * (1.0 if keep is None else keep[name])
                for name, value in at.items()
            }
            ahead = self.value({name: at[name] + eps * z[name] for name in at})
            behind = self.value({name: at[name] - eps * z[name] for name in at})
            for name in at:
                found[name] += (ahead - behind) / (2 * eps) * z[name] / directions
        return found

    def product(
        self, at: Mapping[str, NDArray[np.float64]], along: Mapping[str, NDArray[np.float64]]
    ) -> Values:
        """The Hessian at ``at`` times ``along``."""
        tensors = _tensors(at)
        inputs = list(tensors.values())
        slopes = torch.autograd.grad(self.loss(tensors), inputs, create_graph=True)
        found = torch.autograd.grad(slopes, inputs, [torch.from_numpy(along[n]) for n in tensors])
        return _arrays(dict(zip(tensors, found, strict=True)))


def _tensors(values: Mapping[str, NDArray[np.float64]]) -> dict[str, Tensor]:
    return {n: torch.from_numpy(np.array(v)).requires_grad_() for n, v in values.items()}


def _arrays(tensors: Mapping[str, Tensor]) -> Values:
    return {name: np.array(t.detach().numpy()) for name, t in tensors.items()}


class ReferenceContract:
    """Test against :meth:`reference`; part of the contract.

    Attributes:
        reference_settings: settings for the two runs, each added to ``options``. A method with
            weight decay must include one with ``weight_decay``.
    """

    method: ClassVar[type[Optimizer]]
    options: ClassVar[dict[str, Any]] = {}
    reference_settings: ClassVar[Sequence[Mapping[str, Any]]] = ({},)

    def make(self, params: Any, **options: Any) -> Optimizer:
        """Return an optimizer with the settings of the contract."""
        raise NotImplementedError

    def step(self, optimizer: Optimizer, closure: Any) -> Tensor | None:
        """Take one step, with the closure in the form that the method needs."""
        raise NotImplementedError

    def reference(
        self, values: Values, world: World, steps: int, options: Mapping[str, Any]
    ) -> Values:
        """Return the parameters after ``steps`` steps of the paper's formulas from ``values``.

        Write it from the paper, in plain Python and NumPy, and import nothing from the method. Take
        random directions from :class:`~anyorder.points.directions.Seeded`.

        Args:
            values: the parameters at the start; they may be changed in place.
            world: evaluates values, gradients and curvature.
            steps: number of steps.
            options: the value of every hyper-parameter, and of ``seed``.
        """
        pytest.fail(
            f"{type(self).__name__} has no reference: write reference(self, values, world, steps, "
            "options) with the paper's formulas as plain loops; see docs/writing-a-method.md"
        )

    def test_equals_its_reference(self) -> None:
        """A run in float64 equals the paper's formulas, with each of the settings."""
        hypers = self.method.hypers
        defaults = {"seed": 0, **{name: hyper.default for name, hyper in hypers.items()}}
        decay = any(setting.get("weight_decay") for setting in self.reference_settings)
        assert decay or "weight_decay" not in hypers, "reference_settings: add a weight_decay"
        for setting in self.reference_settings:
            world = World()
            start = world.start()
            params = {name: nn.Parameter(torch.from_numpy(v.copy())) for name, v in start.items()}
            optimizer = self.make(params.items(), **setting)
            for _ in range(STEPS):
                self.step(optimizer, lambda world=world, params=params: world.loss(params))
            with optimizer.answer():
                ends = {name: p.detach().numpy().copy() for name, p in params.items()}
            options = {**defaults, **self.options, **setting}
            expected = self.reference(world.start(), world, STEPS, options)
            for name in params:
                where = f"{name} after {STEPS} steps with {dict(setting)}"
                found = ends[name]
                assert not np.array_equal(found, start[name]), f"unmoved: {where}"
                np.testing.assert_allclose(
                    found, expected[name], rtol=1e-6, atol=1e-8, err_msg=where
                )
