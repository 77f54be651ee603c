"""The options of optimizers: those that follow from a method's rules, and what users may give."""

from __future__ import annotations

import difflib
import inspect
import operator
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from anyorder.errors import AnyOrderError
from anyorder.hyper import Hyper, HyperError, UnknownOptionError, hyper, refuse_unknown
from anyorder.optimizer.entry import BLOCKS
from anyorder.oracle.communicator import Communicator
from anyorder.rules import Rule

#: Options of rules whose first input is a gradient.
GRADIENT_OPTIONS: dict[str, Hyper] = {
    "decoupled_weight_decay": hyper(
        True, doc="decay the weights themselves; else add the decay to the gradient (L2)"
    ),
    "clip_norm": hyper(None, gt=0, unit="gradient", doc="longest gradient, over all parameters"),
    "cautious": hyper(False, doc="leave out moves that do not point downhill"),
    "stochastic_rounding": hyper(False, doc="round bfloat16 weights up or down at random"),
}
#: Options of rules that keep buffers.
STATE_OPTIONS: dict[str, Hyper] = {
    "state": hyper("fp32", choices=("fp32", "bf16", "8bit"), doc="precision of the buffers"),
    "state_block": hyper(256, choices=BLOCKS, doc="elements per scale of 8-bit buffers"),
}
COMMON: dict[str, Hyper] = GRADIENT_OPTIONS | STATE_OPTIONS

_SPEED = "rules are fused by the engine; leave it out, or pass engine='compiled'"
#: What to say to users of torch.optim about options that methods here do not have.
TORCH_OPTIONS: dict[str, str] = {
    "foreach": _SPEED,
    "fused": _SPEED,
    "capturable": "a step reads numbers on the host, so no CUDA graph can capture it; leave it "
    "out, or pass engine='compiled' for speed",
    "differentiable": "steps are not differentiated; leave it out",
    "amsgrad": "the maximum of second moments is not kept; leave it out",
}
#: The key under which checkpoints keep the optimizer's own record. Live groups have it because
#: flattened checkpoints hold what live groups have; methods keep there what belongs to a group.
RECORD = "anyorder"
#: Keys of a group that say something else than a setting of the method.
GROUP_KEYS = ("params", "param_names", "closure", RECORD)
#: Keys that schedulers of torch.optim keep in groups.
SCHEDULER_KEYS = (
    "initial_lr", "max_lr", "min_lr", "swa_lr", "base_momentum", "max_momentum",
)  # fmt: skip
#: Options that have to fit parameters or other groups.
JOINT = frozenset({"state", "stochastic_rounding", "clip_norm"})
#: Schedules that end at zero may miss it by a rounding error.
ROUNDING = 1e-12


def options_of(
    own: Mapping[str, Hyper], inherited: Mapping[str, Hyper], rules: Iterable[Rule]
) -> dict[str, Hyper]:
    """The settings of a method: its own, those of its rules, and what follows from its rules."""
    rules = list(rules)
    found = {name: value for name, value in inherited.items() if name not in COMMON} | dict(own)
    for rule in rules:
        for name, declared in rule.hypers.items():
            found.setdefault(name, declared)
    if any(rule.gradient for rule in rules):
        for name, declared in GRADIENT_OPTIONS.items():
            found.setdefault(name, declared)
        ends = [rule for rule in rules if rule.ends_step and rule.gradient]
        decays = "weight_decay" in found and not all(rule.own_decay for rule in ends)
        if not decays and "decoupled_weight_decay" not in own:
            found.pop("decoupled_weight_decay", None)
    if any(rule.buffers for rule in rules):
        for name, declared in STATE_OPTIONS.items():
            found.setdefault(name, declared)
    return found


def refuse_shared_names(
    estimated: Mapping[str, Hyper], rules: Iterable[Rule], own: Iterable[str], owner: str
) -> None:
    """Refuse a setting that an estimator and a rule both read and mean differently.

    Args:
        estimated: the settings of the estimator.
        rules: the rules of the method.
        own: settings that the method declares itself; those are shared on purpose.
        owner: the name of the method.
    """
    for rule in rules:
        for name, declared in rule.hypers.items():
            if name not in own and estimated.get(name, declared) != declared:
                raise HyperError(
                    f"{owner}: its estimator and the rule {rule.function.__name__} both read "
                    f"{name!r}; rename that of the estimator, or declare {name} in {owner} if they "
                    "share it"
                )


