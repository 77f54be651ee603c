# Written by docs/generate.py; change the code, not this file.

from collections.abc import Callable
from typing import Any, Literal, TypedDict, Unpack

import torch.distributed
from torch import Tensor

from anyorder.errors import AnyOrderError as AnyOrderError
from anyorder.methods import accelerated as _accelerated
from anyorder.methods import adagrad as _adagrad
from anyorder.methods import adagrad_norm as _adagrad_norm
from anyorder.methods import adahessian as _adahessian
from anyorder.methods import adamw as _adamw
from anyorder.methods import exadam as _exadam
from anyorder.methods import lion as _lion
from anyorder.methods import lion_k as _lion_k
from anyorder.methods import mezo as _mezo
from anyorder.methods import muon as _muon
from anyorder.methods import rank_sgd as _rank_sgd
from anyorder.methods import scale as _scale
from anyorder.methods import schedule_free_adamw as _schedule_free_adamw
from anyorder.methods import sgd as _sgd
from anyorder.methods import sso as _sso
from anyorder.methods._by_role import Roles
from anyorder.minimize import Result as Result
from anyorder.minimize import minimize as minimize
from anyorder.optimizer.base import Communicator
from anyorder.optimizer.base import Mode
from anyorder.optimizer.base import Nonfinite
from anyorder.optimizer.base import Optimizer as Optimizer
from anyorder.optimizer.base import Ranker
from anyorder.optimizer.population import Population as Population
from anyorder.oracle.closures import Composite as Composite
from anyorder.oracle.ledger import Budget as Budget
from anyorder.oracle.ledger import BudgetExhausted as BudgetExhausted
from anyorder.oracle.ledger import Calls as Calls
from anyorder.oracle.oracle import Oracle as Oracle

__version__: str
__all__ = [
    "AnyOrderError",
    "Budget",
    "BudgetExhausted",
    "Calls",
    "Composite",
    "Optimizer",
    "Oracle",
    "Population",
    "Result",
    "minimize",
]

class _Common(TypedDict, total=False):
    engine: Mode
    seed: int
    maximize: bool
    nonfinite: Nonfinite
    budget: Budget | str | None
    ranker: Ranker | None
    scaler: Any
    process_group: torch.distributed.ProcessGroup | Communicator | None
    after: Callable[[str, Tensor], Any] | None

class Accelerated(_accelerated.Accelerated):
    def __init__(
        self,
        params: Any,
        *,
        lr: float = ...,
        form: Literal["gradient", "heavy_ball", "nesterov", "nesterov_convex", "triple_momentum"] = ...,
        mu: float | None = ...,
        L: float | None = ...,
        restart: bool = ...,
        clip_norm: float | None = ...,
        cautious: bool = ...,
        stochastic_rounding: bool = ...,
        state: Literal["fp32", "bf16", "8bit"] = ...,
        state_block: Literal[256, 2048] = ...,
        **common: Unpack[_Common],
    ) -> None: ...

class AdaGrad(_adagrad.AdaGrad):
    def __init__(
        self,
        params: Any,
        *,
        lr: float = ...,
        lr_decay: float = ...,
        initial: float = ...,
        eps: float = ...,
        weight_decay: float = ...,
        decoupled_weight_decay: bool = ...,
        clip_norm: float | None = ...,
        cautious: bool = ...,
        stochastic_rounding: bool = ...,
        state: Literal["fp32", "bf16", "8bit"] = ...,
        state_block: Literal[256, 2048] = ...,
        **common: Unpack[_Common],
    ) -> None: ...

class AdaGradNorm(_adagrad_norm.AdaGradNorm):
    def __init__(
        self,
        params: Any,
        *,
        lr: float = ...,
        initial: float = ...,
        eps: float = ...,
        weight_decay: float = ...,
        decoupled_weight_decay: Literal[True] = ...,
        clip_norm: float | None = ...,
        cautious: bool = ...,
        stochastic_rounding: bool = ...,
        **common: Unpack[_Common],
    ) -> None: ...

class AdaHessian(_adahessian.AdaHessian):
    def __init__(
        self,
        params: Any,
        *,
        lr: float = ...,
        betas: tuple[float, float] = ...,
        eps: float = ...,
        hessian_power: float = ...,
        weight_decay: float = ...,
        every: int = ...,
        probes: int = ...,
        block: int = ...,
        average: Literal["abs", "signed"] = ...,
        products: Literal["exact", "finite"] = ...,
        decoupled_weight_decay: bool = ...,
        clip_norm: float | None = ...,
        cautious: bool = ...,
        stochastic_rounding: bool = ...,
        state: Literal["fp32", "bf16", "8bit"] = ...,
        state_block: Literal[256, 2048] = ...,
        **common: Unpack[_Common],
    ) -> None: ...

class AdamW(_adamw.AdamW):
    def __init__(
        self,
        params: Any,
        *,
        lr: float = ...,
        betas: tuple[float, float] = ...,
        eps: float = ...,
        weight_decay: float = ...,
        decoupled_weight_decay: bool = ...,
        clip_norm: float | None = ...,
        cautious: bool = ...,
        stochastic_rounding: bool = ...,
        state: Literal["fp32", "bf16", "8bit"] = ...,
        state_block: Literal[256, 2048] = ...,
        **common: Unpack[_Common],
    ) -> None: ...

class EXAdam(_exadam.EXAdam):
    def __init__(
        self,
        params: Any,
        *,
        lr: float = ...,
        betas: tuple[float, float] = ...,
        eps: float = ...,
        boost: float = ...,
        version: Literal[1, 2] = ...,
        weight_decay: float = ...,
        decoupled_weight_decay: bool = ...,
        clip_norm: float | None = ...,
        cautious: bool = ...,
        stochastic_rounding: bool = ...,
        state: Literal["fp32", "bf16", "8bit"] = ...,
        state_block: Literal[256, 2048] = ...,
        **common: Unpack[_Common],
    ) -> None: ...

