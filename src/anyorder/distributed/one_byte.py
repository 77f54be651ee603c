"""MeZO on many machines that exchange one byte per direction."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from anyorder.distributed.exchange import (
    Alone,
    Coordinated,
    CoordinatorError,
    Exchange,
    Grouped,
    refuse_differences,
)
from anyorder.distributed.quantiser import SIZES, WINDOW, Quantiser
from anyorder.distributed.records import HASH, LogFile, settings_text, unpacked
from anyorder.errors import AnyOrderError
from anyorder.hyper import HyperError, hyper
from anyorder.model.bits import hash_of
from anyorder.optimizer import Optimizer
from anyorder.optimizer.options import checked_callable, same_in_all_groups
from anyorder.optimizer.record import number, numbers
from anyorder.oracle import Oracle
from anyorder.oracle.gradients import SkipStep
from anyorder.points.directions import Seeded, Shift

#: Directions of one worker in one step are numbered from its own number times this.
SPAN = 1 << 16
_NARROW = (torch.bfloat16, torch.float16)


class WeightsError(AnyOrderError, RuntimeError):
    """The weights of this worker are not those of the other workers."""


class OneByteMeZO(Optimizer):
    r"""Data-parallel MeZO in which a worker sends one byte per direction and step.

    Worker :math:`w` evaluates ``directions`` directions of its own on its own batch. Only the
    scalars :math:`g_{w,j}`, as one byte each, are exchanged. Every worker then regenerates all
    directions and applies all :math:`n` scalars in the same order:

    .. math::
        g_{w,j} = \frac{f_w(x + \epsilon z_{w,j}) - f_w(x - \epsilon z_{w,j})}{2 \epsilon}, \qquad
        x \leftarrow x - \eta_t \left( \frac{1}{n} \sum_{w,j} \operatorname{byte}(g_{w,j}) z_{w,j}
        + \lambda x \right)

    The weights of all workers are therefore equal bit for bit. The sequence of all bytes is the
    whole run: who joins late replays it on the first weights. Batches never leave a worker.

    The scale of a byte is a function of earlier bytes (:mod:`anyorder.distributed.quantiser`), so
    it is never sent. ``calls.bytes_sent`` counts what this worker handed in: ``directions`` bytes
    per step, and 8 bytes for the hash of the weights every ``check_every`` steps. What the
    transport adds is measured in ``benchmarks/one_byte.py``.

    Workers are connected by one of two:

    - ``coordinator``: the address of a :class:`~anyorder.distributed.coordinator.Coordinator`.
      Workers may join at any time, leave (:meth:`leave`) and be killed; the others go on. A worker
      that is too slow is left out of a step and takes part again in a later one.
    - ``process_group``: a group of ``torch.distributed``, whose processes all take every step. If
      one dies, the collective fails in all, as with DistributedDataParallel.

    With neither, there is one worker. All workers must be constructed with the same settings;
    ``lr`` may only change by ``schedule``, which a worker that replays can ask for past steps.

    State: none. Oracle calls per step: ``2 * directions`` values. To apply a step costs one pass
    over the weights per scalar received. The returned loss is the mean of this worker's values. A
    loss that is not finite moves nothing; with ``nonfinite="raise"`` this worker leaves.

    Weights in half precision are updated in float32 and rounded once per step.

    Args:
        params: parameters, as for all methods.
        coordinator: ``host:port`` of the coordinator.
        schedule: factor of ``lr`` by step, from 0 on.
        options: settings of the method and common settings of all methods.

    Raises:
        JoinError: other settings or first weights than those of the run.
        CoordinatorError: the coordinator cannot be reached.
        WeightsError: the weights differ from those of most workers; see :meth:`rebuild`.

    Example:
        >>> import torch
        >>> from anyorder.distributed import OneByteMeZO
        >>> x = torch.nn.Parameter(torch.ones(3))
        >>> optimizer = OneByteMeZO([x], lr=0.05, check_every=1000)
        >>> for _ in range(200):
        ...     loss = optimizer.step(lambda: (x ** 2).sum())
        >>> bool(loss < 0.1), optimizer.calls.bytes_sent
        (True, 208)

    References:
        Zelikman et al. (2023), "Just One Byte (per gradient)", arXiv 2306.10015; Malladi et al.
        (2023), arXiv 2305.17333.
    """

    order = 0
    needs = frozenset({"value"})

    lr: float = hyper(
        1e-6, ge=0, search="log", low=1e-6, high=1e-2, unit="parameter / slope", doc="learning rate"
    )
    eps: float = hyper(1e-3, gt=0, unit="parameter", doc="size of the perturbation")
    directions: int = hyper(1, ge=1, le=SPAN - 1, doc="directions per worker and step")
    weight_decay: float = hyper(0.0, ge=0, unit="slope / parameter", doc="weight decay of matrices")
    code: str = hyper(
        "linear",
        choices=tuple(SIZES),
        doc="a byte in equal steps, in logarithmic steps (heavy tails), or four exact bytes",
    )
    check_every: int = hyper(100, ge=1, doc="steps between comparisons of a hash of all weights")

    def __init__(
        self,
        params: Any,
        *,
        coordinator: str | None = None,
        schedule: Callable[[int], float] | None = None,
        **options: Any,
    ) -> None:
        self._schedule = checked_callable("schedule", schedule, "from a step to a factor of lr")
        super().__init__(params, **options)
        self._link = _link_for(coordinator, self.process_group)
        self._begun = self._member = False
        self._wrong = ""
        self._quantiser = Quantiser(self.code)  # type: ignore[arg-type]
        #: Records of the steps from ``log_start`` on.
        self.log: list[bytes] = []
        self.log_start = 0

    def check_group(self, group: dict[str, Any]) -> None:
        """Check what all groups share."""
        names = ("eps", "directions", "code", "check_every")
        same_in_all_groups(names, group, self.param_groups, "all groups move along one direction")

    # For users -----------------------------------------------------------------------------

    @property
    def worker(self) -> int:
        """The number of this worker; -1 before it has joined a coordinator."""
        return self._link.worker

    def leave(self) -> None:
        """Take part no longer; the others go on. The next step joins again."""
        if self._member:
            self._member = False
            with contextlib.suppress(CoordinatorError):  # then nobody waits
                self._link.leave(self.steps)

    @torch.no_grad()
    def rebuild(
        self, base: Mapping[str, Tensor], log: str | os.PathLike[str] | None = None
    ) -> None:
        """Load the weights with which the run began, and replay the log on them.

        This is the remedy after :class:`WeightsError`. With the log file of a coordinator it gives
        the weights at the end of a run, without any data.

        Args:
            base: the first weights by parameter name.
            log: a coordinator's log file; by default the records that this worker has seen.

        Raises:
            WeightsError: this worker has not seen the first steps.
            JoinError: the file is of a run with other settings or first weights.
            LogError: the file is damaged.
        """
        params = self.named_params()
        if log is None and self.log and self.log_start:
            raise WeightsError(
                f"expected records from step 0 on, this worker's begin with step {self.log_start}; "
                "pass the log file of the coordinator"
            )
        records = self.log if log is None else self._read(LogFile(log), base)
        for name, param in params.items():
            param.copy_(base[name])
        self.log, self.steps, self._wrong = [], 0, ""
        self._quantiser = Quantiser(self.code)  # type: ignore[arg-type]
        for record in records:
            self._replay(record)

    def _read(self, file: LogFile, base: Mapping[str, Tensor]) -> list[bytes]:
        params = self.named_params()
        if file.settings:
            saved = json.loads(file.settings)
            first = hash_of({name: base[name] for name in params}, HASH).hex()
            mine = settings_text(self._settings(params))
            refuse_differences(saved["settings"], mine, saved["base"], first, str(file.path))
        return file.records

    @torch.no_grad()
    def catch_up(self) -> None:
        """Replay the steps that were taken without this worker; a step does so by itself.

        Raises:
            JoinError: other settings or first weights than those of the run.
            CoordinatorError: the coordinator cannot be reached.
        """
        self._begin()
        while (record := self._link.missed(self.steps)) is not None:
            self._replay(record)

    # A step --------------------------------------------------------------------------------

    def update(self, oracle: Oracle) -> Tensor:
        """Catch up if needed, measure, exchange, and apply what all have measured."""
        if self._wrong:
            raise WeightsError(self._wrong)
        if not self._member or self.worker < 0:  # a copy joins for itself
            self._join()
        try:
            slopes, loss = self._measured(oracle.local)
        except BaseException:
            self.leave()  # nobody has to wait
            raise
        message = self._quantiser.encode(slopes)
        checked = self.steps % self.check_every == 0
        if checked:
            message += hash_of(self.named_params(), HASH)
        self.calls.bytes_sent += len(message)
        record, why = self._link.exchange(self.steps, message, checked)
        whole = isinstance(self._link, Grouped)  # nobody is ever out of a group
        self._member = whole or not why  # a worker that was late joins again
        if why and not why.startswith("late"):
            if whole:  # nobody else keeps it
                self._keep(record)
            self._wrong = (
                f"step {self.steps}: worker {self.worker} was left out. {why}. Call "
                "rebuild(first_weights), then go on"
            )
            raise WeightsError(self._wrong)
        self._apply(record)
        self._keep(record)
        return loss

    def _join(self) -> None:
        self.catch_up()
        first = self._link.join(self.steps)
        while self.steps < first:
            self.catch_up()
        self._member = True

    def _begin(self) -> None:
        if not self._begun:
            params = self.named_params()
            base = "" if self.steps else hash_of(params, HASH).hex()
            self._link.begin(settings_text(self._settings(params)), base)
            self._begun = True

    def _replay(self, record: bytes) -> None:
        self._apply(record)
        self._keep(record)
        self.steps += 1

    def _keep(self, record: bytes) -> None:
        if not self.log:
            self.log_start = self.steps
        self.log.append(record)

    def _settings(self, params: Mapping[str, Tensor]) -> dict[str, Any]:
        """What must be equal for all workers."""
        own = {
            name: [group[name] for group in self.param_groups] for name in ("lr", "weight_decay")
        }
        common = ("eps", "directions", "code", "check_every")
        return {
            **{name: [float(value) for value in values] for name, values in own.items()},
            **{name: getattr(self, name) for name in common},
            "seed": self.seed,
            "elements": sum(param.numel() for param in params.values()),
        }

    def _direction(self, step: int, worker: int, index: int) -> Seeded:
        """Direction ``index`` of a worker: no two workers or steps share one."""
        return Seeded(self.seed, step, worker * SPAN + index)

    def _measured(self, oracle: Oracle) -> tuple[list[float], Tensor]:
        """Return the slope along each own direction, NaN where skipped, and the mean loss."""
        slopes: list[float] = []
        seen: list[Tensor] = []
        for index in range(self.directions):
            z = self._direction(self.steps, self.worker, index)
            try:
                ahead, behind = oracle.values([Shift(self.eps, z), Shift(-self.eps, z)])
            except SkipStep as skipped:
                self.calls.skipped += 1
                slopes.append(float("nan"))
                seen.append(skipped.loss)
                continue
            slopes.append((ahead.item() - behind.item()) / (2 * self.eps))
            seen.append((ahead + behind) / 2)
        return slopes, torch.stack(seen).mean()

    def _apply(self, record: bytes) -> None:
        """Move along the directions of all workers, in the order of (worker, index)."""
        messages = unpacked(record)
        moves = [
            (self._direction(self.steps, worker, index), slope)
            for worker, message in messages.items()
            for index, slope in enumerate(self._quantiser.decode(message))
            if slope is not None
        ]
        self._quantiser.learn(messages.values())
        factor = 1.0 if self._schedule is None else float(self._schedule(self.steps))
        for group in self.param_groups if moves else []:
            lr = float(group["lr"]) * factor
            named = zip(group["param_names"], group["params"], strict=True)
            targets = {name: param for name, param in named if param.requires_grad}
            keep = 1.0 - lr * group["weight_decay"]
            scaled = [(z, -lr * slope / len(moves)) for z, slope in moves]
            self._move(targets, scaled, keep)

    def _move(
        self, targets: Mapping[str, Tensor], moves: list[tuple[Seeded, float]], keep: float
    ) -> None:
        narrow = {name: param for name, param in targets.items() if param.dtype in _NARROW}
        wide = {name: param for name, param in targets.items() if name not in narrow}
        for parts in (wide, *({name: param.float()} for name, param in narrow.items())):
            for param in parts.values():
                if keep != 1.0 and param.ndim > 1:
                    param.mul_(keep)
            for z, scale in moves:
                z.add_all_(parts, scale, self.engine)
            for name in parts.keys() & narrow.keys():
                narrow[name].copy_(parts[name])

    # Checkpoints ---------------------------------------------------------------------------

    def extra_state(self) -> dict[str, Any]:
        """The magnitudes that determine the scale of the next step."""
        return {"magnitudes": list(self._quantiser.seen)}

    def load_extra_state(self, extra: Mapping[str, Any]) -> None:
        """Load the magnitudes; the log begins at the step of the checkpoint."""
        seen = numbers(extra, extra["magnitudes"], "magnitudes", None)
        for value in seen[:WINDOW]:
            number(extra, value, "magnitudes", least=0.0)
        self._quantiser = Quantiser(self.code, seen)  # type: ignore[arg-type]
        self.log = []


def _link_for(coordinator: str | None, group: Any) -> Exchange:
    if coordinator is not None and group is not None:
        raise HyperError("coordinator: expected either this or process_group, got both")
    if coordinator is not None:
        return Coordinated(coordinator)
    return Alone() if group is None else Grouped(group)
