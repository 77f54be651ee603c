"""The brightness of a double star: a small inverse problem with many local minima."""

from __future__ import annotations

import math
from functools import cached_property
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from anyorder.problems._data import data_files
from anyorder.problems._landscape import Point
from anyorder.problems._text import read
from anyorder.problems.base import (
    Problem,
    ProblemError,
    device_of,
    evaluating,
    generator,
    require_choice,
)

_FILES = {"tess": "tess.csv", "asas-sn": "asas_sn.csv"}
#: Each eclipse has a centre, and logarithms of half-width, depth and shape.
_PER_ECLIPSE, _COMMON = 4, 3


class _Curve(NamedTuple):
    """Phase in [0, 1), flux (about 1 outside eclipses) and its error, float64 of shape ``(n,)``."""

    phase: Tensor
    flux: Tensor
    error: Tensor


class Eclipses(Problem):
    r"""Fit two eclipses to the measured brightness of a double star: 11 parameters.

    The model at phase :math:`t` is

    .. math:: m(t) = a + b \cos 2 \pi t + c \cos 4 \pi t
              - \sum_{k=1}^2 d_k \exp(-(\Delta_k(t) / w_k)^{s_k}),

    with the distance :math:`\Delta_k` of the phase from the centre of eclipse :math:`k`, its
    half-width, depth and shape. The loss is the mean of :math:`\sqrt{1 + r^2} - 1` over the
    residuals :math:`r` in units of their error, which bounds the influence of outliers. The centres
    start at random phases, where an eclipse may see no data of its own: there are many local
    minima. Of every three measurements, one is for training, one for validation and one for the
    test. Everything is in float64 and the batch is the whole training part.

    The function is cheap and has few parameters, as black boxes often do. It is written in
    PyTorch, so methods that use gradients can take part.

    Args:
        star: ``"tess"`` (1,000 measurements) or ``"asas-sn"`` (1,612, with outliers).

    Raises:
        ProblemError: If an option has a wrong value, ``ANYORDER_DATA`` is not set, or the file is
            missing or has another form.
    """

    name = "eclipses"
    schedule: ClassVar[Literal["constant", "cosine"]] = "cosine"
    target = 0.3

    def __init__(self, *, star: str = "tess") -> None:
        """Check and store the options."""
        require_choice("star", star, tuple(_FILES), owner=self.name)
        self.star = star

    @cached_property
    def _parts(self) -> tuple[_Curve, _Curve, _Curve]:
        (path,) = data_files(self.name, "eclipsing_binary_light_curves", [_FILES[self.star]])
        header, *lines = read(path).split()
        try:
            table = torch.tensor(
                [[float(cell) for cell in line.split(",")] for line in lines], dtype=torch.float64
            )
        except ValueError as error:
            raise ProblemError(f"{path} is not a table of numbers: {error}.") from error
        if header != "phase,flux,flux_err" or table.ndim != 2 or table.shape[1] != 3:
            raise ProblemError(f"{path}: expected the columns phase,flux,flux_err, got {header!r}.")
        first, second, third = (_Curve(*table[start::3].T.contiguous()) for start in range(3))
        return first, second, third

    def build(self, seed: int) -> nn.Module:
        """Return the parameters: no variation, and eclipses at two random opposite phases."""
        centre = torch.rand((), dtype=torch.float64, generator=generator(self.name, seed))
        eclipses = [
            [centre + place, math.log(0.08), math.log(0.3), math.log(2.0)] for place in (0.0, 0.5)
        ]
        return Point(torch.tensor([1.0, 0.0, 0.0, *eclipses[0], *eclipses[1]], dtype=torch.float64))

    def batch(self, seed: int, step: int) -> _Curve:
        """Return the training part, for every seed and step."""
        return self._parts[0]

    def outputs(self, model: nn.Module, batch: _Curve) -> Tensor:
        """Return the residuals in units of their error, ``(n,)``."""
        return (_flux(model(), batch.phase) - batch.flux) / batch.error

    def criterion(self, outputs: Tensor, batch: _Curve) -> Tensor:
        """Return the mean robust loss of the residuals."""
        return _robust(outputs).mean()

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Return the loss on the validation part."""
        return {"loss": self._losses(model, self._parts[1]).mean().item()}

    def test_outputs(self, model: nn.Module) -> Tensor:
        """Return the loss of each measurement of the test part."""
        return self._losses(model, self._parts[2])

    def score(self, outputs: Tensor, rows: Tensor) -> dict[str, float]:
        """Return the loss on these measurements."""
        return {"loss": outputs[rows.to(outputs.device)].mean().item()}

    def _losses(self, model: nn.Module, part: _Curve) -> Tensor:
        device = device_of(model)
        with evaluating(model):
            return _robust(self.outputs(model, _Curve(*(each.to(device) for each in part))))


def _flux(x: Tensor, phase: Tensor) -> Tensor:
    """Return the flux of the model with these parameters."""
    turn = 2 * math.pi * phase
    flux = x[0] + x[1] * turn.cos() + x[2] * (2 * turn).cos()
    for eclipse in x[_COMMON:].split(_PER_ECLIPSE):
        width, depth, shape = eclipse[1:].exp()
        away = phase - eclipse[0]
        away = (away - away.round()).abs()  # phases 0 and 1 are the same
        # A power has no derivative at 0; the offset is far below the spacing of the phases.
        flux = flux - depth * (-((away / width + 1e-6) ** shape)).exp()
    return flux


def _robust(residuals: Tensor) -> Tensor:
    return (1 + residuals.square()).sqrt() - 1
