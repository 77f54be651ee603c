"""ZO2: MeZO for models whose blocks do not fit into memory at once."""

from __future__ import annotations

import functools
import inspect
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, final

import torch
from torch import Tensor, nn

from anyorder.hyper import HyperError, hyper
from anyorder.model.params import ParamsTypeError
from anyorder.offload.blocks import Block, identity, split
from anyorder.offload.buffers import Buffers
from anyorder.offload.lockstep import Lockstep, LockstepOracle
from anyorder.offload.moves import Move, Moves
from anyorder.offload.stores import DiskStore, HostStore, Store
from anyorder.offload.stream import Stream, Traffic
from anyorder.offload.tensorfile import OffloadError
from anyorder.optimizer import Optimizer
from anyorder.optimizer.state import StateLayout
from anyorder.oracle import Oracle
from anyorder.oracle.gradients import SkipStep
from anyorder.oracle.oracle import NeedsError
from anyorder.points.directions import Shift

#: Narrow dtypes in which blocks may be kept.
STORAGE = {"float16": torch.float16, "bfloat16": torch.bfloat16}


class _Fixed(StateLayout):
    """The state of parameters that come and go; there is nothing to rearrange."""

    def current(self, owner: Any) -> None:
        """Nothing: groups and parameters do not change."""


