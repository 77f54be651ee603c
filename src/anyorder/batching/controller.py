"""The controller: groups of batches that grow by a test."""

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
    r"""Groups the batches of a loader, and makes the groups larger when a test calls for it.

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

    and otherwise the next batches have the size with which it would have passed. Samples drawn
    without replacement from :math:`N` give a mean of :math:`1 - b/N` times that variance; this is
    taken into account (the papers leave it out: ``population=math.inf``).

    Variances come from the gradients of micro-batches, which a step on several closures makes
    anyway; a micro-batch of m samples has 1/m of a sample's variance. With ``exact`` they come from
    gradients of single samples, at the cost of about one more backward pass per tested batch, which
    is not in the ledger. Inner products with the mean keep up to 16 gradients, ``coordinate`` keeps
    two, ``norm`` one.

    Two ways to make a batch larger: ``accumulate`` groups the loader's own batches, at least two
    of them; ``resample`` draws batches of any size from the loader's dataset in the order of its
    sampler, cut into equal parts where a test is due. Either leaves out what does not fill a batch
    at the end of a pass. With worker processes, ``resample`` reads ahead, so a change of size
    arrives some batches late. Under DistributedDataParallel with ``accumulate``, every process
    sees the same gradients and decides the same; sizes then count the samples of one process.

    Args:
        loader: gives the data.
        test: which of the tests above.
        eta: accuracy of ``norm`` and ``coordinate``; smaller is stricter.
        theta: accuracy of ``inner_product`` and ``augmented`` along the gradient.
        nu: accuracy of ``augmented`` across it.
        quantile: share of the coordinates that have to pass ``coordinate``. With 1, one gradient
            entry near zero asks for the largest batch at once. (The sum over coordinates, the other
            remedy, is ``norm``.)
        every: batches from one test to the next.
        largest: samples in a batch at most.
        smallest: samples in the first batches (default: as few as the way allows).
        growth: a test multiplies the size by no more than this.
        unbiased: subtract from :math:`|g|^2` the noise in it, which makes tests too lenient when
            batches are small. What is lost in noise altogether asks for the largest batch.
        population: samples drawn from without replacement (default: the dataset's length where the
            loader's sampler shows that it is so).
        how: ``accumulate`` or ``resample``.
        parts: parts into which ``resample`` cuts a batch for a test.
        piece: samples per closure at most with ``resample``, if memory is short.
        exact: the model, for gradients of single samples. It must treat samples one by one (no
            batch norm in training mode).

    Attributes:
        size: samples in the next batch.
        steps: batches given so far.
        samples: samples given so far.
        last: what the last test saw, or None.
        needed: the size the last test asked for, before rounding and limits, or None.
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
        self._taken, self._random = 0, None  # what this pass has used, where its order began
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
        """One pass over the data: lists of micro-batches, one list for each step."""
        groups = self._accumulated() if self.how == "accumulate" else self._resampled()
        for group, samples in groups:
            self._moments = None
            self.steps += 1
            self.samples += samples
            yield group
        self._taken, self._random, self._order = 0, None, None

    def closures(self, batches: Sequence[Any], loss: Callable[..., Tensor]) -> Sequence[Closure]:
        """The closures of one step, for ``optimizer.step``.

        Args:
            batches: what the controller gave.
            loss: takes the content of a micro-batch, ``loss(*batch)`` for tuples and lists, and
                returns its mean loss.
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
        """Take in the gradient of the next micro-batch of this step, and test after the last one.

        ``optimizer.step`` calls this; call it yourself if you make gradients without closures.
        Gradients beyond those of the step's first evaluation are not looked at.
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
        """What sizes are multiples of."""
        if self.how == "accumulate":
            assert self._micro is not None
            return self._micro
        return 1 if self.exact is not None else self.parts

    def _first(self) -> int:
        assert self._micro is not None
        return self._smallest or (self._micro if self.how == "accumulate" else max(self._micro, 2))

    def _limited(self, size: int) -> int:
        """The size rounded up to whole parts, within what is allowed and what a pass holds."""
        unit, pair = self._unit(), 2 if self.exact is None else 1
        least = unit * pair if self.how == "accumulate" else 2
        most = min(self.largest, self._pass_holds())
        if most < least:
            raise BatchingError(
                f"a batch may have {most} samples (largest={self.largest}, one pass over the data "
                f"holds {self._pass_holds()}), but a test needs {least} at least; expected "
                "a larger limit or smaller micro-batches"
            )
        if size < unit:  # few samples: each is a part of its own
            return max(size, least)
        rounded = -(-size // unit) * unit
        return int(max(least, min(rounded, most // unit * unit or most)))

    def _pass_holds(self) -> float:
        """Samples in one pass, as far as batches are full."""
        if isinstance(self.loader.dataset, IterableDataset):
            return math.inf
        if self.how == "resample" or self.loader.batch_size is not None:
            size = len(self.loader.sampler)  # type: ignore[arg-type]
            return size if self.how == "resample" else size // self._unit() * self._unit()
        return len(self.loader) * self._unit()

    def _starts(self, step: int) -> bool:
        """Whether batch number ``step`` is to be tested."""
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
                    "gradients are averaged alike. Use equal ones, or how='resample'"
                )
            short = count < self._micro  # the rest at the end of a pass
            if short:
                continue
            group.append(batch)
            if len(group) * self._micro >= self.size:
                self._taken += len(group)
                self._due = self._starts(self.steps)
                yield group, len(group) * self._micro
                group = []
        if group and not self._taken:  # a whole pass is less than one batch
            assert self._micro is not None
            self._due = False
            yield group, len(group) * self._micro

    def _from_loader(self) -> Iterator[Any]:
        """The rest of this pass, in the order in which it was begun."""
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
        if self._taken:  # this pass has drawn its random numbers already
            generator.set_state(present)
        for first in pieces:
            count, samples, self._due = plan.popleft()
            self._taken += samples
            yield [first, *(next(pieces) for _ in range(count - 1))], samples

    def _planned(self, plan: deque[tuple[int, int, bool]]) -> Generator[list[int]]:
        """Indices of one piece after the other; ``plan`` gets the pieces of each batch."""
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
        """All that an exact continuation needs, in the middle of a pass too.

        That includes the state of the loader's own generator, if it has one; the global one is the
        user's to keep, as for any random numbers in a model.
        ``accumulate`` finds its place by going through the loader again, so it is exact where the
        order comes from the loader's sampler and samples are the same every time.
        """
        return {
            "how": self.how, "size": self.size, "steps": self.steps, "samples": self.samples,
            "unclear": self.unclear, "micro": self._micro, "taken": self._taken,
            "order": self._order, "random": self._random,
            "own": self.loader.generator and self.loader.generator.get_state(),
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a saved state; the next pass is the rest of the one that was begun.

        Raises:
            BatchingError: not saved by a controller of this kind; nothing was changed.
        """
        if not isinstance(state, Mapping) or set(state) != set(_SAVED):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise BatchingError("expected what the state_dict() of a BatchSizeController returned")
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
    """Closures whose gradients a controller looks at."""

    def __init__(self, closures: Iterable[Closure], owner: BatchSizeController) -> None:
        super().__init__(closures)
        self.seen = owner.seen
