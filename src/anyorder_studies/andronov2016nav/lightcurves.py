"""Light curves: reads data, and simulates two discs that eclipse each other."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anyorder.errors import AnyOrderError

Array = NDArray[np.float64]

# Number of concentric discs, in equal steps of area, that model limb darkening.
RINGS = 24


class LightCurveError(AnyOrderError, ValueError):
    """A light curve or its model is invalid."""


@dataclass(frozen=True)
class LightCurve:
    """Brightness over phase (or time).

    Args:
        phase: Phase in periods, or time; shape (n,).
        magnitude: Brightness in magnitudes (fainter is larger); shape (n,).
        error: Standard errors of the magnitudes, positive; shape (n,).

    Raises:
        LightCurveError: If shapes differ, a value is not finite or an error is not positive.
    """

    phase: Array
    magnitude: Array
    error: Array

    def __post_init__(self) -> None:
        """Check that the curve can be fitted."""
        shapes = {self.phase.shape, self.magnitude.shape, self.error.shape}
        if len(shapes) != 1 or self.phase.ndim != 1:
            raise LightCurveError(
                f"expected phase, magnitude and error of one length, got shapes "
                f"{self.phase.shape}, {self.magnitude.shape} and {self.error.shape}"
            )
        if not all(bool(np.isfinite(a).all()) for a in (self.phase, self.magnitude, self.error)):
            raise LightCurveError("expected finite numbers: remove missing observations first")
        if bool((self.error <= 0).any()):
            raise LightCurveError("expected positive errors; use equal ones where they are unknown")

    def __len__(self) -> int:
        """Number of observations."""
        return self.phase.size

    def pick(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> LightCurve:
        """Select observations by a mask or by indices."""
        return LightCurve(self.phase[chosen], self.magnitude[chosen], self.error[chosen])

    @classmethod
    def from_flux(cls, phase: Array, flux: Array, flux_error: Array) -> LightCurve:
        """Convert relative fluxes to magnitudes, ``-2.5 log10(flux)``, with first-order errors.

        Raises:
            LightCurveError: If a flux is not positive.
        """
        if bool((flux <= 0).any()):
            raise LightCurveError("expected positive fluxes: a magnitude needs a logarithm")
        scale = 2.5 / math.log(10.0)
        return cls(phase, -scale * np.log(flux), scale * flux_error / flux)

    @classmethod
    def read(cls, path: Path) -> LightCurve:
        """Read a CSV file with the header ``phase,flux,flux_err``.

        Raises:
            LightCurveError: If the file is missing or has other columns.
        """
        try:
            with path.open(encoding="utf-8") as file:
                header = file.readline().strip()
                table = np.loadtxt(file, delimiter=",", ndmin=2)
        except (OSError, ValueError) as error:
            raise LightCurveError(f"expected a CSV file of numbers: {error}") from error
        if header != "phase,flux,flux_err" or table.shape[1] != 3:
            raise LightCurveError(f"expected the header phase,flux,flux_err, got {header!r}")
        return cls.from_flux(table[:, 0], table[:, 1], table[:, 2])


def overlap(distance: Array, first: float, second: float) -> Array:
    """Overlap area of two discs.

    Args:
        distance: Distances of the centres, shape (n,).
        first: Radius of one disc.
        second: Radius of the other.

    Returns:
        Areas, shape (n,): 0 if disjoint, the area of the smaller disc if it is covered.
    """
    small, large = min(first, second), max(first, second)
    # Between the two limits the lens is the sum of two circular segments.
    d = np.clip(distance, large - small + 1e-15, small + large)
    cosine_small = np.clip((d**2 + small**2 - large**2) / (2 * d * small), -1.0, 1.0)
    cosine_large = np.clip((d**2 + large**2 - small**2) / (2 * d * large), -1.0, 1.0)
    kite = np.sqrt(
        np.clip((small + large + d) * (small + large - d) * (d + small - large), 0.0, None)
        * (d - small + large)
    )
    lens = small**2 * np.arccos(cosine_small) + large**2 * np.arccos(cosine_large) - kite / 2
    lens = np.where(distance <= large - small, math.pi * small**2, lens)
    return np.where(distance >= large + small, 0.0, lens)


def _area(radius: float) -> Array:
    return np.asarray(math.pi * radius**2)


@dataclass(frozen=True)
class TwoDiscs:
    """Two stars, modelled as discs, on a circular orbit of radius 1.

    Args:
        first: Radius of the star that is behind at phase 0.
        second: Radius of the other star.
        brightness: Surface brightness of the second star; the first has 1.
        inclination: Inclination of the orbit in degrees; 90 is edge-on.
        limb: Linear limb darkening of both: the brightness at the edge of a disc is ``1 - limb``
            times that at its center; 0 for uniform discs.
        ellipticity: Half-amplitude in magnitudes of the variation outside eclipses that elongated
            stars cause, brightest between the eclipses.
    """

    first: float
    second: float
    brightness: float
    inclination: float = 90.0
    limb: float = 0.0
    ellipticity: float = 0.0

    @property
    def half_width(self) -> float:
        """Half-width of the eclipses in periods, from first contact to mid-eclipse."""
        tilt = math.cos(math.radians(self.inclination)) ** 2
        sine = math.sqrt(((self.first + self.second) ** 2 - tilt) / (1.0 - tilt))
        return math.asin(min(1.0, sine)) / (2.0 * math.pi)

    def magnitude(self, phase: Array) -> Array:
        """Brightness in magnitudes at phases; the mean level outside eclipses is 0."""
        angle = 2.0 * math.pi * phase
        tilt = math.cos(math.radians(self.inclination)) ** 2
        distance = np.sqrt(np.sin(angle) ** 2 + tilt * np.cos(angle) ** 2)
        front = np.cos(angle) > 0
        hidden = np.where(
            front,
            self._light(self.first, lambda r: overlap(distance, r, self.second)),
            self.brightness * self._light(self.second, lambda r: overlap(distance, r, self.first)),
        )
        whole = float(
            self._light(self.first, _area) + self.brightness * self._light(self.second, _area)
        )
        flux = 1.0 - hidden / whole
        return -2.5 * np.log10(flux) + self.ellipticity * np.cos(2.0 * angle)

    def _light(self, radius: float, area: Callable[[float], Array]) -> Array:
        """Light from the visible area of each concentric disc of a star.

        A limb-darkened star is a stack of uniform discs. Each adds the difference in brightness
        between its edge and that of the next larger disc.
        """
        if self.limb == 0.0:
            return area(radius)
        edges = np.sqrt((np.arange(RINGS) + 1.0) / RINGS)
        middles = np.sqrt((np.arange(RINGS) + 0.5) / RINGS)
        bright = 1.0 - self.limb * (1.0 - np.sqrt(1.0 - middles**2))
        layers = bright - np.append(bright[1:], 0.0)
        return sum(
            (layer * area(radius * edge) for layer, edge in zip(layers, edges, strict=True)),
            start=np.zeros(()),
        )

    def observe(self, number: int, noise: float, seed: int) -> LightCurve:
        """Simulate observations at random phases with Gaussian noise.

        Args:
            number: Number of observations.
            noise: Standard deviation of the noise in magnitudes.
            seed: Seed of phases and noise.
        """
        rng = np.random.default_rng([seed, 131])
        phase = np.sort(rng.random(number))
        magnitude = self.magnitude(phase) + noise * rng.standard_normal(number)
        return LightCurve(phase, magnitude, np.full(number, noise))