def signature_of(cls: type, base: type, hypers: Mapping[str, Hyper]) -> inspect.Signature:
    """What ``help()`` and editors show of a method's constructor.

    Parameters, keywords of the constructors of ``cls`` and its bases, settings, and the common
    keywords, which are those of ``base``.
    """
    keyword = inspect.Parameter.KEYWORD_ONLY
    common = inspect.signature(base.__init__).parameters
    own = {
        p.name: inspect.Parameter(p.name, keyword, default=p.default)
        for each in cls.__mro__
        if issubclass(each, base) and "__init__" in vars(each)
        for p in inspect.signature(each.__init__).parameters.values()
        if p.kind is keyword and p.name not in {*common, *hypers}
    }
    return inspect.Signature(
        [
            common["params"],
            *own.values(),
            *(inspect.Parameter(n, keyword, default=h.default) for n, h in hypers.items()),
            *(p for n, p in common.items() if p.kind is keyword and n not in hypers),
        ]
    )


def refuse_unknown_options(given: Iterable[str], known: Iterable[str], owner: str) -> None:
    """As :func:`~anyorder.hyper.refuse_unknown`, with an answer to what torch.optim has."""
    known = list(known)
    for name in given:
        if name in TORCH_OPTIONS and name not in known:
            raise UnknownOptionError(f"{owner} has no option {name!r}: {TORCH_OPTIONS[name]}.")
    refuse_unknown(given, known, owner)


class SettingError(AnyOrderError, AttributeError):
    """A setting was written to the optimizer instead of its groups."""


