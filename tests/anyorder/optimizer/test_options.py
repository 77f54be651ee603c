"""Options: what follows from rules, what is meant by a wrong word, what is no option at all."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from anyorder import SGD, AdamW, Optimizer, ScheduleFreeAdamW
from anyorder.hyper import HyperError, UnknownOptionError, hyper
from anyorder.optimizer.options import (
    COMMON,
    GRADIENT_OPTIONS,
    STATE_OPTIONS,
    TORCH_OPTIONS,
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
    same_in_all_groups,
    signature_of,
)
from anyorder.rules import Rule
from anyorder.rules.adamw import ADAMW, adamw_
from anyorder.rules.descent import AVERAGE, DESCENT, MOVE

DECAY = "decoupled_weight_decay"


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ([], set[str]()),
        ([MOVE], set[str]()),
        ([DESCENT], {"lr", "weight_decay", *GRADIENT_OPTIONS}),
        ([ADAMW], {*ADAMW.hypers, *COMMON}),
        ([AVERAGE, MOVE], {*COMMON} - {DECAY}),  # nothing is decayed around either
        ([Rule(adamw_, ("a",), gradient=False)], set(STATE_OPTIONS)),
        ([Rule(adamw_, own_decay=True, hypers=DESCENT.hypers)],
         {"lr", "weight_decay", *GRADIENT_OPTIONS} - {DECAY}),
    ],
)  # fmt: skip
def test_options_follow_from_rules(rules: list[Rule], expected: set[str]) -> None:
    assert set(options_of({}, {}, rules)) == expected


def test_a_methods_own_option_comes_first() -> None:
    own = {"lr": hyper(0.5, gt=0), DECAY: hyper(False)}
    found = options_of(own, {"lr": hyper(9.0), "radius": hyper(1.0)}, [DESCENT])
    assert found["lr"] is own["lr"] and found[DECAY] is own[DECAY] and "radius" in found
    assert next(iter(found)) == "lr"


def test_a_signature_shows_settings_between_parameters_and_keywords() -> None:
    shown = signature_of(Optimizer, Optimizer, {"lr": hyper(0.5), "seed": hyper(3)})
    assert list(shown.parameters)[:4] == ["params", "lr", "seed", "engine"]
    assert shown.parameters["lr"].default == 0.5 and shown.parameters["seed"].default == 3
    assert "options" not in shown.parameters
    assert inspect.signature(AdamW).parameters["lr"].kind is inspect.Parameter.KEYWORD_ONLY


@pytest.mark.parametrize("option", TORCH_OPTIONS)
def test_options_of_torch_are_answered(option: str) -> None:
    with pytest.raises(UnknownOptionError, match=f"AdamW has no option '{option}': "):
        refuse_unknown_options([option], ["lr"], "AdamW")
    refuse_unknown_options([option], [option], "AdamW")  # a method may have it
    with pytest.raises(UnknownOptionError, match=f"no option '{option}'"):
        AdamW([nn.Parameter(torch.ones(1))], **{option: True})


def test_other_options_name_the_nearest() -> None:
    with pytest.raises(UnknownOptionError, match="Did you mean 'betas'"):
        refuse_unknown_options(["beta"], ["betas", "lr"], "AdamW")


def test_a_setting_by_position_is_answered_with_its_name() -> None:
    x = nn.Parameter(torch.ones(1))
    with pytest.raises(TypeError, match=r"write SGD\(params, lr=0.1, ...\)"):
        SGD([x], 0.1)  # type: ignore[misc]


def group_keys(**given: Any) -> None:
    check_group_keys(given, AdamW.hypers, ("seed", "nonfinite", "after"), "AdamW")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"weight_deca": 0.1}, "Did you mean 'weight_decay'"),
        ({"beta": (0.9, 0.99)}, "Did you mean 'betas'"),
        ({"amsgrad": True}, "no option 'amsgrad': the maximum"),
        ({"capturable": True}, "no CUDA graph"),
        ({"seed": 3}, r"of the whole optimizer .* write AdamW\(groups, seed=3\)"),
    ],
)
def test_keys_of_groups_that_look_like_options_are_refused(given: Any, says: str) -> None:
    with pytest.raises(UnknownOptionError, match=says):
        group_keys(**given)


def test_other_keys_of_groups_are_the_users() -> None:
    group_keys(params=[], lr=0.1, initial_lr=0.1, layer=3, lr_scale=0.5, closure="inner")
    # What groups of torch.optim hold, and what says nothing.
    group_keys(foreach=True, fused=None, amsgrad=False, differentiable=False, after=None)
    with pytest.raises(UnknownOptionError, match="strings for keys, got 3"):
        check_group_keys({3: 1}, {}, (), "AdamW")  # type: ignore[dict-item]


def test_tensors_of_one_element_are_numbers() -> None:
    pair = torch.ones(2)
    assert plain(torch.tensor([0.5])) == 0.5 and type(plain(torch.tensor(3))) is int
    assert plain(pair) is pair and plain(None) is None and plain("a") == "a"


class Communicates:
    """Whatever has the form of a communicator."""

    rank, size = 0, 1

    def mean_(self, tensors: Sequence[Tensor]) -> int:
        return 0

    def exchange(self, message: bytes) -> list[bytes]:
        return [message]


def test_keywords_of_the_constructor_are_looked_at() -> None:
    scaler, talk = torch.amp.GradScaler("cpu"), Communicates()
    assert checked_flag("maximize", True) is True and checked_seed(True + 1) == 2
    assert checked_scaler(scaler) is scaler and checked_scaler(None) is None
    assert (
        checked_callable("ranker", len, "") is len and checked_callable("ranker", None, "") is None
    )
    assert checked_process_group(talk) is talk and checked_process_group(None) is None
    for wrong, says in (
        (lambda: checked_flag("maximize", 1), "maximize: expected True or False, got 1"),
        (lambda: checked_seed(1.5), "seed: expected a whole number, got 1.5"),
        (lambda: checked_seed(True), "got True"),
        (lambda: checked_scaler(3), "scaler: expected a torch.amp.GradScaler, got int"),
        (lambda: checked_callable("after", 3, "of a name"), "after: expected a function of a name"),
        (lambda: checked_process_group("gloo"), "process_group: expected .*, got str"),
    ):
        with pytest.raises(HyperError, match=says):
            wrong()


def tensors(*dtypes: torch.dtype) -> list[Tensor]:
    return [torch.ones(1, dtype=d, requires_grad=True) for d in dtypes]


def test_options_that_depend_on_dtypes() -> None:
    wide, half = tensors(torch.float64), tensors(torch.bfloat16, torch.float32)
    check_common({"state": "8bit", "stochastic_rounding": True}, half, None)
    check_common({"state": "8bit"}, [wide[0].requires_grad_(False)], None)  # frozen
    with pytest.raises(HyperError, match="state: expected 'fp32' for float64 parameters"):
        check_common({"state": "bf16"}, tensors(torch.float64), None)
    with pytest.raises(HyperError, match="expected bfloat16 parameters, got float16, float32"):
        both = tensors(torch.float32, torch.float16)
        check_common({"stochastic_rounding": True}, both, None)


def test_options_that_groups_share() -> None:
    check_common({"clip_norm": 1.0}, [], {"clip_norm": 1.0})
    with pytest.raises(HyperError, match="clip_norm: expected 1.0 as in the first group, got None"):
        check_common({"clip_norm": None}, [], {"clip_norm": 1.0})
    first = [{"eps": torch.tensor(0.5), "lr": 1.0}]
    same_in_all_groups(("eps",), {"eps": 0.5, "lr": 2.0}, first, "why")
    same_in_all_groups(("eps",), {"eps": 0.1}, [], "why")
    with pytest.raises(HyperError, match=r"eps: expected 0.5 as .*, got 0.1; why"):
        same_in_all_groups(("eps",), {"eps": 0.1}, first, "why")


def test_methods_that_decay_themselves_have_no_choice_of_decay() -> None:
    assert DECAY not in ScheduleFreeAdamW.hypers and DECAY in AdamW.hypers
