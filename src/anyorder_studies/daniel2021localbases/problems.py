"""Five small families of simulations with strengths over two decades and both signs.

Each function draws ``n`` cases and returns the solutions (n, times, d) and the standardised inputs
(n, p), which are known before the simulation. With ``even=True`` all cases have the same strength
and sign, to which the angle is invariant and the Euclidean distance is not.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_banded  # pyright: ignore[reportMissingTypeStubs, reportUnknownVariableType]

Array = NDArray[np.float64]


class Family(Protocol):
    """Draws cases of one kind of simulation."""

    def __call__(
        self, n: int, rng: np.random.Generator, *, even: bool = False
    ) -> tuple[Array, Array]:
        """Solutions (n, times, d) and standardised inputs (n, p) of ``n`` cases."""
        ...


def pulses(n: int, rng: np.random.Generator, *, even: bool = False) -> tuple[Array, Array]:
    """Gaussian pulses with random position and width on 200 points of [0, 1]."""
    x = np.linspace(0.0, 1.0, 200)
    place, width = rng.uniform(0.1, 0.9, n), rng.uniform(0.02, 0.06, n)
    size, sign = _strength(n, rng, even)
    fields = (size * sign)[:, None] * np.exp(
        -0.5 * np.square((x - place[:, None]) / width[:, None])
    )
    return fields[:, None, :], _standard(place, width, np.log10(size), sign)


def poisson(n: int, rng: np.random.Generator, *, even: bool = False) -> tuple[Array, Array]:
    """Steady heat on a square with cold walls and one hot or cold spot, 24 x 24 inner points.

    Solves ``-laplace(u) = q exp(-|x - c|^2 / (2 w^2))`` by the five-point stencil in its sine
    basis.
    """
    points = 24
    h = 1.0 / (points + 1)
    grid = np.arange(1, points + 1) * h
    centre, width = rng.uniform(0.1, 0.9, (n, 2)), rng.uniform(0.03, 0.08, n)
    size, sign = _strength(n, rng, even)
    squares = np.square(grid[None, :, None] - centre[:, 0, None, None]) + np.square(
        grid[None, None, :] - centre[:, 1, None, None]
    )
    source = (size * sign)[:, None, None] * np.exp(-0.5 * squares / np.square(width)[:, None, None])
    eigen = (2.0 - 2.0 * np.cos(np.pi * grid)) / h**2
    # Columns are the stencil's eigenvectors; the matrix is symmetric and its own inverse.
    sines = np.sqrt(2.0 * h) * np.sin(np.pi * np.outer(grid, np.arange(1, points + 1)))
    spectrum = sines @ source @ sines / (eigen[:, None] + eigen[None, :])
    fields = sines @ spectrum @ sines
    inputs = _standard(centre[:, 0], centre[:, 1], width, np.log10(size), sign)
    return fields.reshape(n, 1, points * points), inputs


def plume(n: int, rng: np.random.Generator, *, even: bool = False) -> tuple[Array, Array]:
    """A substance from a point source that is advected, diffuses and decays, on 200 points.

    Solves ``-D u'' + b u' + r u = q exp(-(x - c)^2 / (2 w^2))`` on [0, 1] with zero ends and
    upwind differences; ``c``, the wind ``b`` and the strength ``q`` vary.
    """
    points, diffusion, decay, width = 200, 0.02, 5.0, 0.02
    h = 1.0 / (points + 1)
    x = np.arange(1, points + 1) * h
    place, wind = rng.uniform(0.1, 0.9, n), rng.uniform(-2.0, 2.0, n)
    size, sign = _strength(n, rng, even)
    fields = np.empty((n, 1, points))
    for i in range(n):
        source = size[i] * sign[i] * np.exp(-0.5 * np.square((x - place[i]) / width))
        bands = np.empty((3, points))
        bands[0] = -diffusion / h**2 + min(wind[i], 0.0) / h
        bands[1] = 2.0 * diffusion / h**2 + abs(wind[i]) / h + decay
        bands[2] = -diffusion / h**2 - max(wind[i], 0.0) / h
        fields[i, 0] = solve_banded((1, 1), bands, source)
    return fields, _standard(place, wind, np.log10(size), sign)


def heat(n: int, rng: np.random.Generator, *, even: bool = False) -> tuple[Array, Array]:
    """A hot spot that diffuses on a line, 8 times and 160 points, in closed form.

    With spot width ``w`` and diffusivity ``a``, the width after time ``t`` is
    ``sqrt(w^2 + 2 a t)`` and the total heat is constant.
    """
    x, times = np.linspace(0.0, 1.0, 160), np.linspace(0.0, 1.0, 8)
    place, width = rng.uniform(0.1, 0.9, n), rng.uniform(0.02, 0.05, n)
    diffusivity = rng.uniform(0.0002, 0.002, n)
    size, sign = _strength(n, rng, even)
    spread = np.sqrt(np.square(width)[:, None] + 2.0 * diffusivity[:, None] * times)
    height = (size * sign * width)[:, None] / spread
    fields = height[:, :, None] * np.exp(
        -0.5 * np.square((x - place[:, None, None]) / spread[:, :, None])
    )
    return fields, _standard(place, width, diffusivity, np.log10(size), sign)


def burgers(n: int, rng: np.random.Generator, *, even: bool = False) -> tuple[Array, Array]:
    """Pulses that steepen into moving fronts: viscous Burgers, 8 times, 128 periodic points.

    Solves ``u_t + (u^2 / 2)_x = nu u_xx`` by the local Lax-Friedrichs scheme up to t = 0.4.
    """
    points, viscosity, end, kept = 128, 0.002, 0.4, 8
    h = 1.0 / points
    x = np.arange(points) * h
    place, width = rng.uniform(0.0, 1.0, n), rng.uniform(0.03, 0.08, n)
    size, sign = _strength(n, rng, even)
    size = 0.2 * size
    gap = np.abs(x - place[:, None])
    u = (size * sign)[:, None] * np.exp(
        -0.5 * np.square(np.minimum(gap, 1.0 - gap) / width[:, None])
    )
    per_output = int(np.ceil(end / (kept - 1) / (0.4 * h / 2.0)))
    step = end / (kept - 1) / per_output
    stored = [u]
    for _ in range(kept - 1):
        for _ in range(per_output):
            right = np.roll(u, -1, axis=1)
            speed = np.maximum(np.abs(u), np.abs(right))
            flux = 0.25 * (u * u + right * right) - 0.5 * speed * (right - u)
            flux = flux - viscosity * (right - u) / h
            u = u - step / h * (flux - np.roll(flux, 1, axis=1))
        stored.append(u)
    angle = 2.0 * np.pi * place
    inputs = _standard(np.cos(angle), np.sin(angle), width, np.log10(size), sign)
    return np.stack(stored, axis=1), inputs


FAMILIES: dict[str, Family] = {
    "pulses": pulses,
    "poisson": poisson,
    "plume": plume,
    "heat": heat,
    "burgers": burgers,
}


def _strength(n: int, rng: np.random.Generator, even: bool) -> tuple[Array, Array]:
    """Random signs and log-uniform sizes over two decades around 1; all 1 if ``even``."""
    if even:
        return np.ones(n), np.ones(n)
    return 10.0 ** rng.uniform(-1.0, 1.0, n), rng.choice([-1.0, 1.0], n)


def _standard(*columns: Array) -> Array:
    table = np.stack([column for column in columns if column.std() > 0.0], axis=1)
    return (table - table.mean(axis=0)) / table.std(axis=0)