class Checked:
    """The groups as they were when their settings were last checked.

    Schedulers and users change settings between steps; what is changed is checked before a step
    uses it, so that a wrong value changes nothing.
    """

    def __init__(self) -> None:
        self._known: list[dict[str, Any]] = []

    def look(self, optimizer: Any, reserved: Iterable[str]) -> bool:
        """Check what has changed; whether that is the precision of state.

        Args:
            optimizer: whose groups they are.
            reserved: names of options of the whole optimizer.

        Raises:
            HyperError: a value that the option may not take, or that does not fit the others.
            UnknownOptionError: an option of the whole optimizer, or one that there is not.
        """
        groups: list[dict[str, Any]] = optimizer.param_groups
        if len(self._known) >= len(groups) and all(map(_unchanged, self._known, groups)):
            return False
        known = [*self._known, *[{}] * len(groups)]
        changes = [_changed(k, group) for k, group in zip(known, groups, strict=False)]
        hypers: Mapping[str, Hyper] = optimizer.hypers
        for changed in changes:
            check_group_keys(changed, hypers, reserved, type(optimizer).__name__, spelling=False)
            for name in hypers.keys() & changed.keys():
                if not (name == "lr" and _is_almost_zero(changed[name])):
                    hypers[name].check(name, changed[name])
        names = frozenset[str]().union(*changes)
        check_together(optimizer, names)
        again = any(changed for _, changed in zip(self._known, changes, strict=False))
        self.accept(groups)
        return again and not names.isdisjoint(STATE_OPTIONS)

    def accept(self, groups: Iterable[Mapping[str, Any]]) -> None:
        """Take the groups as they are for checked."""
        self._known = [dict(group) for group in groups]

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies look for themselves."""
        return Checked, ()


def check_together(optimizer: Any, names: Iterable[str]) -> None:
    """Check those of the settings ``names`` that have to fit parameters or each other."""
    names, groups = frozenset(names), optimizer.param_groups
    for group in groups if names & JOINT else ():
        check_common(group, group["params"], groups[0])
    for group in groups if names & optimizer.hypers.keys() else ():
        optimizer.check_group(group)


def _unchanged(known: Mapping[str, Any], group: Mapping[str, Any]) -> bool:
    return len(known) == len(group) and all(map(operator.is_, known.values(), group.values()))


def _changed(known: Mapping[str, Any], group: Mapping[str, Any]) -> dict[str, Any]:
    """What is another object in a group than it was."""
    return {k: v for k, v in group.items() if k not in known or known[k] is not v}


def _is_almost_zero(value: Any) -> bool:
    value = plain(value)
    return isinstance(value, (int, float)) and -ROUNDING < value < 0.0


def check_group_keys(
    group: Mapping[str, Any],
    hypers: Mapping[str, Hyper],
    reserved: Iterable[str],
    owner: str,
    *,
    spelling: bool = True,
) -> None:
    """Refuse keys of a group that look like settings and are none; others are the user's own.

    Args:
        group: what is in it.
        hypers: the settings.
        reserved: names of options of the whole optimizer.
        owner: the name of the method.
        spelling: whether names are compared with those of settings.
    """
    for name, value in group.items():
        if name in hypers or name in GROUP_KEYS or name in SCHEDULER_KEYS:
            continue
        if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UnknownOptionError(f"a parameter group has strings for keys, got {name!r}")
        if name in TORCH_OPTIONS:
            if value and name not in ("foreach", "fused"):
                raise UnknownOptionError(f"{owner} has no option {name!r}: {TORCH_OPTIONS[name]}.")
            continue
        if name in reserved and value not in (None, False):
            raise UnknownOptionError(
                f"{name!r} is an option of the whole optimizer and not of a group; write "
                f"{owner}(groups, {name}={value!r})"
            )
        close = difflib.get_close_matches(name, list(hypers), n=1, cutoff=0.8)
        if close and spelling:
            raise UnknownOptionError(
                f"a parameter group of {owner} has no option {name!r}. Did you mean "
                f"{close[0]!r}? Keys of your own must not be spelt like one of {sorted(hypers)}."
            )


def plain(value: Any) -> Any:
    """A setting as a Python number where it came as a tensor of one element."""
    return value.item() if isinstance(value, Tensor) and value.numel() == 1 else value


def checked_flag(name: str, value: Any) -> bool:
    """``value``, which has to be True or False."""
    if not isinstance(value, bool):
        raise HyperError(f"{name}: expected True or False, got {value!r}")
    return value


def checked_seed(value: Any) -> int:
    """``value``, which has to be a whole number."""
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise HyperError(f"seed: expected a whole number, got {value!r}") from None


def checked_scaler(value: Any) -> Any:
    """A gradient scaler, by what it can do."""
    if value is not None and not all(
        callable(getattr(value, name, None)) for name in ("scale", "unscale_", "update")
    ):
        raise HyperError(
            f"scaler: expected a torch.amp.GradScaler, got {type(value).__name__}; leave it out "
            "unless the closure runs under float16 autocast"
        )
    return value


def checked_callable(name: str, value: Any, shape: str) -> Any:
    """A function, or None."""
    if value is not None and not callable(value):
        raise HyperError(f"{name}: expected a function {shape}, got {value!r}")
    return value


def checked_process_group(value: Any) -> Any:
    """A process group, or what stands for one."""
    if value is not None and not isinstance(value, Communicator) and not _is_group(value):
        raise HyperError(
            f"process_group: expected a torch.distributed.ProcessGroup, got {type(value).__name__}"
        )
    return value


def _is_group(value: Any) -> bool:
    dist = torch.distributed
    return dist.is_available() and (
        isinstance(value, dist.ProcessGroup) or value is dist.group.WORLD
    )


def check_common(
    group: Mapping[str, Any],
    params: Iterable[Tensor],
    first: Mapping[str, Any] | None,
) -> None:
    """Check the options of :data:`COMMON` that depend on parameters or on other groups."""
    dtypes = {param.dtype for param in params if param.requires_grad}
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
    if first is not None and group.get("clip_norm") != first.get("clip_norm"):
        raise HyperError(
            f"clip_norm: expected {first['clip_norm']!r} as in the first group, "
            f"got {group['clip_norm']!r}; the gradient is clipped as a whole"
        )


def same_in_all_groups(
    names: Iterable[str], group: Mapping[str, Any], groups: list[dict[str, Any]], why: str
) -> None:
    """Refuse a group whose settings ``names`` differ from those of the first group.

    Args:
        names: settings that one answer serves for all groups.
        group: the new group.
        groups: those that there are.
        why: a reason, for the message.
    """
    for name in names if groups else ():
        if plain(group[name]) != plain(groups[0][name]):
            raise HyperError(
                f"{name}: expected {plain(groups[0][name])!r} as in the first group, got "
                f"{plain(group[name])!r}; {why}"
            )
