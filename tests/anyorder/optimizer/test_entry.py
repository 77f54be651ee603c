"""One parameter's entry in ``optimizer.state``: what it begins as, and what does not fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from anyorder.errors import AnyOrderError
from anyorder.optimizer.entry import Slot, StateError, block_of, check_entry


def rows(param: Tensor, group: Mapping[str, Any]) -> tuple[int, ...] | None:
    return (len(param), group["rank"]) if param.ndim == 2 else None


class Declared:
    """What a method declares."""

    slots = {"factor": Slot(rows), "chosen": Slot(rows, dtype=torch.int64)}  # noqa: RUF012
    counters = ("estimates",)


GROUP = {"rank": 2}


def entry(**changed: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "step": 3, "estimates": 1, "mean": torch.ones(3, 5), "factor": torch.ones(3, 2),
        "chosen": torch.ones(3, 2, dtype=torch.int64), "own": "anything",
    } | changed  # fmt: skip
    return {key: value for key, value in found.items() if value is not None}


def check(given: Mapping[str, Any], error: type[AnyOrderError] = StateError) -> None:
    param = nn.Parameter(torch.zeros(3, 5))
    check_entry(Declared(), "w", param, GROUP, given, ["mean"], error)


@pytest.mark.parametrize(
    ("slot", "param", "expected"),
    [
        (Slot(rows), torch.zeros(3, 4), torch.zeros(3, 2)),
        (Slot(rows, fill=2.5), torch.zeros(3, 4), torch.full((3, 2), 2.5)),
        (Slot(rows), torch.zeros(3), None),
        (Slot(lambda p, _: (2, 2), fill="eye"), torch.zeros(3), torch.eye(2)),
        (Slot(rows), torch.zeros(3, 4).bfloat16(), torch.zeros(3, 2)),
        (Slot(rows), torch.zeros(3, 4).double(), torch.zeros(3, 2).double()),
        (Slot(rows, dtype=torch.bool), torch.zeros(3, 4), torch.zeros(3, 2).bool()),
        (Slot(lambda p, _: ()), torch.zeros(3), torch.zeros(())),
    ],
)
def test_a_slot_begins_as_it_is_declared(
    slot: Slot, param: Tensor, expected: Tensor | None
) -> None:
    made = slot.make(param, GROUP)
    if expected is None:
        assert made is None
    else:
        assert made is not None and made.dtype is expected.dtype
        assert torch.equal(made, expected)


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"step": torch.tensor(3.0)},  # as torch.optim counts
        {"step": 3.0},
        {"estimates": None},  # counters and slots begin late where they are missing
        {"factor": None},
        {"mean": torch.ones(3, 5).bfloat16()},
        {"mean": torch.zeros(1, 256, dtype=torch.uint8), "mean.scale": torch.ones(1, 1)},
    ],
)
def test_what_fits_is_let_through(changed: dict[str, Any]) -> None:
    check(entry(**changed))


CODES, SCALES = torch.zeros(1, 256, dtype=torch.uint8), torch.ones(1, 1)
MISFITS: list[tuple[dict[str, Any], str]] = [
    ({"mean": None}, "lacks mean; give it whole, or remove it"),
    ({"step": None, "mean": None}, "lacks mean, step"),
    ({"step": -1}, "step of w: expected a whole number >= 0, got -1"),
    ({"step": 1.5}, "got 1.5"),
    ({"step": True}, "got True"),
    ({"step": "3"}, "got '3'"),
    ({"step": torch.ones(2)}, "step of w"),
    ({"estimates": None, "step": [1]}, "step of w"),
    ({"estimates": -2}, "estimates of w"),
    ({"mean": [1.0]}, "mean of w: expected a tensor, got list"),
    ({"mean": torch.ones(5, 3)}, r"mean of w has shape \(5, 3\); expected \(3, 5\)"),
    ({"mean": torch.ones(3, 5).long()}, "expected real numbers, got torch.int64"),
    ({"mean": torch.ones(3, 5).to_sparse()}, "expected a dense tensor"),
    ({"mean": torch.ones(3, 5, device="meta")}, "expected a dense tensor with data"),
    ({"mean": torch.ones(3, 5), "mean.scale": SCALES}, "no matrix of 8-bit codes"),
    ({"mean": CODES[:, :9], "mean.scale": SCALES}, "no matrix of 8-bit codes"),
    ({"mean": CODES.expand(2, 256), "mean.scale": SCALES}, r"expected \(1, 256\)"),
    ({"mean": CODES, "mean.scale": torch.ones(2, 1)}, r"mean.scale of w has shape \(2, 1\)"),
    ({"mean": CODES, "mean.scale": SCALES.double()}, "mean.scale of w: expected torch.float32"),
    ({"mean": CODES.int(), "mean.scale": SCALES}, "mean of w: expected torch.uint8"),
    ({"factor": torch.ones(3, 3)}, r"factor of w has shape \(3, 3\); expected \(3, 2\)"),
    ({"chosen": torch.ones(3, 2)}, "chosen of w: expected torch.int64, got torch.float32"),
]


@pytest.mark.parametrize(("changed", "says"), MISFITS)
def test_what_does_not_fit_is_refused(changed: dict[str, Any], says: str) -> None:
    class DamagedError(AnyOrderError):
        """Another error, as checkpoints raise."""

    with pytest.raises(StateError, match=says):
        check(entry(**changed))
    with pytest.raises(DamagedError, match=says):
        check(entry(**changed), DamagedError)


def test_blocks_are_known_by_their_scales() -> None:
    assert block_of({"mean": CODES, "mean.scale": SCALES}, "mean") == 256
    assert block_of({"mean": CODES}, "mean") == 0
