"""Contract tests of the base class's options, for all gradient-based methods.

The update rule of a method must not depend on the storage precision of its buffers, on how a batch
is split, or on other options that change gradients and weights.
"""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from anyorder.engine.formats import SMALLEST_8BIT
from anyorder.hyper import HyperError
from anyorder.optimizer import Optimizer
from anyorder.testing.worlds import bits, net, same, wide


class OptionsContract:
    """Tests of the options in :data:`~anyorder.optimizer.base.COMMON`; part of the contract."""

    method: ClassVar[type[Optimizer]]

    def make(self, params: Any, **options: Any) -> Optimizer:
        """Return an optimizer with the settings of the contract."""
        raise NotImplementedError

    def step(self, optimizer: Optimizer, closure: Any) -> Tensor | None:
        """Take one step, with the closure in the form that the method needs."""
        raise NotImplementedError

    def _rate(self) -> float:
        raise NotImplementedError

    def _has(self, option: str) -> bool:
        return option in self.method.hypers

    def _needs(self, *options: str) -> None:
        missing = [name for name in options if not self._has(name)]
        if missing:
            pytest.skip(f"{self.method.__name__} has no {', '.join(missing)}")

    def _refuses(self, option: str, value: Any) -> bool:
        """Whether the method raises an error that names the unsupported option."""
        try:
            self.make(wide()[0], **{option: value})
        except HyperError as error:
            return option in str(error)
        return False

    def _moved(self, steps: int = 1, **options: Any) -> tuple[dict[str, Tensor], Optimizer]:
        """The weights of a small network after some steps without noise."""
        model, closure = wide()
        optimizer = self.make(model, **{"lr": self._rate(), **options})
        for _ in range(steps):
            self.step(optimizer, closure)
        return bits(model), optimizer

    def _loss_after(self, steps: int, **options: Any) -> tuple[float, Optimizer]:
        """The loss of a small network after some steps, and the optimizer."""
        model, closure = wide()
        optimizer = self.make(model, lr=self._rate(), **options)
        for _ in range(steps):
            self.step(optimizer, closure)
        return closure().item(), optimizer

    # Precision of state --------------------------------------------------------------------

    @pytest.mark.parametrize("state", ["bf16", "8bit"])
    def test_reduced_state_stays_near_and_is_small(self, state: str) -> None:
        """Weights are close to those with float32 state; large buffers have the expected size."""
        self._needs("state")
        full, reduced = (self._loss_after(5, state=name) for name in ("fp32", state))
        start, exact, near = (run[0] for run in (self._loss_after(0), full, reduced))
        assert abs(near - exact) < 0.25 * abs(start - exact)
        sizes: list[float] = []
        for _, optimizer in (reduced, full):
            large = [s for p, s in optimizer.state.items() if p.numel() >= SMALLEST_8BIT]
            kept = [v for entries in large for v in entries.values() if isinstance(v, Tensor)]
            sizes.append(sum(v.numel() * v.element_size() for v in kept))
        share = {"bf16": 0.5, "8bit": 0.27}[state]
        assert sizes[0] <= share * sizes[1]

    @pytest.mark.parametrize("state", ["bf16", "8bit"])
    def test_reduced_state_resumes_bit_for_bit(self, state: str) -> None:
        """Codes, scales and random bits are restored from checkpoints."""
        self._needs("state")
        model, closure = wide()
        optimizer = self.make(model, lr=self._rate(), state=state)
        for _ in range(3):
            self.step(optimizer, closure)
        saved = copy.deepcopy(optimizer.state_dict())
        twin, twin_closure = wide()
        twin.load_state_dict(model.state_dict())
        again = self.make(twin, lr=self._rate(), state=state)
        again.load_state_dict(saved)
        for _ in range(3):
            self.step(optimizer, closure)
            self.step(again, twin_closure)
        assert same(bits(model), bits(twin))

    @pytest.mark.parametrize(
        ("first", "second"), [("fp32", "8bit"), ("8bit", "fp32"), ("8bit", "bf16")]
    )
    def test_precision_may_change_at_a_checkpoint(self, first: str, second: str) -> None:
        """A run saved in one precision continues in another, with similar results."""
        self._needs("state")
        model, closure = wide()
        optimizer = self.make(model, lr=self._rate(), state=first)
        for _ in range(3):
            self.step(optimizer, closure)
        saved = copy.deepcopy(optimizer.state_dict())
        twin, twin_closure = wide()
        twin.load_state_dict(model.state_dict())
        other = self.make(twin, lr=self._rate(), state=second)
        other.load_state_dict(saved)
        assert other.param_groups[0]["state"] == second
        before = closure().item()
        for _ in range(2):
            self.step(optimizer, closure)
            self.step(other, twin_closure)
        assert abs(twin_closure() - closure()) < 0.25 * abs(before - closure())

    def test_float64_and_reduced_state_exclude_each_other(self) -> None:
        """Invalid settings raise before any state is created."""
        self._needs("state")
        x = nn.Parameter(torch.ones(9, 9, dtype=torch.float64))
        with pytest.raises(HyperError, match="float64"):
            self.make([("x", x)], state="8bit")

    def test_stochastic_rounding_moves_where_rounding_to_nearest_stands_still(self) -> None:
        """Steps far below the bfloat16 spacing accumulate, but only with the option."""
        self._needs("stochastic_rounding")
        moved: dict[bool, float] = {}
        for rounding in (False, True):
            torch.manual_seed(0)
            x = nn.Parameter(torch.ones(64, 128, dtype=torch.bfloat16))
            slope = torch.full((64, 128), 1.0) + torch.rand(64, 128)
            optimizer = self.make([("x", x)], lr=1e-4, stochastic_rounding=rounding)
            for _ in range(3):
                self.step(optimizer, lambda x=x, slope=slope: (x.float() * slope).sum() * 1e-2)
            moved[rounding] = (1.0 - x.detach().float()).abs().mean().item()
        assert moved[True] > 0.0
        assert moved[False] == 0.0 or moved[False] == pytest.approx(moved[True], rel=0.5)

    def test_stochastic_rounding_is_for_bfloat16(self) -> None:
        """It raises for other dtypes, where it would have no effect."""
        self._needs("stochastic_rounding")
        with pytest.raises(HyperError, match="bfloat16"):
            self.make(wide()[0], stochastic_rounding=True)

    # Gradients and weights -----------------------------------------------------------------

    def test_clipping_is_a_shorter_gradient(self) -> None:
        """A clipped step equals one on a loss scaled down by the same factor."""
        self._needs("clip_norm")
        if self.method.needs != frozenset({"grad"}):
            pytest.skip("scaling the loss would scale its curvature too")
        model, closure = wide()
        loss = closure()
        grads = torch.autograd.grad(loss, list(model.parameters()))
        norm = torch.stack([g.double().norm() for g in grads]).norm().item()
        limit = norm / 8
        clipped = self._moved(clip_norm=limit)[0]
        model, inner = wide()
        optimizer = self.make(model, lr=self._rate())
        self.step(optimizer, lambda: inner() * (limit / (norm + 1e-6)))
        for name, value in bits(model).items():
            torch.testing.assert_close(clipped[name], value, rtol=1e-3, atol=1e-5)
        loose = self._moved(clip_norm=2 * norm)[0]
        assert same(loose, self._moved()[0])

    def test_micro_batches_are_their_batch(self) -> None:
        """Several closures are equivalent to their mean, and each one counts."""
        self._needs("clip_norm")
        model, closures = wide(parts=4)
        optimizer = self.make(model, lr=self._rate())
        whole, closure = wide()
        other = self.make(whole, lr=self._rate())
        for _ in range(2):
            if self.method.needs == frozenset({"grad"}):
                optimizer.step(closures)
            else:
                self.step(optimizer, lambda: torch.stack([c() for c in closures]).mean())
            self.step(other, closure)
        for name, value in bits(whole).items():
            # Dividing by the gradient norm amplifies rounding errors of small gradients.
            torch.testing.assert_close(bits(model)[name], value, rtol=1e-2, atol=2e-3)
        if self.method.needs == frozenset({"grad"}):
            assert optimizer.calls.grads == 4 * other.calls.grads

    def test_decoupled_decay_shrinks_the_weights_themselves(self) -> None:
        """The first step differs from one without decay by ``lr * weight_decay`` of the weights."""
        self._needs("weight_decay", "decoupled_weight_decay")
        start = bits(wide()[0])
        decay: dict[str, Any] = {"weight_decay": 0.1, "decoupled_weight_decay": True}
        plain, optimizer = self._moved(weight_decay=0.0)
        decayed = self._moved(**decay)[0]
        rates = {n: g["lr"] for g in optimizer.param_groups for n in g["param_names"]}
        moved = False
        for name, value in plain.items():
            if torch.equal(value, decayed[name]):
                continue  # some methods do not decay vectors
            expected = value - rates[name] * 0.1 * start[name]
            torch.testing.assert_close(decayed[name], expected, rtol=1e-4, atol=1e-6)
            moved = True
        assert moved

    def test_coupled_decay_is_a_penalty(self) -> None:
        """Coupled decay equals a penalty of half the squared norm in the loss."""
        self._needs("weight_decay", "decoupled_weight_decay")
        if self._refuses("decoupled_weight_decay", False):
            return
        if self.method.needs != frozenset({"grad"}):
            pytest.skip("a penalty in the loss has curvature, decay does not")
        decay: dict[str, Any] = {"weight_decay": 0.1, "decoupled_weight_decay": False}
        coupled = self._moved(steps=3, **decay)[0]
        model, inner = wide()
        optimizer = self.make(model, lr=self._rate(), weight_decay=0.0)
        squares = lambda: torch.stack([(p * p).sum() for p in model.parameters()]).sum()  # noqa: E731
        for _ in range(3):
            self.step(optimizer, lambda: inner() + 0.05 * squares())
        for name, value in bits(model).items():
            torch.testing.assert_close(coupled[name], value, rtol=1e-3, atol=1e-4)

    def test_cautious_moves_never_climb(self) -> None:
        """No weight moves along its gradient, and the rest are scaled up to compensate."""
        self._needs("cautious")
        if self.method.needs & {"value", "jvp"}:
            pytest.skip("its moves follow an estimate, which may point uphill")
        model, closure = wide()
        options: dict[str, Any] = {"weight_decay": 0.0} if self._has("weight_decay") else {}
        if self._refuses("cautious", True):
            return
        optimizer = self.make(model, lr=self._rate(), cautious=True, **options)
        for _ in range(3):
            before = bits(model)
            grads = torch.autograd.grad(closure(), list(model.parameters()))
            self.step(optimizer, closure)
            for (name, now), grad in zip(bits(model).items(), grads, strict=True):
                assert bool(((now - before[name]) * grad <= 0).all()), name

    # Autocast and compiled models ----------------------------------------------------------

    def test_under_autocast(self) -> None:
        """A closure with autocast does not change the dtypes of weights and state."""
        self._needs("clip_norm")
        model, inner = net()
        optimizer = self.make(model, lr=self._rate())

        def closure() -> Tensor:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return inner().float()

        before = bits(model)
        for _ in range(2):
            self.step(optimizer, closure)
        after = bits(model)
        assert not same(before, after)
        assert all(p.dtype == torch.float32 and bool(p.isfinite().all()) for p in after.values())

    def test_under_a_compiled_model(self) -> None:
        """A model compiled with ``torch.compile`` is optimised like the original."""
        if self.method.needs & {"hessian", "jvp"}:
            pytest.skip("PyTorch's compiled models have no second or forward-mode derivatives")
        names = [name for name, _ in wide()[0].named_parameters()]
        for bare in (False, True):  # pass the model, or only its parameters
            plain, plain_closure = wide()
            compiled, compiled_closure = wide(compiled=True)
            first, second = (
                self.make(
                    list(zip(names, m.parameters(), strict=True)) if bare else m, lr=self._rate()
                )
                for m in (plain, compiled)
            )
            for _ in range(2):
                self.step(first, plain_closure)
                self.step(second, compiled_closure)
            for ours, theirs in zip(plain.parameters(), compiled.parameters(), strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
