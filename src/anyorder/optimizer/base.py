"""The base of every method: one line, ``loss = optimizer.step(closure)``, whatever it asks for.

A method is one file in :mod:`anyorder.methods`. It declares its hyper-parameters, what it needs
from the problem and which buffers it keeps, and writes ``update``::

    class SGD(Optimizer):
        order = 1
        needs = frozenset({"grad"})
        buffers = ("velocity",)
        lr: float = hyper(1e-3, ge=0, search="log", low=1e-4, high=1.0)

        def scalars(self, group, step):
            return {"lr": group["lr"]}

        def update(self, oracle):
            loss, grads = oracle.grad()
            self.apply(sgd_, grads)
            return loss
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, dataclass_transform

import torch
from torch import Tensor, nn

from anyorder.engine import Engine, Mode
from anyorder.engine.formats import Format, State, format_for
from anyorder.engine.program import Rule
from anyorder.engine.stretches import Stretch, stretches
from anyorder.hyper import Hyper, HyperError, hyper, refuse_unknown
from anyorder.model.embedding import exempt
from anyorder.model.params import named_groups
from anyorder.model.sharding import is_sharded, local
from anyorder.optimizer.apply import Call
from anyorder.optimizer.checkpoint import CheckpointError, load_into, saved
from anyorder.oracle.backward_done import BackwardDone
from anyorder.oracle.closure_oracle import ClosureOracle, Learned
from anyorder.oracle.closures import Closure, Ranker
from anyorder.oracle.gradients import POLICIES, Nonfinite, SkipStep
from anyorder.oracle.ledger import Budget, Calls
from anyorder.oracle.oracle import NeedsError, Oracle, Policies
from anyorder.points.directions import Direction, Law, Seeded
from anyorder.points.substitution import hidden

if TYPE_CHECKING:
    import torch.distributed

__all__ = ["CheckpointError", "NeedsError", "Optimizer"]

#: The needs of methods that also work after a plain ``loss.backward()``.
GRADIENT_ONLY = frozenset({"grad"})
#: Options of every method that takes gradients, declared once.
COMMON: dict[str, Hyper] = {
    "decoupled_weight_decay": hyper(
        True, doc="decay the weights themselves; else add the decay to the gradient (L2)"
    ),
    "clip_norm": hyper(None, gt=0, unit="gradient", doc="longest gradient, over all parameters"),
    "cautious": hyper(False, doc="leave out moves that do not point downhill"),
    "stochastic_rounding": hyper(False, doc="round bfloat16 weights up or down at random"),
    "state": hyper("fp32", choices=("fp32", "bf16", "8bit"), doc="precision of the buffers"),
    "state_block": hyper(256, choices=(256, 2048), doc="elements per scale of 8-bit buffers"),
}


class _GroupValue:
    """Reads a hyper-parameter from the first group, where schedulers keep it up to date."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, instance: Optimizer | None, owner: type) -> Any:
        return self if instance is None else instance.param_groups[0][self.name]


