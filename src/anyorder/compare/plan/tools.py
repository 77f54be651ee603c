"""Optimizers of scipy, Optuna, nevergrad and pycma, which run their own loop.

``scipy:L-BFGS-B``, ``optuna:TPESampler``, ``nevergrad:OnePlusOne`` and ``cma:CMAEvolutionStrategy``
are resolved here; :mod:`anyorder.compare.run.loops` runs them.
"""

from __future__ import annotations

import difflib
import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any, Literal

from anyorder.errors import AnyOrderError
from anyorder.extras import MissingExtraError, require
from anyorder.hyper import refuse_unknown

Use = Literal["value", "grad", "both", "hessian"]


class ToolError(AnyOrderError, ValueError):
    """An optimizer of another library that cannot be used."""


@dataclass(frozen=True)
class Tool:
    """One optimizer of such a library.

    Attributes:
        library: its prefix, such as ``scipy``.
        name: its name in the library.
        version: name and version of the library.
        path: its full name in the library.
        uses: ``value``; ``grad`` (the loss and its gradient together); ``both`` (the same, and
            products with the Hessian); ``hessian`` (losses alone, gradients, and these products).
        limit: maximum number of parameters; None: no limit.
        why: reason for the limit.
        defaults: options and their defaults, as far as they are known.
        main: the option that is tuned, if any.
        ranks: whether it only uses the order of the losses of a step.
        documented: the object with its documentation.
        accepts: checks options.
    """

    library: str
    name: str
    version: str
    path: str
    uses: Use = "value"
    limit: int | None = None
    why: str = ""
    defaults: dict[str, Any] = field(default_factory=dict[str, Any])
    main: str | None = None
    ranks: bool = False
    documented: Any = None
    accepts: Callable[[Mapping[str, Any]], None] = field(
        default=lambda options: None, compare=False, repr=False
    )

    @property
    def order(self) -> int:
        """0 (values), 1 (gradients) or 2 (curvature)."""
        return {"value": 0, "grad": 1, "both": 2, "hessian": 2}[self.uses]

    @property
    def needs(self) -> list[str]:
        """The kinds of information it needs."""
        kinds = {"value": ["value"], "grad": ["grad"], "both": ["grad", "hessian"]}
        return kinds.get(self.uses, ["grad", "hessian", "value"])


def find(spec: str) -> Tool | None:
    """Return the tool of a spec such as ``scipy:CG``; None if the spec is something else.

    Raises:
        ToolError: the library is not installed or has no such optimizer.
    """
    library, colon, name = spec.partition(":")
    if not colon or library not in LIBRARIES:
        return None
    try:
        return LIBRARIES[library](name)
    except MissingExtraError as error:
        raise ToolError(f"{spec}: {error}") from error


# --- scipy -------------------------------------------------------------------------------------

_SQUARE = "it keeps a square matrix"
#: Methods of ``scipy.optimize.minimize``: what they use, and their maximum number of parameters.
#: Not among them: dogleg and trust-exact (need the whole Hessian), SLSQP (its callback gets trial
#: points) and COBYQA (holds a lock of the process as long as it runs).
_SCIPY: dict[str, tuple[Use, int | None]] = {
    "Nelder-Mead": ("value", 1000),
    "Powell": ("value", 1000),
    "CG": ("grad", None),
    "BFGS": ("grad", 5000),
    "Newton-CG": ("both", None),
    "L-BFGS-B": ("grad", None),
    "TNC": ("grad", None),
    "COBYLA": ("value", 500),
    "trust-constr": ("hessian", 5000),
    "trust-ncg": ("hessian", None),
    "trust-krylov": ("hessian", None),
}


def _scipy(name: str) -> Tool:
    optimize = require("scipy.optimize")
    name = _known("scipy", name, _SCIPY)
    uses, limit = _SCIPY[name]

    def accepts(options: Mapping[str, Any]) -> None:
        """Minimise x^2 with these options, because scipy has no list of them."""
        given = dict(options)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                warnings.simplefilter("error", optimize.OptimizeWarning)
                optimize.minimize(
                    lambda x: float(x @ x), [1.0], method=name, tol=given.pop("tol", None),
                    options={**given, "disp": False}, **_derivatives(uses),
                )  # fmt: skip
        except Exception as error:
            raise ToolError(f"scipy:{name} does not accept {dict(options)}: {error}") from error

    return Tool(
        "scipy", name, _version("scipy"), f"scipy.optimize.minimize(method={name!r})", uses, limit,
        _SQUARE if limit else "", {}, documented=optimize.minimize, accepts=accepts,
    )  # fmt: skip