@final
class ZO2(Optimizer):
    r"""MeZO with the blocks of the model in host memory or in files.

    One pass over the model per step: a block is loaded, receives the update of the step before,
    is used at all points (:math:`x \pm \epsilon z_i`) and is put back. Every block is read and
    written once per step. Parameters outside of blocks (embeddings, head), and parameters that
    several parts of the model share, stay in memory. The weights are those of
    :class:`~anyorder.methods.mezo.MeZO` with the same seed, bit for bit, unless ``storage`` is
    narrower than the weights.

    The model can be evaluated at any time under ``torch.no_grad()``; each block is loaded, and
    updated if necessary, when it is called. ``model.state_dict()`` returns the current weights,
    mapped from the files. The weights of a block that is not loaded read as NaN, and it cannot be
    differentiated.

    Departures from the paper: perturbed weights are substituted instead of adding and subtracting
    noise, so that they are restored exactly; directions follow from seed, step and name instead of
    generator states; no default weight decay.

    Args:
        model: the model, with its weights.
        blocks: the blocks, as a list of modules of the model or the name of such a list; by default
            every outermost ``ModuleList`` of modules of one class.
        folder: keep blocks in files here; by default in host memory.
        resume: continue the run in ``folder``, with its weights; the step may have been
            interrupted at any moment.
        storage: ``float16`` or ``bfloat16``: keep blocks in this narrower dtype. Every update is
            then rounded, and those below the resolution are lost.
        device: where blocks are computed; by default where the first parameter outside of blocks
            is.
        ahead: read the next block and write the present one while it is used; two blocks are then
            in memory instead of one. By default on a GPU.
        options: ``lr``, ``eps``, ``directions`` and ``weight_decay``, which mean the same as for
            MeZO, and the common options of optimizers except ``after`` and ``process_group``.

    Raises:
        OffloadError: the model cannot be offloaded, the folder cannot be used, or the disk is full.

    Example:
        >>> import torch
        >>> from anyorder.offload import ZO2
        >>> model = torch.nn.Sequential(*[torch.nn.Linear(4, 4) for _ in range(6)])
        >>> optimizer = ZO2(model, blocks=list(model), lr=1e-2)
        >>> x = torch.ones(8, 4)
        >>> loss = optimizer.step(lambda: model(x).square().mean())
        >>> optimizer.calls.values, optimizer.traffic.reads
        (2, 6)
        >>> optimizer.traffic.peak_bytes  # one block of 20 weights
        80

    References:
        Wang et al. (2025), "ZO2: Scalable Zeroth-Order Fine-Tuning for Extremely Large Language
        Models with Limited GPU Memory", arXiv 2503.12668.
    """

    order = 0
    needs = frozenset({"value"})

    lr: float = hyper(
        1e-6, ge=0, search="log", low=1e-6, high=1e-2, unit="parameter / slope", doc="learning rate"
    )
    eps: float = hyper(1e-3, gt=0, unit="parameter", doc="size of the perturbation")
    directions: int = hyper(1, ge=1, doc="directions per step")
    weight_decay: float = hyper(0.0, ge=0, unit="slope / parameter", doc="weight decay of matrices")

    def __init__(
        self,
        model: nn.Module,
        *,
        blocks: str | Sequence[nn.Module] | None = None,
        folder: str | Path | None = None,
        resume: bool = False,
        storage: str | None = None,
        device: str | torch.device | None = None,
        ahead: bool | None = None,
        **options: Any,
    ) -> None:
        _check(model, folder, resume, storage, options)
        found, residents = split(model, blocks)
        super().__init__(model, **options)
        self.model = model
        self._layout = _Fixed()
        self._folder = None if folder is None else Path(folder)
        self._device = where = _device(device, residents, found)
        self._residents = residents
        self._trained = {name: p for name, p in residents.items() if p.requires_grad}
        self._copy: DiskStore | None = None
        self._place_residents(where)
        self._buffers = Buffers(model, self._folder)
        self._moves = self._log(identity(found, residents, storage), resume=resume)
        store = self._stored(found, STORAGE.get(storage or ""), resume=resume)
        if resume:
            self._load()
        else:
            self._buffers.save(0)
            self._moves.begin()
        ahead = where.type == "cuda" if ahead is None else ahead
        self._stream = Stream(store, self._moves, self.engine, ahead=ahead)
        self._lockstep = Lockstep(self._stream, self.engine)
        self._undo: list[Callable[[], Any]] = []
        self._install()

    # For users -----------------------------------------------------------------------------

    @property
    def traffic(self) -> Traffic:
        """Counts of blocks read and written, and of their bytes in memory."""
        return self._stream.traffic

    def flush(self) -> None:
        """Apply the pending updates to all blocks, in one pass; evaluating does not need it.

        Raises:
            OffloadError: the disk is full. Nothing is lost; call it again.
        """
        self._stream.flush()
        self._save()

    def close(self) -> None:
        """Flush, and give the model all its weights back; files are mapped into memory."""
        self.flush()
        for undo in self._undo:
            undo()
        self._undo.clear()
        self._stream.close()

    def oracle(self, closure: Any, *, advance: bool = False) -> LockstepOracle:
        """Return the oracle that a step would use. It only knows values."""
        if not self._undo:
            raise OffloadError("this optimizer was closed; make a new one: ZO2(model)")
        policies = self._policies()
        policies.pop("module", None)
        return LockstepOracle(
            closure, self.named_params(), self._lockstep, self.model, advance=advance, **policies
        )

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add the parameters of the model; others cannot follow."""
        if hasattr(self, "_stream"):
            raise OffloadError("groups cannot be added: all parameters of the model are in one")
        super().add_param_group(param_group)

    def state_dict(self) -> dict[str, Any]:
        """Flush, and return the state; together with ``model.state_dict()`` it is the whole run."""
        self.flush()
        return super().state_dict()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load a state, after the weights that were saved with it were given to the model."""
        if self._folder is not None:
            raise OffloadError(
                "a run in files keeps its own state; write ZO2(model, folder=..., resume=True)"
            )
        self.flush()
        super().load_state_dict(state_dict)

    def note(self, name: str, param: Tensor) -> str:
        """Say in which block a parameter is."""
        places = [block.name for block in self._stream.blocks if name in block.params]
        return f"offloaded with {places[0]}" if places else "stays in memory"

    # A step --------------------------------------------------------------------------------

    def update(self, oracle: Oracle) -> Tensor:
        """Evaluate all points in one pass over the blocks, and record the update."""
        self._check_unchanged()
        self._save()
        self._stream.forget()
        drawn = [self.direction(index) for index in range(self.directions)]
        shifts = [Shift(side * self.eps, z) for z in drawn for side in (1, -1)]
        try:
            values = oracle.values(shifts)
        except SkipStep:
            self._record((), skips=self.skips + 1)
            raise
        slopes: list[float] = []
        seen: list[Tensor] = []
        for ahead, behind in values.view(-1, 2):
            slopes.append((ahead.item() - behind.item()) / (2 * self.eps))
            seen.append((ahead + behind) / 2)
        self._record(tuple(slopes), steps=self.steps + 1)
        return torch.stack(seen).mean()

    def _record(self, slopes: tuple[float, ...], **counts: int) -> None:
        """Make an update part of the run; parameters in memory receive it at once."""
        group = self.param_groups[0]
        move = Move(
            self.seed, self.steps + self.skips, slopes, float(group["lr"]), self.weight_decay
        )
        record = {"steps": self.steps, "skips": self.skips, **counts}
        self._buffers.save(len(self._moves) + 1)
        self._moves.append(move, {**record, "calls": self.calls.to_dict()})
        move.apply_(self._trained, self.engine)

    def _check_unchanged(self) -> None:
        for block in self._stream.blocks:
            for name, param in block.params.items():
                if param.requires_grad != (name in block.trainable):
                    raise OffloadError(
                        f"requires_grad of {name} was changed; freeze parameters before ZO2(model)"
                    )

    # Inside --------------------------------------------------------------------------------

    def _place_residents(self, device: torch.device) -> None:
        """Move what stays in memory to the device: parameters outside of blocks, all buffers."""
        for tensor in (*self._residents.values(), *self.model.buffers()):
            tensor.data = tensor.data.to(device)

    def _log(self, model: str, *, resume: bool) -> Moves:
        if self._folder is None:
            return Moves()
        path = self._folder / "moves.jsonl"
        if path.exists() and not resume:
            raise OffloadError(
                f"{self._folder} holds a run; write resume=True to continue it, or choose another "
                "folder"
            )
        return Moves(path, model, resume=resume)

    def _stored(self, blocks: list[Block], kept: torch.dtype | None, *, resume: bool) -> Store:
        """Put the blocks, and in files also a copy of what stays in memory, where they are kept."""
        where = self._device
        if self._folder is None:
            return HostStore(blocks, where, kept)
        if not resume:
            _check_space(self._folder, blocks, self._residents, kept)
        store = DiskStore(blocks, where, kept, self._folder, resume=resume)
        rest = Block("", self.model, self._residents, frozenset(self._trained))
        self._copy = DiskStore([rest], where, None, self._folder, name="resident", resume=resume)
        return store

    def _save(self) -> None:
        """Write the parameters that stay in memory, if they have changed."""
        if self._copy is not None and self._trained and self._copy.versions[0] < len(self._moves):
            self._copy.put(0, self._trained, len(self._moves))

    def _load(self) -> None:
        """Load the parameters that stay in memory, and the counts of the run."""
        assert self._copy is not None
        with torch.no_grad():
            self._buffers.load(len(self._moves))
            for name, value in self._copy.get(0).items():
                self._residents[name].copy_(value)
            for move in self._moves.since(self._copy.versions[0]):
                move.apply_(self._trained, self.engine)
        if last := self._moves.last:
            self.steps, self.skips = last["steps"], last["skips"]
            self.calls.update(last["calls"])

    def _install(self) -> None:
        """Lead calls of blocks, and saving and loading, to where the weights are."""
        for index, block in enumerate(self._stream.blocks):
            module: Any = block.module
            self._undo.append(functools.partial(_put_back, module, vars(module).get("forward")))
            module.forward = functools.partial(self._lockstep.visit, index, module.forward)
            fill = functools.partial(self._fill, index)
            self._undo.append(module.register_state_dict_post_hook(fill).remove)
            self._undo.append(module.register_load_state_dict_pre_hook(_refuse_load).remove)

    def _fill(
        self, index: int, module: nn.Module, state: dict[str, Any], prefix: str, _: Any
    ) -> None:
        """Give ``state_dict()`` the current weights of a block."""
        self._stream.flush_block(index)
        kept = self._stream.store.peek(index)
        names = {id(p): name for name, p in self._stream.blocks[index].params.items()}
        for name, param in module.named_parameters(remove_duplicate=False):
            if id(param) in names and prefix + name in state:
                state[prefix + name] = kept[names[id(param)]].to(param.dtype)


