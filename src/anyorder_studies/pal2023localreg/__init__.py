"""Locally regularised neural differential equations (Pal et al., 2023)."""

from anyorder_studies.pal2023localreg.adjoint import solve_adjoint
from anyorder_studies.pal2023localreg.field import NetworkField
from anyorder_studies.pal2023localreg.solver import Solution, initial_step, rk_step, solve
from anyorder_studies.pal2023localreg.system import (
    History,
    LocalRegularizer,
    NeuralODE,
    local_error_penalty,
    train_regularized,
)
from anyorder_studies.pal2023localreg.tableaus import (
    BOSH3,
    DOPRI5,
    TABLEAUS,
    TSIT5,
    LocalRegError,
    Tableau,
)

__all__ = [
    "BOSH3",
    "DOPRI5",
    "TABLEAUS",
    "TSIT5",
    "History",
    "LocalRegError",
    "LocalRegularizer",
    "NetworkField",
    "NeuralODE",
    "Solution",
    "Tableau",
    "initial_step",
    "local_error_penalty",
    "rk_step",
    "solve",
    "solve_adjoint",
    "train_regularized",
]