@dataclass_transform(kw_only_default=True, field_specifiers=(hyper,))
class Optimizer(torch.optim.Optimizer, ABC):
    """A method of any order.

    Subclasses are final. They set the class attributes and write :meth:`update`.

    Args:
        params: a module (names are kept, buffers are safe), parameters, named parameters, or
            groups of these with their own hyper-parameters.
        engine: ``auto``, ``eager`` or ``compiled``; the numbers are the same.
        seed: seed of every random direction the method draws.
        maximize: climb instead of descend.
        nonfinite: what a NaN or infinite loss or gradient does. ``raise`` (default) stops before
            anything is changed; ``skip`` leaves the step out and counts it in ``calls.skipped``;
            ``ignore`` does not look, as torch.optim.
        budget: limits on what may be asked; ``BudgetExhausted`` is raised before the question.
        ranker: orders candidate points, for methods that need ``rank``.
        scaler: a ``torch.amp.GradScaler`` for closures under float16 autocast.
        process_group: average answers over these processes (default: the group of a
            DistributedDataParallel module, else none).
        options: the method's hyper-parameters, by name.
    """

    order: ClassVar[int | str] = 1
    needs: ClassVar[frozenset[str]] = frozenset({"grad"})
    buffers: ClassVar[tuple[str, ...]] = ()
    #: Whether the rule decays the weights itself, in a way of its own.
    own_decay: ClassVar[bool] = False
    #: Whether a falling learning rate is meant for it; some methods stand in for a schedule.
    scheduled: ClassVar[bool] = True
    #: Buffers that are never negative, such as second moments.
    nonnegative: ClassVar[frozenset[str]] = frozenset()
    hypers: ClassVar[dict[str, Hyper]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = {name: value for name, value in vars(cls).items() if isinstance(value, Hyper)}
        kept = {name: value for name, value in cls.hypers.items() if name not in COMMON}
        cls.hypers = {**kept, **own}
        common = COMMON if "grad" in cls.needs else {}
        absent = set() if cls.buffers else {"state", "state_block"}
        if "weight_decay" not in cls.hypers or cls.own_decay:
            absent.add("decoupled_weight_decay")
        for name, declared in common.items():
            if name not in absent:
                cls.hypers.setdefault(name, declared)
        for name in own:
            setattr(cls, name, _GroupValue(name))
        common = inspect.signature(Optimizer.__init__).parameters.values()
        keyword = inspect.Parameter.KEYWORD_ONLY
        cls.__signature__ = inspect.Signature(  # what help() and editors show
            [
                *(p for p in common if p.name == "params"),
                *(inspect.Parameter(n, keyword, default=h.default) for n, h in cls.hypers.items()),
                *(p for p in common if p.kind is keyword),
            ]
        )

    def __init__(
        self,
        params: Any,
        *,
        engine: Mode = "auto",
        seed: int = 0,
        maximize: bool = False,
        nonfinite: Nonfinite = "raise",
        budget: Budget | None = None,
        ranker: Ranker | None = None,
        scaler: Any = None,
        process_group: torch.distributed.ProcessGroup | None = None,
        **options: Any,
    ) -> None:
        if nonfinite not in POLICIES:
            raise ValueError(f"nonfinite: expected one of {list(POLICIES)}, got {nonfinite!r}")
        common = [p for p in inspect.signature(Optimizer.__init__).parameters if p != "self"]
        refuse_unknown(options, [*self.hypers, *common[1:-1]], type(self).__name__)
        self.module = params if isinstance(params, nn.Module) else None
        self.engine, self.seed, self.maximize = Engine(engine), int(seed), bool(maximize)
        self.nonfinite: Nonfinite = nonfinite
        self.budget, self.ranker, self.scaler = budget, ranker, scaler
        self.process_group = process_group or getattr(self.module, "process_group", None)
        self.calls, self.steps = Calls(), 0
        self._stretches: list[list[Stretch]] = []
        self._learned = Learned(opaque=hidden(self.module))
        self._oracle: Oracle | None = None  # that of the step being taken
        defaults = {name: h.default for name, h in self.hypers.items()} | options
        super().__init__(named_groups(params), defaults)

    # For users -----------------------------------------------------------------------------

    def step(  # type: ignore[override]
        self, closure: Closure | Sequence[Closure] | None = None
    ) -> Tensor | None:
        """Take one step.

        Args:
            closure: returns the loss of one fixed batch and does nothing else; or a list of
                closures, one for each of several equal micro-batches, whose answers are averaged
                (gradient accumulation). Methods that need gradients only also work without it,
                after ``loss.backward()``.

        Returns:
            The loss the method saw, shape (), or ``None`` without a closure. Methods that never
            see a value (rankings) return NaN.

        Raises:
            NeedsError: the method needs a closure and got none.
            ClosureError: the closure does not do what the method needs.
            NonFiniteError: the loss or a gradient is not finite; nothing was changed.
            BudgetExhausted: the next question would exceed the budget; nothing was changed.
        """
        if self.budget is not None:
            self.budget.check_step(self.steps)
        try:
            with torch.no_grad():
                self._oracle = (
                    self._given() if closure is None else self.oracle(closure, advance=True)
                )
                loss = self.update(self._oracle)
        except SkipStep as skipped:
            self.calls.skipped += 1
            return None if closure is None else skipped.loss
        finally:
            self._oracle = None
        self.steps += 1
        if closure is None:
            return None
        return -loss if self.maximize else loss

    def oracle(
        self, closure: Closure | Sequence[Closure], *, advance: bool = False
    ) -> ClosureOracle:
        """The oracle a step would use: same parameters, ledger, budget and policies."""
        return ClosureOracle(
            closure,
            self.named_params(),
            ranker=self.ranker,
            engine=self.engine,
            advance=advance,
            legacy=self.needs == GRADIENT_ONLY,
            learned=self._learned,
            **self._policies(),
        )

    def _policies(self) -> Policies:
        """What holds for every answer, wherever it comes from."""
        return {
            "calls": self.calls,
            "budget": self.budget,
            "maximize": self.maximize,
            "nonfinite": self.nonfinite,
            "clip": self.param_groups[0].get("clip_norm"),
            "module": self.module,
            "scaler": self.scaler,
            "group": self.process_group,
        }

    def named_params(self) -> dict[str, Tensor]:
        """The trainable parameters by name, in order of the groups."""
        return {
            name: param
            for group in self.param_groups
            for name, param in zip(group["param_names"], group["params"], strict=True)
            if param.requires_grad
        }

    @contextlib.contextmanager
    def answer(self) -> Generator[None]:
        """The parameters hold the point to be judged; afterwards they are as they were.

        For most methods that is the point they stand at. Methods that take gradients elsewhere
        (averages, extrapolations) move there for as long as the context lasts.
        """
        if type(self).to_answer is Optimizer.to_answer:
            yield
            return
        here = [p for group in self.param_groups for p in group["params"]]
        copies = [local(p).detach().clone() for p in here]
        with torch.no_grad():
            self.to_answer()
        try:
            yield
        finally:
            with torch.no_grad():
                for param, copy in zip(here, copies, strict=True):
                    local(param).copy_(copy)

    def explain(self) -> str:
        """What this optimizer will do, in words: what it asks, and what each parameter gets."""
        lines = [
            f"{type(self).__name__}: order {self.order}, asks for {', '.join(sorted(self.needs))}; "
            f"engine {self.engine.mode}; state per parameter: {', '.join(self.buffers) or 'none'}"
        ]
        exempted = exempt(self.module)
        for index, group in enumerate(self.param_groups):
            settings = ", ".join(f"{name}={group[name]!r}" for name in self.hypers)
            lines.append(f"group {index}: {settings}")
            for name, param in zip(group["param_names"], group["params"], strict=True):
                kind = "x".join(map(str, param.shape)) or "scalar"
                note = self.note(name, param) if param.requires_grad else "frozen: left alone"
                if _state_of(group, param, exempted) != group.get("state", "fp32"):
                    note = f"{note}; state in float32".lstrip("; ")
                lines.append(
                    f"  {name}  {kind} {str(param.dtype)[6:]}" + (f"  {note}" * bool(note))
                )
        return "\n".join(lines)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; its hyper-parameters are checked before anything is changed."""
        (group,) = named_groups([param_group], taken=getattr(self, "param_groups", []))
        known = {"params", "initial_lr", "param_names"}
        refuse_unknown(
            set(group) - known, self.hypers, f"a parameter group of {type(self).__name__}"
        )
        for name, declared in self.hypers.items():
            declared.check(name, group.get(name, self.defaults[name]))
        self._check_common({**self.defaults, **group})
        self.check_group({**self.defaults, **group})
        super().add_param_group(group)
        self._stretches.append([])

    def state_dict(self) -> dict[str, Any]:  # type: ignore[override]
        """State by parameter name, ledger and counters: all that an exact resumption needs."""
        extra = {
            "method": type(self).__name__,
            "steps": self.steps,
            "seed": self.seed,
            "calls": self.calls.to_dict(),
            "work": dict(self.engine.work),
            **self.extra_state(),
        }
        return saved(super().state_dict(), extra)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:  # type: ignore[override]
        """Take over a saved state, matched by parameter name. Checked whole before it is used.

        Raises:
            CheckpointError: another method's, damaged, or for other parameters; nothing changed.
        """
        extra = load_into(self, state_dict)
        self.steps, self.seed = int(extra["steps"]), int(extra["seed"])
        self.calls.update(extra["calls"])
        self.engine.work = dict(extra["work"])
        self.load_extra_state(extra)

    # For methods ---------------------------------------------------------------------------

    @abstractmethod
    def update(self, oracle: Oracle) -> Tensor:
        """One step. Returns the loss at the point it started from (NaN if it saw none)."""

    def scalars(self, group: dict[str, Any], step: int) -> dict[str, float]:
        """The numbers a rule needs in step ``step`` (from 1) of a group's parameters."""
        return {}

    def buffers_of(self, group: dict[str, Any]) -> tuple[str, ...]:
        """The buffers kept for the parameters of a group (default: all of the method's)."""
        return self.buffers

    def note(self, name: str, param: Tensor) -> str:
        """A remark for :meth:`explain` on how this parameter is treated."""
        return ""

    def to_answer(self) -> None:
        """Move the parameters to the point to be judged, for :meth:`answer`.

        Overridden by methods that train elsewhere; with rules under ``apply(..., advance=False)``.
        """

    def check_group(self, group: dict[str, Any]) -> None:
        """Check what no single hyper-parameter can (combinations, kinds of parameters)."""

    def extra_state(self) -> dict[str, Any]:
        """What else a checkpoint must hold: plain numbers, strings, lists and dicts."""
        return {}

    def load_extra_state(self, extra: Mapping[str, Any]) -> None:
        """Take over what :meth:`extra_state` saved."""

    def apply(
        self,
        rule: Rule,
        *inputs: Sequence[Tensor | None],
        where: Callable[[dict[str, Any]], bool] | None = None,
        advance: bool = True,
    ) -> None:
        """Run ``rule(param, *buffers, *inputs, **scalars)`` over all parameters that have inputs.

        Weight decay, cautious masking and rounding happen around it.

        Args:
            rule: the arithmetic, see :mod:`anyorder.engine.engine`.
            inputs: lists over :meth:`named_params`; a parameter whose first input is ``None`` is
                left alone and its step count stands still. Coupled weight decay is added to the
                first.
            where: tells which groups the rule is for (default: all).
            advance: whether this ends the step of the parameters it is for. A rule that only takes
                a gradient into buffers does not; nothing is then done around it.
        """
        given = {
            id(param): values
            for param, *values in zip(self.named_params().values(), *inputs, strict=True)
            if values[0] is not None
        }
        for index, group in enumerate(self.param_groups):
            if where is not None and not where(group):
                continue
            call = Call(self, rule, group, advance, self._slopes)
            for stretch in self._arranged(index, [p for p in group["params"] if id(p) in given]):
                self._apply_stretch(call, stretch, given)

    def direction(self, index: int = 0, law: Law = "normal") -> Seeded:
        """Random direction number ``index`` of the present step."""
        return Seeded(self.seed, self.steps, index, law)

    def buffer(self, name: str) -> dict[str, Tensor]:
        """One buffer of every trainable parameter that has it, by the parameter's name.

        Of buffers in reduced precision the values are copies; rules write buffers.
        """
        found: dict[int, Tensor] = {}
        for index, group in enumerate(self.param_groups):
            for stretch in self._arranged(index, [p for p in group["params"] if p.requires_grad]):
                if name in stretch.buffers:
                    found.update(zip(map(id, stretch.params), stretch.values(name), strict=True))
        return {k: found[id(p)] for k, p in self.named_params().items() if id(p) in found}

    def follow_buffers(self) -> None:
        """Start state afresh in groups whose settings have come to need other buffers."""
        for index, group in enumerate(self.param_groups):
            kept = self.buffers_of(group)
            if any(tuple(stretch.buffers) != kept for stretch in self._stretches[index]):
                self._stretches[index] = []
                for param in group["params"]:
                    self.state.pop(param, None)

    def move_(self, direction: Direction, scale: Callable[[dict[str, Any]], float]) -> None:
        """``x += scale(group) * direction`` in place, for every trainable parameter."""
        for group in self.param_groups:
            named = zip(group["param_names"], group["params"], strict=True)
            targets = {name: param for name, param in named if param.requires_grad}
            direction.add_all_(targets, scale(group), self.engine)

    # Inside --------------------------------------------------------------------------------

    def _arranged(self, index: int, params: Iterable[Tensor]) -> list[Stretch]:
        """The stretches of a group, with room made for parameters seen for the first time."""
        wanted = {id(p) for p in params if p not in self.state}
        if wanted:
            group = self.param_groups[index]
            named = zip(group["param_names"], group["params"], strict=True)
            new = [(name, param) for name, param in named if id(param) in wanted]
            buffers = self.buffers_of(group)
            made: list[Stretch] = []
            exempted = exempt(self.module)
            states: set[State] = {group.get("state", "fp32"), "fp32"}
            for state in sorted(states):
                chosen = [pair for pair in new if _state_of(group, pair[1], exempted) == state]
                form = functools.partial(self._format, group, state)
                made += stretches(chosen, buffers, form)
            for stretch in made:
                stretch.entries = [{"step": 0, **views} for views in stretch.views()]
                self.state.update(zip(stretch.params, stretch.entries, strict=True))
            self._stretches[index] = [*self._stretches[index], *made]
        return self._stretches[index]

    def _format(self, group: dict[str, Any], state: State, name: str, size: int) -> Format:
        return format_for(
            state,
            size,
            nonnegative=name in self.nonnegative,
            block=group.get("state_block", 0),
        )

    def _apply_stretch(
        self, call: Call, stretch: Stretch, given: Mapping[int, Sequence[Any]]
    ) -> None:
        moving = [given.get(id(p)) for p in stretch.params]
        step = stretch.entries[0]["step"]
        if None in moving or any(entries["step"] != step for entries in stretch.entries[1:]):
            if len(moving) > 1:  # not all of them move, or not in step with each other
                for alone in stretch.alone():
                    self._apply_stretch(call, alone, given)
            return
        call.run(stretch, list(zip(*moving, strict=True)), step + 1)  # type: ignore[arg-type]
        if call.advance:
            for entries in stretch.entries:
                entries["step"] = step + 1

    def _check_common(self, group: dict[str, Any]) -> None:
        """Check the options of :data:`COMMON` that depend on parameters or on other groups."""
        dtypes = {param.dtype for _, param in group["params"] if param.requires_grad}
        if group.get("state", "fp32") != "fp32" and torch.float64 in dtypes:
            raise HyperError(
                f"state: expected 'fp32' for float64 parameters, got {group['state']!r}; give them "
                "a group of their own, or make them float32"
            )
        if group.get("stochastic_rounding") and torch.bfloat16 not in dtypes:
            raise HyperError(
                "stochastic_rounding: expected bfloat16 parameters, got "
                f"{', '.join(sorted(str(d)[6:] for d in dtypes))}; leave it out for them"
            )
        if self.param_groups and group.get("clip_norm") != self.param_groups[0].get("clip_norm"):
            raise HyperError(
                f"clip_norm: expected {self.param_groups[0]['clip_norm']!r} as in the first group, "
                f"got {group['clip_norm']!r}; the gradient is clipped as a whole"
            )
        if self.needs != GRADIENT_ONLY and any(is_sharded(p) for _, p in group["params"]):
            raise NeedsError(
                f"{type(self).__name__} asks for {', '.join(sorted(self.needs))} and cannot yet do "
                "so over sharded parameters (DTensor); use DistributedDataParallel, or a method "
                "that needs gradients only"
            )

    def _slopes(self) -> dict[int, Tensor]:
        """The gradients of the step being taken, by the identity of their parameters."""
        assert self._oracle is not None
        return self._oracle.grads_by_param()

    def _given(self) -> Oracle:
        """An oracle over gradients that ``backward()`` has already put into ``.grad``."""
        if self.needs != GRADIENT_ONLY:
            raise NeedsError(
                f"{type(self).__name__} needs {', '.join(sorted(self.needs))}, so it needs a "
                "closure; write optimizer.step(lambda: criterion(model(x), y))"
            )
        return BackwardDone(self.named_params(), owner=self, **self._policies())

    def __getstate__(self) -> dict[str, Any]:
        """Everything, for copies and pickles; compiled kernels are looked up again."""
        return {**self.__dict__, "ranker": None, "scaler": None, "process_group": None}


def _state_of(group: Mapping[str, Any], param: Tensor, exempted: set[int]) -> State:
    """The precision in which the buffers of a parameter are kept."""
    return "fp32" if id(param) in exempted else group.get("state", "fp32")