def _derivatives(uses: Use) -> dict[str, Any]:
    """Derivatives of x^2."""
    found: dict[str, Any] = {} if uses == "value" else {"jac": lambda x: 2 * x}
    return found | ({"hessp": lambda x, v: 2 * v} if uses in ("both", "hessian") else {})


# --- Ask and tell ------------------------------------------------------------------------------


def _optuna(name: str) -> Tool:
    samplers = require("optuna").samplers
    known = [each for each in samplers.__all__ if each.endswith("Sampler")]
    name = _known("optuna", name, known)
    cls = getattr(samplers, name)
    named = inspect.signature(cls).parameters.values()
    defaults = {
        p.name: p.default for p in named if p.default is not p.empty and p.name != "seed"
    }  # fmt: skip

    def accepts(options: Mapping[str, Any]) -> None:
        """Suggest a point: some samplers import their libraries only then."""
        refuse_unknown(options, {"radius": 1.0, **defaults}, f"optuna:{name}")
        try:
            make_sampler(cls, options, 0)
        except Exception as error:
            raise ToolError(f"optuna:{name} cannot be used: {error}") from error

    return Tool(
        "optuna", name, _version("optuna"), f"optuna.samplers.{name}", "value", 1000,
        "it draws every parameter separately", {"radius": 1.0, **defaults}, "radius",
        documented=cls, accepts=accepts,
    )  # fmt: skip


def make_sampler(cls: Any, options: Mapping[str, Any], seed: int) -> Any:
    """Return an Optuna sampler; its seed is set if it has one."""
    given = {name: value for name, value in options.items() if name != "radius"}
    if "seed" in inspect.signature(cls).parameters:
        given["seed"] = seed % 2**32
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # experimental samplers and options
        sampler = cls(**given)
    if cls.__name__ == "CmaEsSampler":
        require("cmaes", extra="blackbox")  # Optuna imports it at the second trial
    return sampler


#: Optimizers of nevergrad whose memory is proportional to the number of parameters.
_LEAN = ("OnePlusOne", "RandomSearch", "DE", "PSO")


def _nevergrad(name: str) -> Tool:
    optimizers = require("nevergrad", extra="blackbox").optimizers
    name = _known("nevergrad", name, optimizers.registry)
    limit = None if name in _LEAN else 5000

    def accepts(options: Mapping[str, Any]) -> None:
        refuse_unknown(options, {"sigma": 1.0}, f"nevergrad:{name}")

    return Tool(
        "nevergrad", name, _version("nevergrad"), f"nevergrad.optimizers.registry[{name!r}]",
        "value", limit, "it may keep a square matrix" if limit else "", {"sigma": 1.0}, "sigma",
        documented=optimizers.registry[name], accepts=accepts,
    )  # fmt: skip


def _cma(name: str) -> Tool:
    cma = require("cma", extra="blackbox")
    name = _known("cma", name, ["CMAEvolutionStrategy"])

    def accepts(options: Mapping[str, Any]) -> None:
        refuse_unknown(options, {"sigma0": 0.1, **cma.CMAOptions.defaults()}, f"cma:{name}")

    return Tool(
        "cma", name, _version("cma"), f"cma.{name}", "value", 5000, _SQUARE, {"sigma0": 0.1},
        "sigma0", ranks=True, documented=cma.CMAEvolutionStrategy, accepts=accepts,
    )  # fmt: skip


#: Resolves the part of a spec after the colon, by the part before it.
LIBRARIES: dict[str, Callable[[str], Tool]] = {
    "scipy": _scipy,
    "optuna": _optuna,
    "nevergrad": _nevergrad,
    "cma": _cma,
}


def _known(library: str, name: str, known: Any) -> str:
    """Return the name as the library spells it."""
    spelled = {each.lower(): each for each in known}
    if name.lower() in spelled:
        return spelled[name.lower()]
    close = difflib.get_close_matches(name.lower(), spelled, n=1)
    hint = f" Did you mean {spelled[close[0]]!r}?" if close else ""
    offers = ", ".join(known) if len(spelled) < 30 else f"{len(spelled)} in its registry"
    raise ToolError(f"no optimizer {name!r} of {library} can be compared.{hint} Known: {offers}")


def _version(library: str) -> str:
    return f"{library} {metadata.version(library)}"
