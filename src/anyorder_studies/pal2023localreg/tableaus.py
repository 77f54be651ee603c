"""Embedded explicit Runge-Kutta pairs: two orders from the same evaluations."""

from __future__ import annotations

from dataclasses import dataclass

from anyorder.errors import AnyOrderError


class LocalRegError(AnyOrderError, ValueError):
    """A tableau, a solver setting or a state is invalid."""


@dataclass(frozen=True)
class Tableau:
    """Coefficients of an explicit pair whose last stage is the slope at the new state.

    Stage ``i`` is evaluated at ``t + c[i] h`` and ``z + h sum_j a[i][j] k_j``. The last row of
    ``a`` gives the new state, so its slope is reused in the next step.

    Args:
        name: Name for messages.
        order: Order of the new state.
        c: Nodes, one per stage.
        a: Rows below the diagonal, one per stage; the first is empty.
        error: Weights of the difference between the two orders, one per stage.
        stability: Extent of the stability region along the negative real axis, for the stiffness
            estimate.
    """

    name: str
    order: int
    c: tuple[float, ...]
    a: tuple[tuple[float, ...], ...]
    error: tuple[float, ...]
    stability: float

    def __post_init__(self) -> None:
        """Check that rows have matching lengths."""
        stages = len(self.c)
        fits = len(self.a) == stages == len(self.error)
        if not fits or any(len(row) != i for i, row in enumerate(self.a)) or self.c[-1] != 1.0:
            raise LocalRegError(
                f"{self.name}: expected as many rows and error weights as nodes, row i with i "
                "entries, and a last node of 1"
            )

    @property
    def b(self) -> tuple[float, ...]:
        """Weights of the new state, one per stage (the last is zero)."""
        return (*self.a[-1], 0.0)


# Tsitouras 2011, the solver of the paper's experiments; digits checked in its public Julia code.
TSIT5 = Tableau(
    "tsit5",
    5,
    (0.0, 0.161, 0.327, 0.9, 0.9800255409045097, 1.0, 1.0),
    (
        (),
        (0.161,),
        (-0.008480655492356989, 0.335480655492357),
        (2.8971530571054935, -6.359448489975075, 4.3622954328695815),
        (5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525),
        (
            5.86145544294642,
            -12.92096931784711,
            8.159367898576159,
            -0.071584973281401,
            -0.028269050394068383,
        ),
        (
            0.09646076681806523,
            0.01,
            0.4798896504144996,
            1.379008574103742,
            -3.290069515436081,
            2.324710524099774,
        ),
    ),
    (
        -0.00178001105222577714,
        -0.0008164344596567469,
        0.007880878010261995,
        -0.1447110071732629,
        0.5823571654525552,
        -0.45808210592918697,
        0.015151515151515152,
    ),
    3.5068,
)

# Dormand and Prince 1980.
DOPRI5 = Tableau(
    "dopri5",
    5,
    (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0),
    (
        (),
        (1 / 5,),
        (3 / 40, 9 / 40),
        (44 / 45, -56 / 15, 32 / 9),
        (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
        (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
        (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
    ),
    (
        71 / 57600,
        0.0,
        -71 / 16695,
        71 / 1920,
        -17253 / 339200,
        22 / 525,
        -1 / 40,
    ),
    3.3066,
)

# Bogacki and Shampine 1989.
BOSH3 = Tableau(
    "bosh3",
    3,
    (0.0, 1 / 2, 3 / 4, 1.0),
    ((), (1 / 2,), (0.0, 3 / 4), (2 / 9, 1 / 3, 4 / 9)),
    (-5 / 72, 1 / 12, 1 / 9, -1 / 8),
    2.5127,
)

TABLEAUS = {tableau.name: tableau for tableau in (TSIT5, DOPRI5, BOSH3)}
