"""Zeroth-order optimisation from four choices: law, difference, reducer and rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from anyorder.estimators.differences import OPTIONS, Differences
from anyorder.hyper import HyperError, hyper
from anyorder.methods._from_values import FromValues
from anyorder.rules import Rule
from anyorder.rules.adamw import ADAMW
from anyorder.rules.descent import DESCENT, HEAVY_BALL, SIGNS
from anyorder.rules.lion import SIGN as LION

#: The rules, and the settings that they read where an option is ``None``.
_RULES: dict[str, tuple[Rule, dict[str, Any]]] = {
    "sgd": (DESCENT, {}),
    "momentum": (HEAVY_BALL, {"momentum": 0.9, "dampening": 0.0, "nesterov": False}),
    "sign": (SIGNS, {}),
    "adamw": (ADAMW, {"betas": (0.9, 0.999), "eps": 1e-8}),
    "lion": (LION, {"betas": (0.9, 0.99)}),
}
#: Which rules use an option.
_USED = {
    "beta1": ("momentum", "adamw", "lion"),
    "beta2": ("adamw", "lion"),
    "adamw_eps": ("adamw",),
}
_RULE = hyper("sgd", choices=tuple(_RULES), doc="turns the estimate into an update")


def _reading_options(rule: Rule, defaults: Mapping[str, Any]) -> Rule:
    """A rule that reads the options of this method in place of its own."""

    def scalars(group: Mapping[str, Any], step: int) -> Mapping[str, float]:
        read = {**group, **defaults}
        beta1, beta2 = group["beta1"], group["beta2"]
        if group["adamw_eps"] is not None:
            read["eps"] = group["adamw_eps"]
        if "momentum" in defaults and beta1 is not None:
            read["momentum"] = beta1
        if "betas" in defaults:
            pairs = zip((beta1, beta2), defaults["betas"], strict=True)
            read["betas"] = tuple(default if own is None else own for own, default in pairs)
        return rule.scalars(read, step)

    return replace(rule, scalars=scalars, hypers={"rule": _RULE})


class ZerothOrder(FromValues):
    r"""Zeroth-order descent with any law of directions, difference and rule.

    .. math::
        s_i = \frac{f(x + \epsilon z_i) - f(x - \epsilon z_i)}{2 \epsilon}
        \quad \text{or} \quad \frac{f(x + \epsilon z_i) - f(x)}{\epsilon}, \qquad
        \hat g = \frac{1}{q} \sum_{i=1}^q s_i z_i

    and :math:`\hat g` is used like a gradient. For directions on the unit sphere the mean is
    multiplied by the number of parameters, and for coordinates it is a sum: the entries of the
    gradient at ``directions`` coordinates, different in each step; all of them if there are no
    more. The published methods of this family are presets; see the page on zeroth-order methods.

    The stored weights are never changed for an evaluation, in any dtype. An estimate is a sum of
    seeded directions; it is generated for a few parameters at a time.

    ``blocks`` perturbs one layer or module at a time, which has a lower variance. One block is
    perturbed and updated in each step, in turn: ``B`` steps with one batch are one Gauss-Seidel
    sweep over ``B`` blocks. With ``sweep="jacobi"`` a step evaluates all blocks at the same point.
    A layer is what precedes the first number in a parameter's name, with the number
    (``encoder.layer.3``); without a number it is the module.

    ``mask="small"`` keeps the smallest entries of each parameter, by thresholds from the first step
    (Sparse MeZO); ``mask="random"`` draws a new mask in each step. Entries outside the mask are
    neither perturbed nor changed by the estimate.

    State: that of the rule: none for ``sgd`` and ``sign``, one buffer per parameter for
    ``momentum`` and ``lion``, two for ``adamw``. Oracle calls per step: ``2 * directions`` values,
    or ``directions + 1`` with ``difference="forward"``; for ``sweep="jacobi"`` that many directions
    in each block. The returned loss is the mean of the values, or the loss at the current point.

    Departures from the papers: options that the other options leave without meaning raise an error.

    Example:
        >>> import torch
        >>> from anyorder.methods.zeroth_order import ZerothOrder
        >>> x = torch.nn.Parameter(torch.tensor([3.0, -1.0]))
        >>> optimizer = ZerothOrder([x], lr=0.5, law="coordinate", directions=2, rule="sign")
        >>> loss = optimizer.step(lambda: (x ** 2).sum())
        >>> x.tolist(), optimizer.calls.values
        ([2.5, -0.5], 4)

    References:
        Zhang et al. (2024), "Revisiting Zeroth-Order Optimization for Memory-Efficient LLM
        Fine-Tuning: A Benchmark", arXiv 2402.11592; Spall (1992); Chen et al. (2024), "DeepZero",
        arXiv 2310.02025, for coordinates.
    """

    estimator = Differences(*OPTIONS)
    rules: ClassVar[Mapping[str, tuple[Rule, ...]]] = {
        name: (_reading_options(*declared),) for name, declared in _RULES.items()
    }

    lr: float = hyper(
        1e-5,
        ge=0,
        search="log",
        low=1e-5,
        high=1e-1,
        unit="parameter / gradient",
        doc="learning rate",
    )
    beta1: float | None = hyper(
        None, ge=0, lt=1, doc="momentum factor or first decay rate (None: 0.9)"
    )
    beta2: float | None = hyper(
        None, ge=0, lt=1,
        doc="second decay rate (None: 0.999 for adamw, 0.99 for lion)",
    )  # fmt: skip
    adamw_eps: float | None = hyper(
        None, ge=0, unit="gradient", doc="added to AdamW's denominator (None: 1e-8)"
    )
    weight_decay: float = hyper(0.0, ge=0, unit="1 / step size", doc="weight decay")

    def check_group(self, group: dict[str, Any]) -> None:
        """Refuse options that the chosen rule does not use."""
        super().check_group(group)
        rule = group["rule"]
        for name, users in _USED.items():
            if group[name] is not None and rule not in users:
                raise HyperError(
                    f"{name}: only used with rule = {' or '.join(map(repr, users))}, got "
                    f"{name}={group[name]!r} and rule={rule!r}; leave it out"
                )
        if group["state"] != "fp32" and not self.rules[rule][0].buffers:
            raise HyperError(
                f"state: expected 'fp32' with rule={rule!r}, which keeps no state, got "
                f"{group['state']!r}; leave it out"
            )

    def label(self, name: str, group: Mapping[str, Any]) -> str:
        """The rule that the group names."""
        return group["rule"]
