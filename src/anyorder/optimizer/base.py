"""The base of every method: one line, ``loss = optimizer.step(closure)``, whatever it asks for.

A method is one file in :mod:`anyorder.methods`. It declares what it needs from the problem, its
settings, and its rule; most need no more::

    class SGD(Optimizer):
        rule = DESCENT
        lr: float = hyper(1e-3, ge=0, search="log", low=1e-4, high=1.0)

A step then asks for one gradient and applies the rule. A method that does something else writes
``update``::

        def update(self, oracle):
            loss, grads = oracle.grad()
            self.apply(DESCENT, grads)
            return loss
"""

from __future__ import annotations

import contextlib
import copy
from abc import ABC
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self, overload

import torch
from torch import Tensor, nn

from anyorder.engine import Engine, Mode
from anyorder.engine.formats import State
from anyorder.engine.stretches import Stretch
from anyorder.hyper import Hyper, HyperError
from anyorder.model.embedding import exempt
from anyorder.model.params import ParamsTypeError, named_groups
from anyorder.model.sharding import is_sharded
from anyorder.optimizer import checkpoint
from anyorder.optimizer.answer import Answer, AnswerError
from anyorder.optimizer.apply import Application
from anyorder.optimizer.checkpoint import CheckpointError as CheckpointError
from anyorder.optimizer.copies import Copying
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
    refuse_unknown_options,
    signature_of,
)
from anyorder.optimizer.state import STEP, Slot, StateLayout
from anyorder.oracle.backward_done import BackwardDone
from anyorder.oracle.closure_oracle import ClosureOracle, Learned
from anyorder.oracle.closures import Closure, ClosureError, Ranker
from anyorder.oracle.gradients import POLICIES, Nonfinite, SkipStep, clipped
from anyorder.oracle.kinds import refuse_unused
from anyorder.oracle.ledger import Budget, Calls
from anyorder.oracle.named_closures import Closures, NamedClosures, checked_closures, owners
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
    """Reads a setting from the first group, where schedulers keep it up to date."""

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
    """A method of any order.

    Subclasses are final. They set the class attributes and, where a step is more than one estimate
    and one rule, write :meth:`update`.

    Args:
        params: a module (names are kept, buffers are safe), parameters, named parameters, or
            groups of these with their own settings. Groups may have keys of your own.
        engine: ``auto``, ``eager`` or ``compiled``; the numbers are the same.
        seed: seed of every random direction the method draws.
        maximize: climb instead of descend.
        nonfinite: what a NaN or infinite loss or gradient does. ``raise`` (default) stops before
            anything is changed; ``skip`` leaves the step out and counts it in ``calls.skipped``;
            ``ignore`` does not look, as torch.optim.
        budget: limits on what may be asked, such as ``"500grads"``; ``BudgetExhausted`` is raised
            before the question.
        ranker: orders candidate points, for methods that need ``rank``.
        scaler: a ``torch.amp.GradScaler`` for closures under float16 autocast.
        process_group: average answers over these processes (default: the group of a
            DistributedDataParallel module, else none).
        after: called as ``after(name, param)`` for every trainable parameter at the end of a step;
            changes it in place: a projection, a mask, a weight format.
        options: the method's settings, by name.
    """

    order: ClassVar[int | str] = 1
    #: What the method asks for; by default what its estimator does.
    needs: ClassVar[frozenset[str]] = GRADIENT_ONLY
    #: Names of its closures, for methods that take several; groups say which one owns them.
    closures: ClassVar[tuple[str, ...]] = ()
    #: Where the gradient comes from that the rule descends by.
    estimator: ClassVar[Estimator] = _BACKPROPAGATION
    #: The rule of all parameters.
    rule: ClassVar[Rule | None] = None
    #: The rules by label, for methods that treat parameters differently; see :meth:`label`.
    rules: ClassVar[Mapping[str, tuple[Rule, ...]]] = {}
    #: State of other shapes than the parameters', by name.
    slots: ClassVar[Mapping[str, Slot]] = {}
    #: Whole numbers kept for each parameter beside its steps.
    counters: ClassVar[tuple[str, ...]] = ()
    #: The buffer along which the answer lies, for methods that train elsewhere; :meth:`answer`.
    answer_buffer: ClassVar[str | None] = None
    #: Whether a falling learning rate is meant for it; some methods stand in for a schedule.
    scheduled: ClassVar[bool] = True
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
        inherited = {**cls.estimator.hypers, **cls.hypers}
        cls.hypers = options_of(own, inherited, rules)
        for name in cls.hypers:
            if name in own or not (name == "state" or hasattr(cls, name)):  # state is the state
                setattr(cls, name, _GroupValue(name))
        cls.__signature__ = signature_of(Optimizer.__init__, cls.hypers)

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Say what to write where settings are given by position, as torch.optim allows for lr."""
        if len(args) > 1:
            raise TypeError(
                f"{cls.__name__} takes its settings by name: write {cls.__name__}(params, "
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
        process_group: torch.distributed.ProcessGroup | None = None,
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
        self.calls, self.steps = Calls(), 0
        self._layout, self._answer = StateLayout(), Answer(self.answer_buffer)
        self._checked = Checked()
        self._learned = Learned(opaque=hidden(self.module))
        self._oracle: Oracle | None = None  # that of the step being taken
        self._grads: Sequence[Tensor | None] | None = None  # estimates of the step being taken
        defaults = {name: h.default for name, h in self.hypers.items()} | options
        super().__init__(named_groups(params), defaults)
        if self.needs != GRADIENT_ONLY:
            # Libraries that save and load checkpoints otherwise take a step to make the state.
            self._layout.current(self)
            for index, group in enumerate(self.param_groups):
                self._layout.stretches(self, index, [p for p in group["params"] if p.requires_grad])

    # For users -----------------------------------------------------------------------------

    @overload  # type: ignore[override]
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Closure | Sequence[Closure] | Closures) -> Tensor: ...

    def step(self, closure: Closure | Sequence[Closure] | Closures | None = None) -> Tensor | None:
        """Take one step.

        Args:
            closure: returns the loss of one fixed batch and does nothing else; or a list of
                closures, one for each of several equal micro-batches, whose answers are averaged
                (gradient accumulation). Methods that need gradients only also work without it,
                after ``loss.backward()``. Methods of several closures take them by name:
                ``{"outer": f, "inner": g}``.

        Returns:
            The loss the method saw, shape (), or ``None`` without a closure. Methods that never
            see a value (rankings) return NaN.

        Raises:
            NeedsError: the method needs a closure and got none.
            ClosureError: the closure does not do what the method needs.
            NonFiniteError: the loss or a gradient is not finite; nothing was changed.
            BudgetExhausted: the next question would exceed the budget; nothing was changed.
            AnswerError: the parameters hold the answer, see :meth:`answer` and :meth:`eval`.
            StateError: an entry of ``state`` was changed and does not fit its parameter.
            HyperError: a setting of a group was changed to what it cannot be.
        """
        if self._answer.shown:
            raise AnswerError(
                f"the parameters hold the answer of {type(self).__name__}; leave `with "
                "optimizer.answer()`, or call optimizer.train(), before the next step"
            )
        if self.budget is not None:
            self.budget.check_step(self.steps)
        loss, outer = None, (self._oracle, self._grads)
        if self._oracle is not None and self.needs != GRADIENT_ONLY:
            raise ClosureError(
                f"the closure calls step() of the {type(self).__name__} that asks it; expected it "
                "to return the loss and do nothing else. Take the steps one after the other"
            )
        try:
            with _writable():
                self._begin()
                self._oracle = self._oracle_for(closure)
                loss = self.update(self._oracle)
                self._finish()
        except SkipStep as skipped:
            self.calls.skipped += 1
            return None if closure is None else skipped.loss
        finally:
            self._oracle, self._grads = outer
        self.steps += 1
        if closure is None:
            return None
        return -loss if self.maximize else loss

    def oracle(
        self, closure: Closure | Sequence[Closure] | Closures, *, advance: bool = False
    ) -> Any:
        """The oracle a step would use: same parameters, ledger, budget and policies.

        A :class:`~anyorder.oracle.ClosureOracle`, or for closures by name one that holds an oracle
        for each of them.
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
        """What holds for every answer, wherever it comes from."""
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
        """The trainable parameters by name, in order of the groups."""
        self._see_lists()
        whole = self._answer.whole
        return {
            name: param
            for group in self.param_groups
            for name, param in zip(group["param_names"], group["params"], strict=True)
            if (param in self.state if whole else param.requires_grad)
        }

    @contextlib.contextmanager
    def answer(self) -> Generator[None]:
        """The parameters hold the point to be judged; afterwards they are as they were.

        For most methods that is the point where they are. Methods that take gradients elsewhere
        (averages, extrapolations) move there for as long as the context lasts; a step is refused
        inside. Contexts may be nested.
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
        """Move the parameters to the answer until :meth:`train`, as schedule-free methods do.

        Trainers that know schedule-free methods call it before they evaluate and save.
        """
        self._show_answer()

    def train(self, mode: bool = True) -> None:
        """Move the parameters back to where gradients are taken; with ``False``, as :meth:`eval`.

        Parameters that were changed in between, such as by loading weights, are taken for answers
        and moved by the same distance.
        """
        if not mode:
            self._show_answer()
        elif self._answer.shown:
            self._layout.current(self)
            self._answer.hide(self, exact=False)

    def state_bytes(self) -> int:
        """Bytes of all state, of this process."""
        return sum(
            value.untyped_storage().nbytes() if value.ndim == 0 else value.nbytes
            for entry in self.state.values()
            for value in entry.values()
            if isinstance(value, Tensor)
        )

    def explain(self) -> str:
        """What this optimizer will do, in words: what it asks, and what each parameter gets."""
        self._see_lists()
        lines = [
            f"{type(self).__name__}: order {self.order}, asks for {', '.join(sorted(self.needs))}; "
            f"engine {self.engine.mode}; state per parameter: {', '.join(self.buffers) or 'none'}"
        ]
        for index, group in enumerate(self.param_groups):
            settings = ", ".join(f"{name}={group[name]!r}" for name in self.hypers)
            lines.append(f"group {index}: {settings}")
            for name, param in zip(group["param_names"], group["params"], strict=True):
                kind = "x".join(map(str, param.shape)) or "scalar"
                note = self.note(name, param) if param.requires_grad else "frozen: left alone"
                if self.precision_of(group, param) != group.get("state", "fp32"):
                    note = f"{note}; state in float32".lstrip("; ")
                lines.append(
                    f"  {name}  {kind} {str(param.dtype)[6:]}" + (f"  {note}" * bool(note))
                )
        return "\n".join(lines)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; its settings are checked before anything is changed.

        Keys that are no settings are the user's own and kept, as with torch.optim.
        """
        if not isinstance(param_group, dict):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ParamsTypeError(
                f"expected a parameter group, a dict with the key 'params', got "
                f"{type(param_group).__name__}; write add_param_group({{'params': ...}})"
            )
        groups: list[dict[str, Any]] = getattr(self, "param_groups", [])
        (group,) = named_groups([param_group], taken=groups)
        check_group_keys(group, self.hypers, _CONSTRUCTOR, type(self).__name__)
        settings = {**self.defaults, **group}
        for name, declared in self.hypers.items():
            declared.check(name, settings[name])
        params = [param for _, param in group["params"]]
        check_common(settings, params, groups[0] if groups else None)
        if self.needs != GRADIENT_ONLY and any(map(is_sharded, params)):
            raise NeedsError(
                f"{type(self).__name__} asks for {', '.join(sorted(self.needs))} and cannot yet do "
                "so over sharded parameters (DTensor); use DistributedDataParallel, or a method "
                "that needs gradients only"
            )
        self.check_group(settings)
        group.pop("param_names", None)  # names come with the parameters
        group[RECORD] = {}
        super().add_param_group(group)

    def state_dict(self) -> dict[str, Any]:  # type: ignore[override]
        """State by parameter name, ledger and counters: all that an exact resumption needs."""
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
        """Take over a saved state, matched by parameter name. Checked whole before it is used.

        Nothing of the argument is shared.

        Raises:
            CheckpointError: another method's, damaged, or for other parameters; nothing changed.
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
        """One step. Returns the loss at the point it started from (NaN if it saw none)."""
        assert self.rules, f"{type(self).__name__} has neither a rule nor an update()"
        loss, grads = self.estimator(self, oracle)
        if "grad" not in self.estimator.needs:
            grads = clipped(grads, plain(self.param_groups[0].get("clip_norm")))
        self._grads = grads
        for label, (rule,) in self.rules.items():
            self.apply(rule, grads, label=label)
        return loss

    def label(self, name: str, group: Mapping[str, Any]) -> str:
        """The key in ``rules`` of the rules that a parameter moves by."""
        return next(iter(self.rules), "")

    def note(self, name: str, param: Tensor) -> str:
        """A remark for :meth:`explain` on how this parameter is treated."""
        return ""

    def answer_scale(self, group: Mapping[str, Any]) -> float:
        """How far along ``answer_buffer`` the answer lies from the parameters of a group."""
        return 0.0

    def check_group(self, group: dict[str, Any]) -> None:
        """Check what no single setting can (combinations, kinds of parameters)."""

    def extra_state(self) -> dict[str, Any]:
        """What else a checkpoint must hold: plain numbers, strings, lists and dicts."""
        return {}

    def load_extra_state(self, extra: Mapping[str, Any]) -> None:
        """Take over what :meth:`extra_state` saved."""

    def apply(
        self,
        rule: Rule,
        *inputs: Sequence[Tensor | None],
        label: str | None = None,
        scalars: Scalars | None = None,
        lr: Callable[[Mapping[str, Any]], float] | None = None,
    ) -> None:
        """Run ``rule(param, *buffers, *inputs, **scalars)`` over all parameters that have inputs.

        Weight decay, cautious masking and rounding happen around it.

        Args:
            rule: the arithmetic and its state.
            inputs: lists over :meth:`named_params`; a parameter whose first input is ``None`` is
                left alone and its step count stands still. Coupled weight decay is added to the
                first.
            label: leave out parameters of other labels.
            scalars: the numbers of the rule, where they depend on more than group and step.
            lr: the step size of a group's parameters, where it is not the group's ``lr``.
        """
        given = {
            id(param): values
            for param, *values in zip(self.named_params().values(), *inputs, strict=True)
            if values[0] is not None
        }
        for index, group in enumerate(self.param_groups):
            settings = group if lr is None else {**group, "lr": lr(group)}
            use = Application(self, rule, settings, scalars)
            wanted = [p for p in group["params"] if id(p) in given]
            for each in self._layout.stretches(self, index, wanted):
                if label is None or label == each.label:
                    _apply(use, each.stretch, given)

    def direction(self, index: int = 0, law: Law = "normal") -> Seeded:
        """Random direction number ``index`` of the present step; a step left out has its own."""
        return Seeded(self.seed, self.steps + self.calls.skipped, index, law)

    def buffer(self, name: str) -> dict[str, Tensor]:
        """One buffer of every trainable parameter that has it, by the parameter's name.

        Of buffers in reduced precision the values are copies; rules write buffers.
        """
        self._look()
        found: dict[int, Tensor] = {}
        named = self.named_params()
        for index, group in enumerate(self.param_groups):
            wanted = [p for p in group["params"] if p.requires_grad]
            for each in self._layout.stretches(self, index, wanted):
                if name in each.stretch.buffers:
                    values = each.stretch.values(name)
                    found.update(zip(map(id, each.stretch.params), values, strict=True))
        return {k: found[id(p)] for k, p in named.items() if id(p) in found}

    def entries(self) -> dict[str, dict[str, Any]]:
        """What ``state`` holds for every trainable parameter, by name: counters and slots."""
        self._look()
        for index, group in enumerate(self.param_groups):
            self._layout.stretches(self, index, [p for p in group["params"] if p.requires_grad])
        return {name: self.state[param] for name, param in self.named_params().items()}

    def move_(self, direction: Direction, scale: Callable[[dict[str, Any]], float]) -> None:
        """``x += scale(group) * direction`` in place, for every trainable parameter."""
        for group in self.param_groups:
            named = zip(group["param_names"], group["params"], strict=True)
            targets = {name: param for name, param in named if param.requires_grad}
            direction.add_all_(targets, scale(group), self.engine)

    # Inside --------------------------------------------------------------------------------

    def grads_by_param(self) -> dict[int, Tensor]:
        """The gradients of the step being taken, by the identity of their parameters."""
        if self._grads is None:
            assert self._oracle is not None
            return self._oracle.grads_by_param()
        pairs = zip(self.named_params().values(), self._grads, strict=True)
        return {id(param): grad for param, grad in pairs if grad is not None}

    def labels(self, group: dict[str, Any]) -> list[str]:
        """The label of each parameter of a group."""
        if type(self).label is Optimizer.label:
            return [next(iter(self.rules), "")] * len(group["params"])
        return [self.label(name, group) for name in group["param_names"]]

    def label_buffers(self, label: str) -> tuple[str, ...]:
        """The buffers of parameters of a label."""
        rules = self.rules.get(label, ())
        return tuple(dict.fromkeys(name for rule in rules for name in rule.buffers))

    def precision_of(self, group: Mapping[str, Any], param: Tensor) -> State:
        """The precision in which a parameter's buffers are kept."""
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
        """See what users have changed; a step has looked already."""
        if self._oracle is None:
            with _writable():
                self._layout.current(self)

    def _show_answer(self) -> None:
        if self.answer_buffer is not None:
            with _writable():
                self._begin()
                self._answer.show(self)

    def _finish(self) -> None:
        """What comes after the rule."""
        if self.after is not None:
            for name, param in self.named_params().items():
                self.after(name, param)
        if not self._counts_steps:
            for param in self.named_params().values():
                if entry := self.state.get(param):
                    entry[STEP] = self.steps + 1

    def _oracle_for(self, closure: Any) -> Any:
        """What answers the questions of a step."""
        if closure is None and not self.closures:
            if self.needs != GRADIENT_ONLY:
                raise NeedsError(
                    f"{type(self).__name__} needs {', '.join(sorted(self.needs))}, so it needs a "
                    "closure; write optimizer.step(lambda: criterion(model(x), y))"
                )
            return BackwardDone(self.named_params(), owner=self, **self._policies())
        return self.oracle(closure, advance=True)


#: The constructor's keywords that are no settings of a method.
_CONSTRUCTOR = (
    "engine", "seed", "maximize", "nonfinite", "budget", "ranker", "scaler", "process_group",
    "after",
)  # fmt: skip


@contextlib.contextmanager
def _writable() -> Generator[None]:
    """Without a graph, and with tensors that may be changed later, also in inference mode."""
    if torch.is_inference_mode_enabled():
        with torch.inference_mode(False), torch.no_grad():
            yield
    else:
        with torch.no_grad():
            yield


def _apply(use: Application, stretch: Stretch, given: Mapping[int, Sequence[Any]]) -> None:
    """Apply a rule to the parameters of a stretch that have inputs."""
    moving = [given.get(id(p)) for p in stretch.params]
    step = int(stretch.entries[0][STEP])
    if None in moving or any(entry[STEP] != step for entry in stretch.entries[1:]):
        if len(moving) > 1:  # not all of them move, or not in step with each other
            for alone in stretch.alone():
                _apply(use, alone, given)
        return
    use.run(stretch, list(zip(*moving, strict=True)), step + 1)  # type: ignore[arg-type]
    if use.rule.ends_step:
        for entry in stretch.entries:
            entry[STEP] = step + 1
