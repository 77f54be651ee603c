"""The batch size controller."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from anyorder.batching.loaders import (
    BatchingError,
    above,
    one_of,
    population_of,
    refuse_resampling,
    same_loader,
    samples_in,
    whole,
)
from anyorder.batching.samples import called, per_sample_gradients
from anyorder.batching.spread import Accuracy, Moments, Spread
from anyorder.oracle.closures import Closure

Test = Literal["norm", "inner_product", "augmented", "coordinate"]
TESTS: tuple[Test, ...] = ("norm", "inner_product", "augmented", "coordinate")
How = Literal["accumulate", "resample"]
HOWS: tuple[How, ...] = ("accumulate", "resample")

_SAVED = ("how", "size", "steps", "samples", "unclear", "micro", "taken", "order", "random", "own")


class BatchSizeController:
    r"""Groups the batches of a loader and enlarges the groups when a test fails.

    With per-sample gradients :math:`g_i`, their mean :math:`g` over :math:`b` samples, and
    :math:`\operatorname{Var}` the unbiased per-sample variance, a batch passes

    .. math::
        \text{norm:} \quad & \textstyle\sum_j \operatorname{Var}(g_{ij}) / b \le \eta^2 |g|^2 \\
        \text{inner_product:} \quad & \operatorname{Var}(\langle g_i, g \rangle) / b
            \le \theta^2 |g|^4 \\
        \text{augmented:} \quad & \text{that, and } \textstyle\sum_j \operatorname{Var}(g_{ij} -
            \langle g_i, g \rangle g_j / |g|^2) / b \le \nu^2 |g|^2 \\
        \text{coordinate:} \quad & \operatorname{Var}(g_{ij}) / b \le \eta^2 g_j^2
            \text{ for a share } \texttt{quantile} \text{ of the coordinates } j

    and otherwise the next batches have the size with which it would have passed. If samples are
    drawn without replacement from :math:`N`, the variance of the mean is smaller by the factor
    :math:`1 - b/N`. The test includes this correction; the papers do not (``population=math.inf``
    turns it off).

    Variances are estimated from the gradients of micro-batches, which a step on several closures
    computes anyway; a micro-batch of m samples has 1/m of the per-sample variance. With ``exact``
    they are computed from per-sample gradients, which costs about one more backward pass per tested
    batch; the ledger does not count it. Memory: up to 16 gradients for ``inner_product`` and
    ``augmented``, two for ``coordinate``, one for ``norm``.

    There are two ways to enlarge a batch: ``accumulate`` groups at least two of the loader's own
    batches; ``resample`` draws batches of any size from the loader's dataset in the order of its
    sampler and splits them into equal parts for a test. Both drop an incomplete batch at the end of
    a pass. With worker processes, ``resample`` prefetches, so a new size takes effect some batches
    later. Under DistributedDataParallel with ``accumulate``, every process sees the same gradients
    and makes the same decision; sizes then count the samples of one process.

    Args:
        loader: the data loader.
        test: one of the tests above.
        eta: tolerance of ``norm`` and ``coordinate``; smaller is stricter.
        theta: tolerance of ``inner_product`` and ``augmented`` along the gradient.
        nu: tolerance of ``augmented`` orthogonal to the gradient.
        quantile: fraction of the coordinates that must pass ``coordinate``. With 1, a single
            gradient entry near zero leads to the largest batch. (``norm`` avoids this by summing
            over coordinates.)
        every: test every this many batches.
        largest: maximum number of samples in a batch.
        smallest: samples in the first batches (default: the minimum that ``how`` allows).
        growth: maximum factor on the size per test.
        unbiased: subtract the noise from :math:`|g|^2`; without this, tests are too lenient when
            batches are small. If nothing remains, the largest batch is used.
        population: number of samples drawn from without replacement (default: the dataset's length
            if the loader's sampler draws this way).
        how: ``accumulate`` or ``resample``.
        parts: number of parts into which ``resample`` splits a batch for a test.
        piece: maximum number of samples per closure with ``resample``, to save memory.
        exact: the model, for per-sample gradients. It must process samples independently (no batch
            norm in training mode).

    Attributes:
        size: samples in the next batch.
        steps: batches yielded so far.
        samples: samples yielded so far.
        last: statistics of the last test, or None.
        needed: the size the last test required, before rounding and limits, or None.
        unclear: tests without a result, because a gradient was not finite.
    """

    def __init__(
        self,
        loader: DataLoader[Any],
        *,
        test: Test = "norm",
        eta: float = 0.5,
        theta: float = 0.9,
        nu: float = 5.84,
        quantile: float = 0.5,
        every: int = 1,
        largest: int,
        smallest: int | None = None,
        growth: float = math.inf,
        unbiased: bool = False,
        population: float | None = None,
        how: How = "accumulate",
        parts: int = 8,
        piece: int | None = None,
        exact: nn.Module | None = None,
    ) -> None:
        one_of("test", test, TESTS)
        one_of("how", how, HOWS)
        above(0, eta=eta, theta=theta, nu=nu, quantile=quantile)
        above(1, growth=growth)
        whole(1, every=every, largest=largest, smallest=smallest, piece=piece)
        whole(2, parts=parts)
        if quantile > 1:
            raise BatchingError(f"quantile: expected a share of at most 1, got {quantile!r}")
        self.loader, self.how, self.every, self.largest = loader, how, every, largest
        self.growth, self.parts, self.piece, self.exact = float(growth), parts, piece, exact
        self._accuracy = Accuracy(test, eta, theta, nu, quantile, unbiased)
        self._population = population_of(loader) if population is None else float(population)
        self._smallest = smallest
        self.steps, self.samples, self.unclear = 0, 0, 0
        self.last: Spread | None = None
        self.needed: float | None = None
        self._taken, self._random = 0, None  # micro-batches of this pass, random state before it
        self._order: Tensor | None = None
        self._due, self._moments = False, None
        self._micro = loader.batch_size
        if how == "resample":
            refuse_resampling(loader)
        self.size = smallest or 0
        if self._micro is not None:
            self.size = self._limited(self._first())

    # The loop --------------------------------------------------------------------------------

    def __iter__(self) -> Generator[list[Any]]:
        """Yield one list of micro-batches per step, for one pass over the data."""
        groups = self._accumulated() if self.how == "accumulate" else self._resampled()
        for group, samples in groups:
            self._moments = None
            self.steps += 1
            self.samples += samples
            yield group
        self._taken, self._random, self._order = 0, None, None

    def closures(self, batches: Sequence[Any], loss: Callable[..., Tensor]) -> Sequence[Closure]:
        """Return the closures of one step, for ``optimizer.step``.

        Args:
            batches: a list that the controller yielded.
            loss: takes a micro-batch, as ``loss(*batch)`` for tuples and lists, and returns its
                mean loss.
        """
        made = [partial(called, loss, batch) for batch in batches]
        if not self._due:
            return made
        needs = {
            "kept": self._accuracy.test in ("inner_product", "augmented"),
            "coordinates": self._accuracy.test == "coordinate",
        }
        if self.exact is None:
            self._moments = Moments(samples_in(batches[0]), len(batches), **needs)
            return _Watched(made, self)
        moments = Moments(1, sum(map(samples_in, batches)), **needs)
        for batch in batches:
            found = per_sample_gradients(self.exact, loss, batch)
            moments.add_many(list(found.values()), samples_in(batch))
        self._decide(moments)
        return made

    def seen(self, gradient: Sequence[Tensor | None]) -> None:
        """Record the gradient of the next micro-batch of this step, and test after the last one.

        ``optimizer.step`` calls this; call it yourself if you compute gradients without closures.
        Only gradients of the step's first evaluation are used.
        """
        if self._moments is None:
            return
        self._moments.add(gradient)
        if self._moments.count == self._moments.expected:
            moments, self._moments = self._moments, None
            self._decide(moments)

    def _decide(self, moments: Moments) -> None:
        self._due = False
        self.last = moments.spread()
        if self.last is None:
            return
        if not self.last.finite:
            self.unclear += 1
            return
        self.needed = self._accuracy.needed(self.last, self._population)
        if self.needed > self.last.samples:
            wanted = min(self.needed, self.growth * self.size, float(self.largest))
            self.size = max(self.size, self._limited(math.ceil(wanted)))

    # Sizes -----------------------------------------------------------------------------------

    def _unit(self) -> int:
        """The number that sizes are multiples of."""
        if self.how == "accumulate":
            assert self._micro is not None
            return self._micro
        return 1 if self.exact is not None else self.parts

    def _first(self) -> int:
        assert self._micro is not None
        return self._smallest or (self._micro if self.how == "accumulate" else max(self._micro, 2))

    def _limited(self, size: int) -> int:
        """The size rounded up to whole parts, within the limits and the samples of one pass."""
        unit, pair = self._unit(), 2 if self.exact is None else 1
        least = unit * pair if self.how == "accumulate" else 2
        most = min(self.largest, self._pass_holds())
        if most < least:
            raise BatchingError(
                f"a batch may have {most} samples (largest={self.largest}, one pass over the data "
                f"has {self._pass_holds()}), but a test needs at least {least}; expected "
                "a larger limit or smaller micro-batches"
            )
        if size < unit:  # few samples: one per part
            return max(size, least)
        rounded = -(-size // unit) * unit
        return int(max(least, min(rounded, most // unit * unit or most)))

    def _pass_holds(self) -> float:
        """Number of samples in the complete batches of one pass."""
        if isinstance(self.loader.dataset, IterableDataset):
            return math.inf
        if self.how == "resample" or self.loader.batch_size is not None:
            size = len(self.loader.sampler)  # type: ignore[arg-type]
            return size if self.how == "resample" else size // self._unit() * self._unit()
        return len(self.loader) * self._unit()

    def _starts(self, step: int) -> bool:
        """Whether to test batch number ``step``."""
        return step % self.every == 0 and self.size < self._limited(self.largest)

    # Two ways --------------------------------------------------------------------------------

    def _accumulated(self) -> Generator[tuple[list[Any], int]]:
        group: list[Any] = []
        short = False
        for batch in self._from_loader():
            count = samples_in(batch)
            if self._micro is None:
                self._micro = count
                self.size = self._limited(self._first())
            if short or count > self._micro:
                raise BatchingError(
                    f"expected micro-batches of {self._micro} samples, got one of {count}; their "
                    "gradients are averaged with equal weights. Use equal sizes, or how='resample'"
                )
            short = count < self._micro  # an incomplete batch at the end of a pass
            if short:
                continue
            group.append(batch)
            if len(group) * self._micro >= self.size:
                self._taken += len(group)
                self._due = self._starts(self.steps)
                yield group, len(group) * self._micro
                group = []
        if group and not self._taken:  # one pass is smaller than one batch
            assert self._micro is not None
            self._due = False
            yield group, len(group) * self._micro

    def _from_loader(self) -> Iterator[Any]:
        """The rest of this pass, in its original order."""
        generator = self.loader.generator or torch.default_generator
        if self._random is None:
            self._random = generator.get_state()
            yield from self.loader
            return
        present = generator.get_state()
        generator.set_state(self._random)
        batches = iter(self.loader)
        for _ in range(self._taken):
            next(batches)
        if generator is torch.default_generator:
            generator.set_state(present)
        yield from batches

    def _resampled(self) -> Generator[tuple[list[Any], int]]:
        if self._order is None:
            self._order = torch.tensor([int(i) for i in self.loader.sampler], dtype=torch.int64)
        plan: deque[tuple[int, int, bool]] = deque()
        generator = self.loader.generator or torch.default_generator
        present = generator.get_state()
        pieces = iter(same_loader(self.loader, self._planned(plan)))
        if self._taken:  # this pass has already drawn its random numbers
            generator.set_state(present)
        for first in pieces:
            count, samples, self._due = plan.popleft()
            self._taken += samples
            yield [first, *(next(pieces) for _ in range(count - 1))], samples

    def _planned(self, plan: deque[tuple[int, int, bool]]) -> Generator[list[int]]:
        """Yield the indices of each piece; ``plan`` receives the pieces of each batch."""
        assert self._order is not None
        order, place, step = self._order.tolist(), self._taken, self.steps
        while len(order) - place >= (size := self.size):
            due = self._starts(step)
            least = self.parts if due and self.exact is None else 1
            if self.piece is not None:
                least = max(least, -(-size // self.piece))
            count = next(n for n in range(min(least, size), size + 1) if size % n == 0)
            plan.append((count, size, due))
            for start in range(place, place + size, size // count):
                yield order[start : start + size // count]
            place, step = place + size, step + 1

    # Checkpoints -------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return everything an exact continuation needs, even in the middle of a pass.

        This includes the state of the loader's own generator, if it has one; save the global
        generator yourself, as for any random numbers in a model. ``accumulate`` finds its position
        by iterating over the loader again, so it is exact if the loader's sampler determines the
        order and samples are the same every time.
        """
        return {
            "how": self.how, "size": self.size, "steps": self.steps, "samples": self.samples,
            "unclear": self.unclear, "micro": self._micro, "taken": self._taken,
            "order": self._order, "random": self._random,
            "own": self.loader.generator and self.loader.generator.get_state(),
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load a saved state; the next iteration continues the interrupted pass.

        Raises:
            BatchingError: the state was not saved by a controller of this kind; nothing was
                changed.
        """
        if not isinstance(state, Mapping) or set(state) != set(_SAVED):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise BatchingError("expected the result of a BatchSizeController's state_dict()")
        for name, mine in (("how", self.how), ("micro", self._micro)):
            if None not in (mine, state[name]) and mine != state[name]:
                raise BatchingError(f"{name}: expected {mine!r} as here, got {state[name]!r}")
        self.size, self.steps = int(state["size"]), int(state["steps"])
        self.samples, self.unclear = int(state["samples"]), int(state["unclear"])
        self._micro, self._taken = state["micro"], int(state["taken"])
        self._order, self._random = state["order"], state["random"]
        if state["own"] is not None and self.loader.generator is not None:
            self.loader.generator.set_state(state["own"])


class _Watched(list[Closure]):
    """Closures whose gradients are reported to a controller."""

    def __init__(self, closures: Iterable[Closure], owner: BatchSizeController) -> None:
        super().__init__(closures)
        self.seen = owner.seen
