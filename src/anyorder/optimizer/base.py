"""The base class of all methods: ``loss = optimizer.step(closure)`` for methods of any order.

A method is one file in :mod:`anyorder.methods`. It declares its needs, its hyperparameters and its
rule. Most methods consist of these declarations::

    class SGD(Optimizer):
        rule = DESCENT
        lr: float = hyper(1e-3, ge=0, search="log", low=1e-4, high=1.0)

A step then computes one gradient and applies the rule. Other methods override ``update``::

        def update(self, oracle):
            loss, grads = oracle.grad()
            self.apply(DESCENT, grads)
            return loss
"""

from __future__ import annotations

import contextlib
import copy
import functools
from abc import ABC
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self, overload

import torch
from torch import Tensor, nn
from torch.optim.optimizer import (
    _global_optimizer_post_hooks,  # pyright: ignore[reportPrivateUsage]
    _global_optimizer_pre_hooks,  # pyright: ignore[reportPrivateUsage]
)

from anyorder.engine import Engine, Mode
from anyorder.engine.formats import Format, State, format_for
from anyorder.hyper import Hyper, HyperError
from anyorder.model.embedding import exempt
from anyorder.model.params import ParamsTypeError, named_groups
from anyorder.model.sharding import is_sharded, local
from anyorder.optimizer import checkpoint
from anyorder.optimizer.answer import Answer, AnswerError
from anyorder.optimizer.apply import Application
from anyorder.optimizer.checkpoint import CheckpointError as CheckpointError
from anyorder.optimizer.copies import Copying
from anyorder.optimizer.entry import STEP, Slot
from anyorder.optimizer.estimator import Backpropagation, Estimator
from anyorder.optimizer.options import (
    RECORD,
    Checked,
    SettingError,
    check_common,
    check_group_keys,
    checked_callable,
    checked_flag,
    checked_process_group,
    checked_scaler,
    checked_seed,
    options_of,
    plain,
    refuse_shared_names,
    refuse_unknown_options,
    signature_of,
)
from anyorder.optimizer.state import StateLayout
from anyorder.oracle.backward_done import BackwardDone
from anyorder.oracle.closure_oracle import ClosureOracle, Learned
from anyorder.oracle.closures import Closure, ClosureError, Ranker, needs_closure
from anyorder.oracle.communicator import Communicator
from anyorder.oracle.gradients import POLICIES, Nonfinite, SkipStep, clipped
from anyorder.oracle.kinds import refuse_unused
from anyorder.oracle.ledger import Budget, Calls
from anyorder.oracle.named_closures import (
    Closures,
    NamedClosures,
    checked_closures,
    checked_owner,
    owners,
)
from anyorder.oracle.oracle import NeedsError, Oracle, Policies
from anyorder.points.directions import Direction, Law, Seeded
from anyorder.points.substitution import hidden
from anyorder.rules import Rule
from anyorder.rules.rule import Scalars

if TYPE_CHECKING:
    import torch.distributed

#: The needs of methods that also work after a plain ``loss.backward()``.
GRADIENT_ONLY = frozenset({"grad"})
_BACKPROPAGATION = Backpropagation()