class Lion(_lion.Lion):
    def __init__(
        self,
        params: Any,
        *,
        lr: float = ...,
        betas: tuple[float, float] = ...,
        weight_decay: float = ...,
        decoupled_weight_decay: bool = ...,
        clip_norm: float | None = ...,
        cautious: bool = ...,
        stochastic_rounding: bool = ...,
        state: Literal["fp32", "bf16", "8bit"] = ...,
        state_block: Literal[256, 2048] = ...,
        **common: Unpack[_Common],
    ) -> None: ...

class LionK(_lion_k.LionK):
    def __init__(
        self,
        params: Any,
        *,
        lr: float = ...,
        betas: tuple[float, float] = ...,
        weight_decay: float = ...,
        kappa: Literal["l1", "l2", "lp", "squared", "huber", "soft", "group", "spectral"] = ...,
        p: float = ...,
        threshold: float = ...,
        polar: Literal["auto", "svd", "newton-schulz"] = ...,
        decoupled_weight_decay: bool = ...,
        clip_norm: float | None = ...,
        cautious: bool = ...,
        stochastic_rounding: bool = ...,
        state: Literal["fp32", "bf16", "8bit"] = ...,
        state_block: Literal[256, 2048] = ...,
        **common: Unpack[_Common],
    ) -> None: ...

class MeZO(_mezo.MeZO):
    def __init__(
        self,
        params: Any,
        *,
        lr: float = ...,
        eps: float = ...,
        directions: int = ...,
        weight_decay: float = ...,
        **common: Unpack[_Common],
    ) -> None: ...

class Muon(_muon.Muon):
    def __init__(
        self,
        params: Any,
        *,
        roles: Roles = ...,
        lr: float = ...,
        adamw_lr: float | None = ...,
        adamw_betas: tuple[float, float] = ...,
        adamw_eps: float = ...,
        momentum: float = ...,
        nesterov: bool = ...,
        adjust_lr: Literal["original", "match_rms_adamw"] = ...,
        rounds: int = ...,
        coefficients: Literal["jordan", "minimax"] = ...,
        precision: Literal["auto", "float32", "bfloat16"] = ...,
        weight_decay: float = ...,
        decoupled_weight_decay: bool = ...,
        clip_norm: float | None = ...,
        cautious: bool = ...,
        stochastic_rounding: bool = ...,
        state: Literal["fp32", "bf16", "8bit"] = ...,
        state_block: Literal[256, 2048] = ...,
        **common: Unpack[_Common],
    ) -> None: ...

class RankSGD(_rank_sgd.RankSGD):
    def __init__(
        self,
        params: Any,
        *,
        lr: float = ...,
        mu: float = ...,
        points: int = ...,
        top: int = ...,
        line_search: int = ...,
        shrink: float = ...,
        adapt: bool = ...,
        state: Literal["fp32", "bf16", "8bit"] = ...,
        state_block: Literal[256, 2048] = ...,
        **common: Unpack[_Common],
    ) -> None: ...

class SCALE(_scale.SCALE):
    def __init__(
        self,
        params: Any,
        *,
        roles: Roles = ...,
        lr: float = ...,
        adamw_lr: float | None = ...,
        adamw_betas: tuple[float, float] = ...,
        adamw_eps: float = ...,
        momentum: float = ...,
        norm: Literal["rms", "l2"] = ...,
        eps: float = ...,
        weight_decay: float = ...,
        decoupled_weight_decay: bool = ...,
        clip_norm: float | None = ...,
        cautious: bool = ...,
        stochastic_rounding: bool = ...,
        state: Literal["fp32", "bf16", "8bit"] = ...,
        state_block: Literal[256, 2048] = ...,
        **common: Unpack[_Common],
    ) -> None: ...

class ScheduleFreeAdamW(_schedule_free_adamw.ScheduleFreeAdamW):
    def __init__(
        self,
        params: Any,
        *,
        lr: float = ...,
        betas: tuple[float, float] = ...,
        eps: float = ...,
        weight_decay: float = ...,
        warmup: int = ...,
        clip_norm: float | None = ...,
        cautious: bool = ...,
        stochastic_rounding: bool = ...,
        state: Literal["fp32", "bf16", "8bit"] = ...,
        state_block: Literal[256, 2048] = ...,
        **common: Unpack[_Common],
    ) -> None: ...

class SGD(_sgd.SGD):
    def __init__(
        self,
        params: Any,
        *,
        lr: float = ...,
        momentum: float = ...,
        dampening: float = ...,
        weight_decay: float = ...,
        decoupled_weight_decay: bool = ...,
        nesterov: bool = ...,
        clip_norm: float | None = ...,
        cautious: bool = ...,
        stochastic_rounding: bool = ...,
        state: Literal["fp32", "bf16", "8bit"] = ...,
        state_block: Literal[256, 2048] = ...,
        **common: Unpack[_Common],
    ) -> None: ...

class SSO(_sso.SSO):
    def __init__(
        self,
        params: Any,
        *,
        lr: float = ...,
        inner: Literal["armijo", "gd", "lbfgs"] = ...,
        inner_steps: int = ...,
        inner_lr: float = ...,
        armijo: float = ...,
        schedule: Literal["constant", "sqrt", "exponential"] = ...,
        horizon: int = ...,
        **common: Unpack[_Common],
    ) -> None: ...