def _check(
    model: Any, folder: Any, resume: bool, storage: str | None, options: Mapping[str, Any]
) -> None:
    """Check arguments before anything is done."""
    if not isinstance(model, nn.Module):
        raise ParamsTypeError(
            f"expected a model, got {type(model).__name__}; write ZO2(model), or "
            "ZO2(torch.nn.ModuleList(blocks)) for a list of modules"
        )
    if storage is not None and storage not in STORAGE:
        raise HyperError(f"storage: expected one of {list(STORAGE)} or None, got {storage!r}")
    if resume and folder is None:
        raise HyperError("resume: only a run in files can be resumed; write folder=...")
    if options.get("after") is not None:
        raise HyperError("after: blocks are updated in the next step, so it cannot be called")
    if isinstance(model, nn.parallel.DistributedDataParallel) or options.get("process_group"):
        raise NeedsError("ZO2 runs in one process; pass the model without DistributedDataParallel")
    if storage is not None:
        bits = {"float16": 11, "bfloat16": 8}[storage]
        warnings.warn(
            f"storage={storage!r} rounds every weight of a block to {bits} significant bits after "
            f"every update, so updates smaller than about 2^-{bits + 1} of a weight are lost; "
            "steps of MeZO usually are. Results differ from those of MeZO",
            stacklevel=3,
        )