class _GroupValue:
    """Reads a hyperparameter from the first group, where schedulers update it."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, instance: Optimizer | None, owner: type) -> Any:
        return self if instance is None else plain(instance.param_groups[0][self.name])

    def __set__(self, instance: Optimizer, value: Any) -> None:
        raise SettingError(
            f"{self.name}: expected a setting to be changed in its groups, where steps read it; "
            f"write group[{self.name!r}] = {value!r} for each group of optimizer.param_groups"
        )


class Optimizer(Copying, torch.optim.Optimizer, ABC):
    """Base class of methods of any order.

    Subclasses are final. They set the class attributes. If a step is more than one estimate and one
    rule, they override :meth:`update`.

    Args:
        params: a module (parameters keep their names, buffers are restored), parameters, named
            parameters, or parameter groups with their own hyperparameters. Groups may contain your
            own keys.
        engine: ``auto``, ``eager`` or ``compiled``; the results are equal.
        seed: seed of all random directions of the method.
        maximize: maximise the loss instead of minimising it.
        nonfinite: what to do if a loss or gradient is NaN or infinite. ``raise`` (default) raises
            before anything is changed; ``skip`` skips the step and counts it in ``calls.skipped``;
            ``ignore`` does not check, like torch.optim.
        budget: limits on evaluations, such as ``"500grads"``; ``BudgetExhausted`` is raised before
            an evaluation that would exceed it.
        ranker: orders candidate points, for methods that need ``rank``.
        scaler: a ``torch.amp.GradScaler`` for closures under float16 autocast.
        process_group: average answers over these processes (default: the group of a
            DistributedDataParallel module, else none); a group of ``torch.distributed`` or a
            ``Communicator``.
        after: called as ``after(name, param)`` for every trainable parameter at the end of a step,
            and at the answer where that is another point; changes it in place: a projection, a
            mask, a weight format.
        options: the method's settings, by name.
    """

    order: ClassVar[int | str] = 1
    #: What the method needs; by default what its estimator needs.
    needs: ClassVar[frozenset[str]] = GRADIENT_ONLY
    #: Names of the closures, for methods with several; each group names the one it belongs to.
    closures: ClassVar[tuple[str, ...]] = ()
    #: Estimates the gradient for the rule.
    estimator: ClassVar[Estimator] = _BACKPROPAGATION
    #: The rule of all parameters.
    rule: ClassVar[Rule | None] = None
    #: The rules by label, for methods that treat parameters differently; see :meth:`label`.
    rules: ClassVar[Mapping[str, tuple[Rule, ...]]] = {}
    #: State with another shape than the parameter, by name.
    slots: ClassVar[Mapping[str, Slot]] = {}
    #: Whole numbers stored for each parameter in addition to its step.
    counters: ClassVar[tuple[str, ...]] = ()
    #: The direction to the answer, for methods that train at another point; :meth:`answer`.
    answer_buffer: ClassVar[str | None] = None
    #: Whether to use a learning rate schedule; some methods replace one.
    scheduled: ClassVar[bool] = True
    #: Called before :meth:`move_` with the direction and its factor in each group, and before
    #: :meth:`shrink_` with None and the factors.
    on_move: Callable[[Direction | None, list[float]], None] | None = None
    # Derived from the rules.
    buffers: ClassVar[tuple[str, ...]] = ()
    nonnegative: ClassVar[frozenset[str]] = frozenset()
    _counts_steps: ClassVar[bool] = False
    hypers: ClassVar[dict[str, Hyper]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "rule" in vars(cls) and cls.rule is not None:
            cls.rules = {"": (cls.rule,)}
        if "estimator" in vars(cls) and "needs" not in vars(cls):
            cls.needs = cls.estimator.needs
        rules = list(dict.fromkeys(rule for each in cls.rules.values() for rule in each))
        cls.buffers = tuple(dict.fromkeys(name for rule in rules for name in rule.buffers))
        cls._counts_steps = any(rule.ends_step for rule in rules)
        cls.nonnegative = frozenset[str]().union(*(rule.nonnegative for rule in rules))
        own = {name: value for name, value in vars(cls).items() if isinstance(value, Hyper)}
        refuse_shared_names(cls.estimator.hypers, rules, own, cls.__name__)
        inherited = {**cls.estimator.hypers, **cls.hypers}
        cls.hypers = options_of(own, inherited, rules)
        for name in cls.hypers:
            if name in own or not (name == "state" or hasattr(cls, name)):  # state is the state
                setattr(cls, name, _GroupValue(name))
        cls.__signature__ = signature_of(cls, Optimizer, cls.hypers)

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Refuse positional hyperparameters, which torch.optim allows for lr."""
        if len(args) > 1:
            raise TypeError(
                f"{cls.__name__} takes hyperparameters by keyword: write {cls.__name__}(params, "
                f"lr={args[1]!r}, ...)"
            )
        return super().__new__(cls)

    def __init__(
        self,
        params: Any,
        *,
        engine: Mode = "auto",
        seed: int = 0,
        maximize: bool = False,
        nonfinite: Nonfinite = "raise",
        budget: Budget | str | None = None,
        ranker: Ranker | None = None,
        scaler: Any = None,
        process_group: torch.distributed.ProcessGroup | Communicator | None = None,
        after: Callable[[str, Tensor], Any] | None = None,
        **options: Any,
    ) -> None:
        if nonfinite not in POLICIES:
            raise HyperError(f"nonfinite: expected one of {list(POLICIES)}, got {nonfinite!r}")
        refuse_unknown_options(options, [*self.hypers, *_CONSTRUCTOR], type(self).__name__)
        self.module = params if isinstance(params, nn.Module) else None
        self.engine, self.seed = Engine(engine), checked_seed(seed)
        self.maximize = checked_flag("maximize", maximize)
        self.nonfinite: Nonfinite = nonfinite
        self.budget = Budget.of(budget)
        self.ranker = checked_callable("ranker", ranker, "from shifts to positions, best first")
        self.scaler, self.process_group = (
            checked_scaler(scaler),
            checked_process_group(process_group) or getattr(self.module, "process_group", None),
        )
        self.after = checked_callable("after", after, "of a name and a parameter")
        refuse_unused(type(self).__name__, self.needs, ranker=ranker, scaler=scaler)
        self.calls, self.steps, self.skips = Calls(), 0, 0
        self._layout, self._answer = StateLayout(), Answer(self.answer_buffer)
        self._checked = Checked()
        self._learned = Learned(opaque=hidden(self.module))
        self._oracle: Oracle | None = None  # that of the step being taken
        self._grads: Sequence[Tensor | None] | None = None  # estimates of the step being taken
        self._named: dict[str, Tensor] | None = None  # trainable parameters of that step
        defaults = {name: h.default for name, h in self.hypers.items()} | options
        super().__init__(named_groups(params), defaults)
        if self.needs != GRADIENT_ONLY:
            # Libraries for checkpoints would otherwise take a step to create the state.
            self._layout.current(self)
            for index, group in enumerate(self.param_groups):
                self._layout.stretches(
                    self, index, {id(p) for p in group["params"] if p.requires_grad}
                )

    # For users -----------------------------------------------------------------------------

    @overload  # type: ignore[override]
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Closure | Sequence[Closure] | Closures) -> Tensor: ...

    def step(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, closure: Closure | Sequence[Closure] | Closures | None = None
    ) -> Tensor | None:
        """Take one step.

        Args:
            closure: returns the loss of one fixed batch and does nothing else; or a list of
                closures, one per micro-batch of equal size, whose results are averaged (gradient
                accumulation). Methods that only need gradients also work without a closure, after
                ``loss.backward()``. Methods with several closures take a dict:
                ``{"outer": f, "inner": g}``.

        Returns:
            The loss, shape (), or ``None`` without a closure. NaN for methods that do not use
            values (rankings).

        Raises:
            NeedsError: the method needs a closure and got none.
            ClosureError: the closure does not fit the method.
            NonFiniteError: the loss or a gradient is not finite; nothing was changed.
            BudgetExhausted: the next evaluation would exceed the budget; nothing was changed.
            AnswerError: the parameters hold the answer, see :meth:`answer` and :meth:`eval`.
            StateError: a modified entry of ``state`` does not fit its parameter.
            HyperError: a setting of a group was changed to an invalid value.
        """
        if self._answer.shown:
            raise AnswerError(
                f"the parameters hold the answer of {type(self).__name__}; leave `with "
                "optimizer.answer()`, or call optimizer.train(), before the next step"
            )
        if self.budget is not None:
            self.budget.check_step(self.steps)
        loss, outer = None, (self._oracle, self._grads, self._named)
        if self._oracle is not None and self.needs != GRADIENT_ONLY:
            raise ClosureError(
                f"the closure calls step() of the {type(self).__name__} that runs it; expected it "
                "to return the loss and do nothing else. Take the steps one after the other"
            )
        try:
            with _writable():
                self._begin()
                self._named = named = self._trainable()
                self._oracle = oracle = self._oracle_for(closure, named)
                loss = self.update(oracle)
                self._finish()
        except SkipStep as skipped:
            self.calls.skipped += 1
            self.skips += 1
            return None if closure is None else skipped.loss
        finally:
            self._oracle, self._grads, self._named = outer
        self.steps += 1
        if closure is None:
            return None
        return -loss if self.maximize else loss

    def oracle(
        self, closure: Closure | Sequence[Closure] | Closures, *, advance: bool = False
    ) -> Any:
        """Return the oracle that a step would use: same parameters, ledger, budget and policies.

        A :class:`~anyorder.oracle.ClosureOracle`, or for named closures an object with one oracle
        per closure.
        """
        given = checked_closures(closure, self.closures, type(self).__name__)
        common: dict[str, Any] = {
            "ranker": self.ranker,
            "engine": self.engine,
            "advance": advance,
            "learned": self._learned,
            **self._policies(),
        }
        if self.closures:
            return NamedClosures(given, owners(self.param_groups, self.closures), **common)
        legacy = self.needs == GRADIENT_ONLY
        return ClosureOracle(given, self.named_params(), legacy=legacy, **common)

    def _policies(self) -> Policies:
        """The arguments that all oracles share."""
        return {
            "calls": self.calls,
            "budget": self.budget,
            "maximize": self.maximize,
            "nonfinite": self.nonfinite,
            "clip": plain(self.param_groups[0].get("clip_norm")),
            "module": self.module,
            "scaler": self.scaler,
            "group": self.process_group,
        }

    def named_params(self) -> dict[str, Tensor]:
        """Return the trainable parameters by name, in the order of the groups."""
        if self._named is not None:
            return self._named
        self._see_lists()
        return self._trainable()

    def _trainable(self) -> dict[str, Tensor]:
        whole = self._answer.whole
        return {
            name: param
            for group in self.param_groups
            for name, param in zip(group["param_names"], group["params"], strict=True)
            if (param in self.state if whole else param.requires_grad)
        }

    @contextlib.contextmanager
    def answer(self) -> Generator[None]:
        """Context in which the parameters hold the point to evaluate; restored afterwards.

        For most methods this is the current point. For methods that take gradients at another
        point (averages, extrapolations) the parameters are changed inside the context, and a step
        raises. Contexts may be nested.
        """
        if self._answer.shown:
            yield
            return
        self._show_answer()
        try:
            yield
        finally:
            self._answer.hide(self, exact=True)

    def eval(self) -> None:
        """Move the parameters to the point to evaluate, until :meth:`train` is called.

        Trainers that support schedule-free methods call it before they evaluate and save.
        """
        self._show_answer()

    def train(self, mode: bool = True) -> None:
        """Move the parameters back to the training point; with ``False``, like :meth:`eval`.

        Parameters that were changed in between, for example by loading weights, are treated as
        evaluation points and moved by the same distance.
        """
        if not mode:
            self._show_answer()
        elif self._answer.shown:
            self._layout.current(self)
            self._answer.hide(self, exact=False)

    def state_bytes(self) -> int:
        """Return the memory of the state in bytes, for this process."""
        return sum(
            local(value).nbytes
            for entry in self.state.values()
            for value in entry.values()
            if isinstance(value, Tensor)
        )

    def explain(self) -> str:
        """Describe as text the needs, the settings, and how each parameter is updated."""
        self._see_lists()
        lines = [
            f"{type(self).__name__}: order {self.order}, needs {', '.join(sorted(self.needs))}; "
            f"engine {self.engine.mode}; state per parameter: {', '.join(self.buffers) or 'none'}"
        ]
        for index, group in enumerate(self.param_groups):
            settings = ", ".join(f"{name}={group[name]!r}" for name in self.hypers)
            lines.append(f"group {index}: {settings}")
            for name, param in zip(group["param_names"], group["params"], strict=True):
                kind = "x".join(map(str, param.shape)) or "scalar"
                note = self.note(name, param) if param.requires_grad else "frozen"
                if self.precision_of(group, param) != group.get("state", "fp32"):
                    note = f"{note}; state in float32".lstrip("; ")
                lines.append(
                    f"  {name}  {kind} {str(param.dtype)[6:]}" + (f"  {note}" * bool(note))
                )
        return "\n".join(lines)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group; everything is checked before anything is changed.

        Other keys are kept, as with torch.optim.
        """
        if not isinstance(param_group, dict):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ParamsTypeError(
                f"expected a parameter group, a dict with the key 'params', got "
                f"{type(param_group).__name__}; write add_param_group({{'params': ...}})"
            )
        groups: list[dict[str, Any]] = getattr(self, "param_groups", [])
        (group,) = named_groups([param_group], taken=groups)
        check_group_keys(group, self.hypers, _CONSTRUCTOR, type(self).__name__)
        params = [param for _, param in group["params"]]
        settings = {**self.defaults, **group, "params": params}
        for name, declared in self.hypers.items():
            declared.check(name, settings[name])
        if self.closures:
            checked_owner(group, len(groups), self.closures)
        check_common(settings, params, groups[0] if groups else None)
        if self.needs != GRADIENT_ONLY and any(map(is_sharded, params)):
            raise NeedsError(
                f"{type(self).__name__} needs {', '.join(sorted(self.needs))}, which sharded "
                "parameters (DTensor) do not support yet; use DistributedDataParallel, or a method "
                "that only needs gradients"
            )
        self.check_group(settings)
        group.pop("param_names", None)  # names come with the parameters
        group[RECORD] = {}
        super().add_param_group(group)

    def state_dict(self) -> dict[str, Any]:  # type: ignore[override]
        """Return the state by parameter name and the ledger: all that exact resumption needs."""
        for hook in self._optimizer_state_dict_pre_hooks.values():
            hook(self)
        with _writable():
            self._layout.current(self)
            found = checkpoint.saved(self)
        for hook in self._optimizer_state_dict_post_hooks.values():
            changed = hook(self, found)
            found = found if changed is None else changed
        return found

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:  # type: ignore[override]
        """Load a state, matched by parameter name. Everything is checked before it is used.

        Tensors are copied.

        Raises:
            CheckpointError: the state is damaged, of another method or for other parameters;
                nothing was changed.
        """
        given: Any = copy.copy(state_dict)
        for hook in self._optimizer_load_state_dict_pre_hooks.values():
            changed = hook(self, given)
            given = given if changed is None else changed
        with _writable():
            checkpoint.load_into(self, given)
        for hook in self._optimizer_load_state_dict_post_hooks.values():
            hook(self)

    # For methods ---------------------------------------------------------------------------

    def update(self, oracle: Oracle) -> Tensor:
        """Take one step. Returns the loss at the starting point (NaN if it was not evaluated)."""
        assert self.rules, f"{type(self).__name__} has neither a rule nor an update()"
        loss, grads = self.estimator(self, oracle)
        self.descend(grads, clip="grad" not in self.estimator.needs)
        return loss

    def descend(self, grads: Sequence[Tensor | None], *, clip: bool = True) -> None:
        """Apply the rules to estimates of the gradient, clipped and masked as gradients are.

        Args:
            grads: a list over :meth:`named_params`.
            clip: whether to clip them; what an oracle calls a gradient is clipped already.
        """
        if clip:
            grads = clipped(list(grads), plain(self.param_groups[0].get("clip_norm")))
        self._grads = grads
        for label, (rule,) in self.rules.items():
            self.apply(rule, grads, label=label)

    def label(self, name: str, group: Mapping[str, Any]) -> str:
        """Return the key in ``rules`` of the rules for a parameter."""
        return next(iter(self.rules), "")

    def note(self, name: str, param: Tensor) -> str:
        """Return a remark for :meth:`explain` about this parameter."""
        return ""

    def answer_scale(self, group: Mapping[str, Any]) -> float:
        """Return the distance to the answer, in multiples of ``answer_buffer``."""
        return 0.0

    def check_group(self, group: dict[str, Any]) -> None:
        """Check combinations of hyperparameters, and of hyperparameters with parameters."""

    def extra_state(self) -> dict[str, Any]:
        """Return more data for checkpoints: plain numbers, strings, lists and dicts."""
        return {}

    def load_extra_state(self, extra: Mapping[str, Any]) -> None:
        """Load what :meth:`extra_state` saved."""

    def apply(
        self,
        rule: Rule,
        *inputs: Sequence[Tensor | None],
        label: str | None = None,
        scalars: Scalars | None = None,
        lr: Callable[[Mapping[str, Any]], float] | None = None,
    ) -> None:
        """Run ``rule(param, *buffers, *inputs, **scalars)`` over all parameters that have inputs.

        Weight decay, cautious masks and rounding are applied around it.

        Args:
            rule: the rule.
            inputs: lists in the order of :meth:`named_params`. A parameter whose first input is
                ``None`` is not updated and its step count does not change. Coupled weight decay is
                added to the first input.
            label: only update parameters with this label.
            scalars: computes the scalars, if they depend on more than group and step.
            lr: the step size of a group's parameters, where it is not the group's ``lr``.
        """
        given = {
            id(param): row
            for param, row in zip(
                self.named_params().values(), zip(*inputs, strict=True), strict=True
            )
            if row[0] is not None
        }
        for index, group in enumerate(self.param_groups):
            settings = group if lr is None else {**group, "lr": lr(group)}
            use = Application(self, rule, settings, scalars)
            for each in self._layout.stretches(self, index, given):
                if label is None or label == each.label:
                    use.run(each.stretch, given)

    def direction(self, index: int = 0, law: Law = "normal") -> Seeded:
        """Return random direction ``index`` of the current step; skipped steps have their own."""
        return Seeded(self.seed, self.steps + self.skips, index, law)

    def buffer(self, name: str) -> dict[str, Tensor]:
        """Return one buffer of all trainable parameters that have it, by parameter name.

        Buffers in reduced precision are returned as copies; only rules write buffers.
        """
        self._look()
        found: dict[int, Tensor] = {}
        named = self.named_params()
        for index, group in enumerate(self.param_groups):
            wanted = {id(p) for p in group["params"] if p.requires_grad}
            for each in self._layout.stretches(self, index, wanted):
                if name in each.stretch.buffers:
                    values = each.stretch.values(name)
                    found.update(zip(map(id, each.stretch.params), values, strict=True))
        return {k: found[id(p)] for k, p in named.items() if id(p) in found}

    def entries(self) -> dict[str, dict[str, Any]]:
        """Return the entry of ``state`` for every trainable parameter, by name."""
        self._look()
        for index, group in enumerate(self.param_groups):
            self._layout.stretches(self, index, {id(p) for p in group["params"] if p.requires_grad})
        return {name: self.state[param] for name, param in self.named_params().items()}

    def move_(self, direction: Direction, scale: Callable[[dict[str, Any]], float]) -> None:
        """Add ``scale(group) * direction`` to every trainable parameter in place."""
        if self.on_move is not None:
            self.on_move(direction, [scale(group) for group in self.param_groups])
        for group in self.param_groups:
            named = zip(group["param_names"], group["params"], strict=True)
            targets = {name: param for name, param in named if param.requires_grad}
            direction.add_all_(targets, scale(group), self.engine)

    def shrink_(self, keep: Callable[[dict[str, Any]], float]) -> None:
        """Multiply every trainable matrix by ``keep(group)`` in place: decoupled weight decay."""
        if self.on_move is not None:
            factors = [keep(group) for group in self.param_groups]
            if set(factors) != {1.0}:
                self.on_move(None, factors)
        for group in self.param_groups:
            factor = keep(group)
            for param in group["params"]:
                if factor != 1.0 and param.requires_grad and param.ndim > 1:
                    param.mul_(factor)

    def constrain(self, after: Callable[[str, Tensor], Any]) -> None:
        """Do what the user asks for at the end of a step; methods of several points say to which.

        Where the answer lies elsewhere, ``after`` is called on it too when it is shown.
        """
        for name, param in self.named_params().items():
            after(name, param)

    # Inside --------------------------------------------------------------------------------

    @staticmethod
    def profile_hook_step(func: Callable[..., Any]) -> Callable[..., Any]:
        """Call the hooks of a step and record it for profilers, as torch.optim, if there are any.

        The record of torch.optim takes as long as ten operations on small tensors.
        """
        wrapped = torch.optim.Optimizer.profile_hook_step(func)

        @functools.wraps(func)
        def step(self: Optimizer, *args: Any, **kwargs: Any) -> Any:
            if (
                self._optimizer_step_pre_hooks
                or self._optimizer_step_post_hooks
                or _global_optimizer_pre_hooks
                or _global_optimizer_post_hooks
                or torch.autograd._profiler_enabled()  # pyright: ignore
            ):
                return wrapped(self, *args, **kwargs)
            return func(self, *args, **kwargs)

        return step

    def grads_by_param(self) -> dict[int, Tensor]:
        """Return the gradients of the current step by the identity of their parameters."""
        if self._grads is None:
            assert self._oracle is not None
            return self._oracle.grads_by_param()
        pairs = zip(self.named_params().values(), self._grads, strict=True)
        return {id(param): grad for param, grad in pairs if grad is not None}

    def labels(self, group: dict[str, Any]) -> list[str]:
        """Return the label of each parameter of a group."""
        if len(self.rules) < 2:
            return [next(iter(self.rules), "")] * len(group["params"])
        return [self.label(name, group) for name in group["param_names"]]

    def label_buffers(self, label: str) -> tuple[str, ...]:
        """Return the buffers of parameters with this label."""
        rules = self.rules.get(label, ())
        return tuple(dict.fromkeys(name for rule in rules for name in rule.buffers))

    def _format(self, group: Mapping[str, Any], state: State, name: str, size: int) -> Format:
        """How a buffer of ``size`` elements is stored."""
        block = group.get("state_block", 0)
        return format_for(state, size, nonnegative=name in self.nonnegative, block=block)

    def precision_of(self, group: Mapping[str, Any], param: Tensor) -> State:
        """Return the precision of a parameter's buffers."""
        if group.get("state", "fp32") == "fp32" or param.dtype is torch.float64:
            return "fp32"
        return "fp32" if id(param) in exempt(self.module) else group["state"]

    def _begin(self) -> None:
        """See what users have changed since the last step, settings too."""
        if self._checked.look(self, _CONSTRUCTOR):
            self._layout.forget()  # its precision is another one
        self._layout.current(self)

    def _see_lists(self) -> None:
        """Name parameters that users have put into a group's list since the last look."""
        if any(len(g["params"]) != len(g.get("param_names", ())) for g in self.param_groups):
            self._look()

    def _look(self) -> None:
        """Take over changes made by the user; a step has done so already."""
        if self._oracle is None:
            with _writable():
                self._layout.current(self)

    def _show_answer(self) -> None:
        if self.answer_buffer is not None:
            with _writable():
                self._begin()
                self._answer.show(self)

    def _finish(self) -> None:
        """Finish a step: call ``after`` and count."""
        if self.after is not None:
            self.constrain(self.after)
        if not self._counts_steps:
            for param in self.named_params().values():
                if entry := self.state.get(param):
                    entry[STEP] = self.steps + 1

    def _oracle_for(self, closure: Any, named: Mapping[str, Tensor]) -> Oracle:
        """Return the oracle of a step on these parameters."""
        if closure is None and not self.closures:
            if self.needs != GRADIENT_ONLY:
                raise NeedsError(needs_closure(type(self).__name__, self.needs))
            oracle = BackwardDone(named, **self._policies())
            oracle.owner = self
            return oracle
        asked: Any = closure  # None raises an error for methods with several closures
        return self.oracle(asked, advance=True)


#: Keywords of the constructor that are not hyperparameters.
_CONSTRUCTOR = (
    "engine", "seed", "maximize", "nonfinite", "budget", "ranker", "scaler", "process_group",
    "after",
)  # fmt: skip


def _writable() -> contextlib.AbstractContextManager[Any]:
    """Disable gradients; inside inference mode, create ordinary tensors nevertheless."""
    if torch.is_inference_mode_enabled():
        return _outside_inference_mode()
    return torch.set_grad_enabled(False)  # like no_grad(), which takes three times as long


@contextlib.contextmanager
def _outside_inference_mode() -> Generator[None]:
    with torch.inference_mode(False), torch.no_grad():
        yield
