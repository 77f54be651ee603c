"""The contract of every method, with one test per property.

Subclass :class:`MethodContract`, set ``method``, write ``reference``, and run pytest.
"""

from __future__ import annotations

import copy
import importlib
import io
import operator
import pickle
import random
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from anyorder.engine import stretches
from anyorder.engine.kernels import kernel_for
from anyorder.hyper import HyperError, UnknownOptionError
from anyorder.model.params import ParamsError, ParamsTypeError
from anyorder.optimizer.base import GRADIENT_ONLY, NeedsError, Optimizer
from anyorder.optimizer.population import Population
from anyorder.optimizer.record import CheckpointError
from anyorder.oracle.closures import ClosureError
from anyorder.oracle.gradients import NonFiniteError, SparseGradientError
from anyorder.oracle.kinds import ANSWERS, COMPOSITE, COUNTS, NEEDS
from anyorder.oracle.ledger import Budget, BudgetExhausted, Calls
from anyorder.testing.elsewhere import elsewhere
from anyorder.testing.options import OptionsContract
from anyorder.testing.reference import ReferenceContract
from anyorder.testing.worlds import bits, bowl, in_parts, net, same

#: Ledger entries that each need may use.
_LEDGER = {need.name: need.answers for need in NEEDS}


class MethodContract(ReferenceContract, OptionsContract):
    """Tests of one method. Set ``method``, write :meth:`reference`.

    Attributes:
        method: the class under test.
        options: settings for all tests, if the defaults do not suit a tiny problem.
        half: additional settings for parameters in half precision.
        reference_settings: settings to compare method and reference with, each added to
            ``options``.
    """

    method: ClassVar[type[Optimizer]]
    options: ClassVar[dict[str, Any]] = {}
    half: ClassVar[dict[str, Any]] = {}
    reference_settings: ClassVar[Sequence[Mapping[str, Any]]] = ({},)

    # Helpers -------------------------------------------------------------------------------

    def make(self, params: Any, **options: Any) -> Optimizer:
        """Return an optimizer with the settings of this contract."""
        settings: dict[str, Any] = {"engine": "eager", **self.options, **options}
        return self.method(params, **settings)

    @property
    def _parts(self) -> bool:
        return bool(COMPOSITE & self.method.needs)

    def step(self, optimizer: Optimizer, closure: Any) -> Tensor | None:
        """Take one step, with the closure in the form that the method needs."""
        # Lists and invalid closures are passed unchanged.
        divided: Any = in_parts if self._parts and callable(closure) else _as_it_is
        return optimizer.step(divided(closure))

    def _rates(self) -> list[float]:
        declared = self.method.hypers["lr"]
        if declared.low is None or declared.high is None:
            return [float(declared.default)]
        return [float(x) for x in np.geomspace(declared.low, declared.high, 9)]

    def _rate(self) -> float:
        """A step size from the search range that is large enough to move every weight."""
        rates = self._rates()
        return rates[2 * len(rates) // 3]

    # Descent -------------------------------------------------------------------------------

    def _best_fall(self, dtype: torch.dtype, steps: int, enough: float, **options: Any) -> float:
        """Smallest fraction of a quadratic's initial value over the step sizes of the range."""
        best = float("inf")
        for lr in self._rates()[::-1]:
            params, closure = bowl(dtype)
            start = closure().item()
            optimizer = self.make(params.items(), lr=lr, nonfinite="skip", **options)
            for step in range(steps):
                self.step(optimizer, closure)
                if step % 10 == 9:
                    share = closure().item() / start
                    best = min(best, share if share == share else best)
                    if best < enough:
                        self._keeps_dtypes(optimizer, dtype)
                        return best
        return best

    def _keeps_dtypes(self, optimizer: Optimizer, dtype: torch.dtype) -> None:
        wide = torch.promote_types(dtype, torch.float32)
        for group in optimizer.param_groups:
            assert all(p.dtype == dtype for p in group["params"])
        for state in optimizer.state.values():
            assert all(v.dtype == wide for v in state.values() if isinstance(v, Tensor))

    def test_descends(self) -> None:
        """Some step size of the range reduces a quadratic below 10% of its initial value."""
        assert self._best_fall(torch.float32, steps=300, enough=0.1) < 0.1

    def test_moves_every_trainable_parameter(self) -> None:
        """One step moves every parameter (a population may need several steps)."""
        model, closure = net()
        before = bits(model)
        optimizer = self.make(model, lr=self._rate())
        for _ in range(5 if isinstance(optimizer, Population) else 1):
            self.step(optimizer, closure)
        moved = [name for name, p in model.named_parameters() if not torch.equal(p, before[name])]
        assert moved == list(before)

    @pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
    def test_dtypes(self, dtype: torch.dtype) -> None:
        """Every dtype decreases the loss, is preserved, and has state in at least float32."""
        options = self.half if dtype in (torch.bfloat16, torch.float16) else {}
        assert self._best_fall(dtype, steps=100, enough=0.5, **options) < 0.5

    def test_maximize_is_minimising_minus(self) -> None:
        """Maximising -f equals minimising f bit for bit; the returned loss is the closure's."""
        down, closure = bowl()
        up, other = bowl()
        first, second = (
            self.make(down.items(), lr=0.01),
            self.make(up.items(), lr=0.01, maximize=True),
        )
        for _ in range(4):
            a, b = self.step(first, closure), self.step(second, lambda: -other())
            assert a is not None and b is not None
            assert torch.equal(a.nan_to_num(), (-b).nan_to_num())
        assert same(bits(down), bits(up))

    # Oracle calls --------------------------------------------------------------------------

    def test_asks_only_what_it_declares(self) -> None:
        """The ledger counts only what ``needs`` declares."""
        params, closure = bowl()
        optimizer = self.make(params.items())
        for _ in range(3):
            self.step(optimizer, closure)
        used = {name for name in COUNTS if getattr(optimizer.calls, name)}
        allowed = set[str]().union(*(_LEDGER[need] for need in self.method.needs))
        assert used and used <= allowed
        assert all(used & _LEDGER[need] for need in self.method.needs)

    def test_ledger_counts_what_was_run(self) -> None:
        """The number of evaluations in the ledger equals that counted by the closure."""
        params, inner = bowl()
        evaluations = 0

        def closure() -> Tensor:
            nonlocal evaluations
            evaluations += 1
            return inner()

        optimizer = self.make(params.items())
        for _ in range(4):
            self.step(optimizer, closure)
        calls = optimizer.calls
        assert evaluations == sum(getattr(calls, a.name) for a in ANSWERS if a.evaluation)
        assert calls.seconds > 0

    def test_budget_stops_before_the_question(self) -> None:
        """A budget is never exceeded, and a step that is refused changes nothing."""
        params, closure = bowl()
        optimizer = self.make(params.items(), budget=Budget(forwards=40))
        before: dict[str, Tensor] = {}
        for _ in range(60):
            before = bits(params)
            try:
                self.step(optimizer, closure)
            except BudgetExhausted:
                break
        else:
            pytest.fail("60 steps were taken on a budget of 40 forward passes")
        assert 0 < optimizer.calls.forwards() <= 40
        assert same(bits(params), before)

    # The engine ----------------------------------------------------------------------------

    def _run(self, steps: int = 4, **options: Any) -> dict[str, Tensor]:
        model, closure = net()
        model.dropout.p = 0.0
        optimizer = self.make(model, lr=self._rate(), **options)
        for _ in range(steps):
            self.step(optimizer, closure)
        return bits(model)

    def test_eager_equals_compiled(self) -> None:
        """Compiled rules give the same bits as eager ones."""
        assert same(self._run(engine="eager"), self._run(engine="compiled"))

    def test_packed_equals_one_tensor_at_a_time(self) -> None:
        """Packed updates of small parameters are bitwise equal to separate ones."""
        together = self._run()
        with mock.patch.dict(stretches.SMALL, cpu=0):
            assert same(together, self._run())

    def test_two_groups_equal_one(self) -> None:
        """Splitting the parameters into groups with equal settings changes nothing."""
        results: list[dict[str, Tensor]] = []
        for split in (False, True):
            params, closure = bowl()
            pairs = list(params.items())
            groups = [{"params": pairs[:1]}, {"params": pairs[1:]}] if split else pairs
            optimizer = self.make(groups)
            for _ in range(4):
                self.step(optimizer, closure)
            results.append(bits(params))
        assert same(*results)

    def test_schedule_takes_effect_without_compiling_again(self) -> None:
        """A scheduler's step size is used, and 200 of its steps do not recompile."""
        params, closure = bowl()
        optimizer = self.make(params.items(), engine="compiled", lr=self._rate())
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.9**step)
        self.step(optimizer, closure)
        kernels = kernel_for.cache_info().misses
        for _ in range(200):
            scheduler.step()
            self.step(optimizer, closure)
        assert kernel_for.cache_info().misses == kernels
        if self.method.needs == frozenset({"rank"}):
            return  # may still move to the best evaluated point
        for group in optimizer.param_groups:  # also takes effect when set directly
            group["lr"] = 0.0
        before = bits(params)
        self.step(optimizer, closure)
        assert same(bits(params), before)

    def test_zero_step_size_changes_nothing(self) -> None:
        """With ``lr=0`` the weights stay as they are, bit for bit, in every dtype.

        A ranking method may still move to the best evaluated point.
        """
        if self.method.needs == frozenset({"rank"}):
            return
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            params, closure = bowl(dtype)
            before = bits(params)
            optimizer = self.make(params.items(), lr=0.0)
            for _ in range(3):
                self.step(optimizer, closure)
            assert same(bits(params), before)

    # Checkpoints ---------------------------------------------------------------------------

    def test_resumes_bit_for_bit_in_a_new_process(self) -> None:
        """A run saved after three steps and continued in a new process is bitwise equal."""
        model, closure = net()
        optimizer = self.make(model, lr=self._rate())
        for _ in range(3):
            self.step(optimizer, closure)
        saved = io.BytesIO()
        torch.save(
            {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "random": torch.get_rng_state(),
            },
            saved,
        )
        for _ in range(3):
            self.step(optimizer, closure)
        name = f"{self.method.__module__}:{self.method.__qualname__}"
        options = {"engine": "eager", **self.options}
        found = elsewhere(_resumed, name, options, self._parts, saved.getvalue())
        state, calls = torch.load(io.BytesIO(found))
        assert same(state, dict(model.state_dict()))
        for name in COUNTS:
            assert calls[name] == getattr(optimizer.calls, name)

    def test_state_is_matched_by_name(self) -> None:
        """Parameters in another order get their own state back."""
        params, closure = bowl()
        optimizer = self.make(params.items())
        for _ in range(2):
            self.step(optimizer, closure)
        other, closure2 = bowl()
        for name, p in other.items():
            p.data.copy_(params[name].data)
        turned = self.make(list(reversed(list(other.items()))))
        turned.load_state_dict(optimizer.state_dict())
        for _ in range(2):
            self.step(optimizer, closure)
            self.step(turned, closure2)
        assert all(torch.allclose(params[n], other[n], rtol=1e-6) for n in params)

    def test_refuses_foreign_and_damaged_checkpoints(self) -> None:
        """Each one raises a clear error, and nothing is changed."""
        params, closure = bowl()
        optimizer = self.make(params.items())
        self.step(optimizer, closure)
        good = optimizer.state_dict()
        x = nn.Parameter(torch.ones(3))
        foreign = torch.optim.SGD([x]).state_dict()
        renamed = copy.deepcopy(good)
        renamed["param_groups"][0]["param_names"][0] = "other"
        method = copy.deepcopy(good)
        method["anyorder"]["method"] = "Another"
        version = copy.deepcopy(good)
        version["anyorder"]["format"] = 0
        bad: list[Any] = [foreign, renamed, method, version, {}, {"state": {}}, None]
        kept = good["state"].get(0, {})
        for buffer in [name for name, value in kept.items() if isinstance(value, Tensor)]:
            wrong, missing, damaged = (copy.deepcopy(good) for _ in range(3))
            wrong["state"][0][buffer] = torch.zeros(77)
            del missing["state"][0][buffer]
            damaged["state"][0][buffer].fill_(float("nan"))
            bad += [wrong, missing, damaged]
        for state in bad:
            with pytest.raises(CheckpointError):
                optimizer.load_state_dict(state)
        now = optimizer.state_dict()
        assert now["anyorder"] == good["anyorder"]
        for index, entries in good["state"].items():
            for key, value in entries.items():
                assert not isinstance(value, Tensor) or torch.equal(value, now["state"][index][key])

    def test_copies_and_pickles(self) -> None:
        """A deep copy and a pickle continue like the original."""
        params, closure = bowl()
        holder = nn.ParameterDict(params)
        optimizer = self.make(holder.items())
        self.step(optimizer, closure)
        twin, twin_optimizer = copy.deepcopy((holder, optimizer))
        again, again_optimizer = pickle.loads(pickle.dumps((holder, optimizer)))
        for held, stepper in (
            (holder, optimizer),
            (twin, twin_optimizer),
            (again, again_optimizer),
        ):
            self.step(
                stepper, lambda h=held: torch.stack([(p * p).sum() for p in h.values()]).sum()
            )
        assert same(bits(dict(holder.items())), bits(dict(twin.items())))
        assert same(bits(dict(holder.items())), bits(dict(again.items())))

    # Side effects --------------------------------------------------------------------------

    def test_leaves_the_world_as_one_evaluation_would(self) -> None:
        """``.grad``, ``requires_grad`` and modes are unchanged; buffers change as in one call."""
        model, closure = net()
        twin, twin_closure = net()
        model.conv.weight.grad = torch.full_like(model.conv.weight, 7.0)
        kept = model.conv.weight.grad
        model.dropout.eval()
        twin.dropout.eval()
        _seed_all(3)
        twin_closure()
        expected = (_random_states(), bits(dict(twin.named_buffers())))
        _seed_all(3)
        optimizer = self.make(model, lr=0.0)
        self.step(optimizer, closure)
        assert model.conv.weight.grad is kept and bool((kept == 7.0).all())
        assert all(p.grad is None for n, p in model.named_parameters() if n != "conv.weight")
        assert all(p.requires_grad for p in model.parameters())
        assert model.training and not model.dropout.training
        assert _random_states() == expected[0]
        buffers = bits(dict(model.named_buffers()))
        for name, value in expected[1].items():  # a shifted evaluation differs only by its shift
            assert torch.allclose(buffers[name].double(), value.double(), atol=0.5), name

    def test_same_dropout_at_every_evaluation_of_a_step(self) -> None:
        """Evaluations in one step use the same random numbers, different steps do not."""
        params, inner = bowl()
        seen: list[float] = []

        def closure() -> Tensor:
            seen.append(torch.rand(()).item() + random.random() + float(np.random.rand()))  # noqa: NPY002
            return inner()

        optimizer = self.make(params.items())
        per_step: list[set[float]] = []
        for _ in range(2):
            seen.clear()
            self.step(optimizer, closure)
            per_step.append(set(seen))
        assert len(per_step[0]) == len(per_step[1]) == 1
        assert per_step[0] != per_step[1]

    def test_closure_that_raises_leaves_everything(self) -> None:
        """An exception in any evaluation restores weights, gradients, buffers and random state."""
        for fatal in (1, 2, 3):
            model, inner = net()
            before = (bits(model), bits(dict(model.named_buffers())))
            count = 0

            def closure(inner: Any = inner, fatal: int = fatal) -> Tensor:
                nonlocal count
                count += 1
                loss = inner()
                if count == fatal:
                    raise RuntimeError("boom")
                return loss

            optimizer = self.make(model)
            states = _random_states()
            try:
                self.step(optimizer, closure)
            except RuntimeError:  # from the closure; a method may evaluate fewer times
                assert same(bits(model), before[0])
                assert all(p.grad is None for p in model.parameters())
                if fatal == 1:
                    assert same(bits(dict(model.named_buffers())), before[1])
                    assert _random_states() == states

    # Bad input -----------------------------------------------------------------------------

    def test_refuses_parameters_it_cannot_take(self) -> None:
        """Empty, repeated, complex, integer, non-leaf, frozen or missing parameters raise."""
        x = nn.Parameter(torch.ones(2))
        bad: list[tuple[Any, type[Exception]]] = [
            ([], ParamsError),
            ([x, x], ParamsError),
            ([torch.ones(2, dtype=torch.complex64, requires_grad=True)], ParamsError),
            ([torch.ones(2, dtype=torch.int64)], ParamsError),
            ([x * 2], ParamsError),
            ([nn.Parameter(torch.ones(2), requires_grad=False)], ParamsError),
            (x, ParamsTypeError),
            (3, ParamsTypeError),
            ({x}, ParamsTypeError),
            (["x"], ParamsTypeError),
        ]
        for params, error in bad:
            with pytest.raises(error):
                self.make(params)

    def test_refuses_options_it_does_not_know(self) -> None:
        """Errors suggest the closest keyword for an unknown one, and state the valid range."""
        x = nn.Parameter(torch.ones(2))
        with pytest.raises(UnknownOptionError, match="Known options"):
            self.make([x], learningrate=1.0)
        with pytest.raises(UnknownOptionError, match="'lr'"):
            self.make([x], lrr=1.0)
        for value in (-1.0, float("nan"), "fast", None):
            with pytest.raises(HyperError, match="lr"):
                self.make([x], lr=value)
        optimizer = self.make([x])
        with pytest.raises(HyperError):
            optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))], "lr": -1.0})
        with pytest.raises(ParamsError):
            optimizer.add_param_group({"params": [x]})
        assert len(optimizer.param_groups) == 1

    def test_refuses_closures_that_do_not_return_a_loss(self) -> None:
        """Invalid closures raise a clear error, and nothing is changed."""
        params, closure = bowl()
        before = bits(params)
        optimizer = self.make(params.items())
        wrong: list[Any] = [
            lambda: closure().item(),
            lambda: None,
            lambda: next(iter(params.values())) * 2,
            lambda: closure().long(),
            closure(),
        ]
        for bad in wrong:
            with pytest.raises(ClosureError):
                self.step(optimizer, bad)
        assert same(bits(params), before)

    def test_closure_that_calls_backward(self) -> None:
        """Gradient methods accept it like torch.optim; others say what to change."""
        params, closure = bowl()
        plain, plain_closure = bowl()
        optimizer, other = self.make(params.items()), self.make(plain.items())

        def legacy() -> Tensor:
            optimizer.zero_grad()
            loss = closure()
            loss.backward()
            return loss

        before = bits(params)
        if self.method.needs == GRADIENT_ONLY:
            for _ in range(3):
                a, b = self.step(optimizer, legacy), self.step(other, plain_closure)
                assert a is not None and b is not None and torch.equal(a, b)
            assert same(bits(params), bits(plain))
        else:
            with pytest.raises(ClosureError, match="must not call backward"):
                self.step(optimizer, legacy)
            assert same(bits(params), before)
            assert all(p.grad is None for p in params.values())

    def test_step_without_closure(self) -> None:
        """``backward(); step()`` works for gradient methods; others raise an error."""
        params, closure = bowl()
        plain, plain_closure = bowl()
        optimizer, other = self.make(params.items()), self.make(plain.items())
        if self.method.needs != GRADIENT_ONLY:
            with pytest.raises(NeedsError, match="closure"):
                optimizer.step()
            return
        for _ in range(3):
            optimizer.zero_grad()
            closure().backward()
            assert optimizer.step() is None
            self.step(other, plain_closure)
        assert same(bits(params), bits(plain))
        assert optimizer.calls.grads == 3

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_loss_that_is_not_finite(self, value: float) -> None:
        """It raises before any change, or the step is skipped and counted; rankings put it last."""
        params, closure = bowl()
        optimizer = self.make(params.items())
        self.step(optimizer, closure)
        before, steps = bits(params), optimizer.steps
        if self.method.needs == frozenset({"rank"}):
            self.step(optimizer, lambda: closure() * value)
            return
        with pytest.raises(NonFiniteError, match="no parameter was changed"):
            self.step(optimizer, lambda: closure() * value)
        assert same(bits(params), before) and optimizer.steps == steps
        optimizer.nonfinite = "skip"
        self.step(optimizer, lambda: closure() * value)
        assert same(bits(params), before) and optimizer.calls.skipped == 1
        self.step(optimizer, closure)
        assert not same(bits(params), before)

    def test_gradient_that_is_not_finite(self) -> None:
        """A finite loss with an infinite gradient is detected too."""
        if "grad" not in self.method.needs:
            return
        x = nn.Parameter(torch.zeros(2))
        optimizer = self.make([("x", x)])
        with pytest.raises(NonFiniteError, match="x"):
            self.step(optimizer, lambda: x.abs().sqrt().sum() + 1.0)
        assert bool((x == 0).all())

    def test_frozen_unused_and_late_parameters(self) -> None:
        """Frozen parameters stay, unused ones are allowed, unfrozen ones are updated."""
        params, closure = bowl()
        frozen = nn.Parameter(torch.ones(3), requires_grad=False)
        unused = nn.Parameter(torch.ones(3))
        optimizer = self.make(
            [*params.items(), ("frozen", frozen), ("unused", unused)], lr=self._rate()
        )
        for _ in range(2):
            self.step(optimizer, closure)
        assert bool((frozen == 1).all())
        frozen.requires_grad_(True)
        both = lambda: closure() + (frozen**2).sum()  # noqa: E731
        for _ in range(4):
            self.step(optimizer, both)
        assert not bool((frozen == 1).all())
        optimizer.load_state_dict(optimizer.state_dict())

    def test_strided_and_scalar_parameters(self) -> None:
        """Non-contiguous and 0-dim parameters are updated like contiguous ones."""
        plain = nn.Parameter(torch.linspace(0.5, 1.5, 12).reshape(3, 4).clone())
        turned = nn.Parameter(plain.detach().t().contiguous().t())
        assert not turned.is_contiguous()
        for x in (plain, turned):
            optimizer = self.make([("x", x), ("s", nn.Parameter(torch.tensor(1.0)))])
            for _ in range(4):
                # The order of summation does not depend on strides.
                self.step(optimizer, lambda x=x: (x * x).contiguous().sum())
        assert torch.equal(plain, turned)

    def test_sparse_gradients_are_refused(self) -> None:
        """A sparse gradient raises an error with the remedy."""
        if self.method.needs != GRADIENT_ONLY:
            return
        table = nn.Embedding(5, 2, sparse=True)
        optimizer = self.make(table)
        table(torch.tensor([1])).sum().backward()
        with pytest.raises(SparseGradientError, match="sparse=False"):
            optimizer.step()
        with pytest.raises(SparseGradientError, match="sparse=False"):
            self.step(optimizer, lambda: table(torch.tensor([1])).sum())

    @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))  # pyright: ignore
    @given(
        st.lists(st.lists(st.integers(0, 5), max_size=3).map(tuple), min_size=1, max_size=5).filter(
            lambda shapes: any(torch.Size(s).numel() for s in shapes)
        )
    )
    @example(shapes=[(0, 2), (), (3, 1)])
    def test_any_shapes(self, shapes: list[tuple[int, ...]]) -> None:
        """Empty, scalar and odd shapes: steps run, and packing changes no bit."""
        results: list[dict[str, Tensor]] = []
        for small in (0, 1 << 20):
            params, closure = bowl(shapes=tuple(shapes))
            with mock.patch.dict(stretches.SMALL, cpu=small):
                optimizer = self.make(params.items())
                for _ in range(2):
                    self.step(optimizer, closure)
                optimizer.load_state_dict(optimizer.state_dict())
                self.step(optimizer, closure)
            results.append(bits(params))
        assert same(*results)

    # Texts ---------------------------------------------------------------------------------

    def test_explains_itself(self) -> None:
        """``explain`` lists every parameter and setting; the docstring states the cost."""
        model, _ = net()
        text = self.make(model).explain()
        assert all(name in text for name, _ in model.named_parameters())
        assert all(name in text for name in self.method.hypers)
        words = self.method.__doc__ or ""
        assert all(
            part in words for part in ("Oracle calls per step", "State:", "References:", "Example")
        )
        assert all(h.doc for h in self.method.hypers.values())

    def test_ledger_is_whole(self) -> None:
        """A new optimizer has made no oracle calls."""
        params, _ = bowl()
        assert self.make(params.items()).calls == Calls()


def _resumed(path: str, options: dict[str, Any], parts: bool, saved: bytes) -> bytes:
    """Continue a saved run for three steps; return the weights and the ledger."""
    module, _, name = path.partition(":")
    method = operator.attrgetter(name)(importlib.import_module(module))
    loaded = torch.load(io.BytesIO(saved))
    model, closure = net()
    optimizer = method(model, **options)
    model.load_state_dict(loaded["model"])
    optimizer.load_state_dict(loaded["optimizer"])
    torch.set_rng_state(loaded["random"])
    for _ in range(3):
        optimizer.step(in_parts(closure) if parts else closure)
    out = io.BytesIO()
    torch.save((dict(model.state_dict()), optimizer.calls.to_dict()), out)
    return out.getvalue()


def _seed_all(seed: int) -> None:
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002


def _as_it_is(closure: Any) -> Any:
    return closure


def _random_states() -> tuple[bytes, Any, bytes]:
    return (
        torch.get_rng_state().numpy().tobytes(),
        random.getstate(),
        np.random.get_state()[1].tobytes(),  # type: ignore[union-attr] # noqa: NPY002
    )
