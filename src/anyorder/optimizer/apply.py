"""Application of a rule to a parameter group: program, scalars, masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from anyorder.engine import Engine
from anyorder.engine.formats import PLAIN, STOCHASTIC, noise_for
from anyorder.engine.program import NOISE, Decay, Program
from anyorder.engine.stretches import Stretch
from anyorder.model.sharding import as_sharded, local, summed
from anyorder.optimizer.entry import STEP
from anyorder.points.directions import Seeded
from anyorder.rules import Rule
from anyorder.rules.rule import Scalars


class Owner(Protocol):
    """The part of an optimizer that this module uses."""

    engine: Engine
    seed: int
    steps: int

    def grads_by_param(self) -> Mapping[int, Tensor]:
        """Return the gradients of the current step by the identity of their parameters."""
        ...


class Application:
    """Application of a rule to a group.

    Args:
        owner: the optimizer.
        rule: the rule.
        group: the settings.
        scalars: computes the scalars, if the rule does not.
    """

    def __init__(
        self, owner: Owner, rule: Rule, group: dict[str, Any], scalars: Scalars | None = None
    ) -> None:
        self.owner, self.rule, self.group = owner, rule, group
        self.scalars = scalars or rule.scalars
        self._made: dict[int, Mapping[str, float]] = {}  # numbers by step
        surrounded = rule.ends_step and rule.gradient
        self._cautious = bool(surrounded and group.get("cautious"))
        self._rounds = bool(group.get("stochastic_rounding"))
        self.decay: Decay = ""
        if surrounded and group.get("weight_decay") and not rule.own_decay:
            self.decay = "decoupled" if group["decoupled_weight_decay"] else "coupled"

    def run(self, stretch: Stretch, given: Mapping[int, Sequence[Any]]) -> None:
        """Apply the rule to those parameters of a stretch that have inputs.

        Args:
            stretch: the parameters and their buffers.
            given: the inputs by the identity of their parameter.
        """
        entries = stretch.entries
        moving = [given.get(id(p)) for p in stretch.params]
        step = int(entries[0][STEP])
        if None in moving or (len(entries) > 1 and any(entry[STEP] != step for entry in entries)):
            if len(moving) > 1:  # some have no input, or another step count
                for alone in stretch.alone():
                    self.run(alone, given)
            return
        self._update(stretch, moving, step + 1)  # type: ignore[arg-type]
        if self.rule.ends_step:
            for entry in entries:
                entry[STEP] = step + 1

    def _update(self, stretch: Stretch, inputs: Sequence[Sequence[Tensor]], step: int) -> None:
        """Apply the rule at step ``step`` to a stretch of parameters, with inputs for each."""
        rounded = self._rounds and stretch.params[0].dtype is torch.bfloat16  # all it is for
        rule = self.rule
        weights = STOCHASTIC if rounded else PLAIN
        program = stretch.program(rule.function, rule.buffers, weights, self.decay)
        if len(stretch.params) > 1 and not stretch.packed and self._cautious:
            # Copies of one parameter at a time are enough.
            for alone, row in zip(stretch.alone(), inputs, strict=True):
                self._update(alone, [row], step)
            return
        scalars = self._numbers(step)
        if program.random:
            scalars = {**scalars, **self._noise(stretch.names[0])}
        if self._cautious:
            self._run_cautiously(stretch, program, inputs, scalars)
        else:
            stretch.apply(self.owner.engine, program, rule.buffers, inputs, scalars)

    def _run_cautiously(
        self,
        stretch: Stretch,
        program: Program,
        inputs: Sequence[Sequence[Tensor]],
        scalars: Mapping[str, float],
    ) -> None:
        """Keep only updates against the gradient and scale them up to compensate.

        If k of the n elements of a parameter are kept, they are scaled by n / (k + 1) (Liang et
        al., 2024, arXiv 2411.16085, algorithm 1). Decoupled weight decay is not masked.
        """
        grads = self.owner.grads_by_param()
        starts = [local(p).to(torch.promote_types(p.dtype, torch.float32)) for p in stretch.params]
        moved = [
            as_sharded(start.clone(), p) for start, p in zip(starts, stretch.params, strict=True)
        ]
        shadow = replace(stretch, params=moved)
        rule, decay = self.rule, self.decay
        inside = shadow.program(
            rule.function, rule.buffers, PLAIN, "" if decay == "decoupled" else decay
        )
        shadow.apply(self.owner.engine, inside, rule.buffers, inputs, scalars)
        triples = zip(stretch.params, starts, moved, strict=True)
        for index, (param, start, end) in enumerate(triples):
            grad = local(grads[id(param)])
            move = local(end) - start
            kept = move * grad < 0
            counts = torch.stack([kept.sum(), torch.full_like(kept.sum(), kept.numel())])
            some, all_ = summed(counts, [param]).tolist()
            move = torch.where(kept, move, 0.0) * (all_ / (some + 1))
            result = (start * scalars["shrink"] if self.decay == "decoupled" else start) + move
            noise = None
            if program.formats[0].random:
                words = self._noise(f"{stretch.names[0]}/{index}").values()
                keys = [torch.tensor(word, device="cpu") for word in words]
                noise = noise_for(result.numel(), *keys, result.device).view(result.shape)
            program.formats[0].write_((local(param),), result, noise)

    def _numbers(self, step: int) -> Mapping[str, float]:
        """The scalars of the rule and of weight decay."""
        if step in self._made:
            return self._made[step]
        group = self.group
        values = self.scalars(group, step)
        if self.decay == "decoupled":
            values = {**values, "shrink": 1.0 - float(group["lr"]) * group["weight_decay"]}
        elif self.decay == "coupled":
            values = {**values, "penalty": float(group["weight_decay"])}
        self._made[step] = values
        return values

    def _noise(self, name: str) -> dict[str, int]:
        """Return the keys of the random bits for rounding a stretch in this step."""
        low, high = Seeded(self.owner.seed, self.owner.steps, -1).keys(name)
        return dict(zip(NOISE, (low, high, 0), strict=True))