def _check_space(
    folder: Path, blocks: Sequence[Block], residents: Mapping[str, Tensor], kept: torch.dtype | None
) -> None:
    """Check that the files fit on the disk before they are written."""
    sizes = [
        sum(p.numel() * (kept or p.dtype).itemsize for p in block.params.values())
        for block in blocks
    ]
    sizes.append(sum(p.nbytes for p in residents.values()))
    needed = sum(sizes) + max(sizes)  # a file is written beside the one that it replaces
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OffloadError(
            f"{folder} has {free / 1e9:.1f} GB of free disk space, the run needs "
            f"{needed / 1e9:.1f} GB; free disk space or choose another folder"
        )


def _device(
    given: str | torch.device | None, residents: Mapping[str, Tensor], blocks: Sequence[Block]
) -> torch.device:
    if given is not None:
        return torch.empty(0, device=given).device  # with its number
    params = (*residents.values(), *(p for block in blocks for p in block.params.values()))
    return params[0].device


def _put_back(module: Any, forward: Any) -> None:
    """Give a module the ``forward`` it had: its own, or that of its class."""
    if forward is None:
        del module.forward
    else:
        module.forward = forward


def _refuse_load(module: nn.Module, *_: Any) -> NoReturn:
    raise OffloadError(
        "weights cannot be loaded into an offloaded model; load them before ZO2(model), or after "
        "optimizer.close()"
    )


def _signature() -> inspect.Signature:
    """The own arguments of the constructor, then settings and common options."""
    own = [p for n, p in inspect.signature(ZO2.__init__).parameters.items() if n != "self"]
    named = {p.name for p in own} | {"after", "process_group", "ranker", "scaler"}
    common = inspect.signature(ZO2).parameters.values()
    more = [p for p in common if p.name != "params" and p.name not in named]
    return inspect.Signature([*own[:-1], *more])


ZO2.__signature__ = _signature()  # type: ignore[attr-defined]
