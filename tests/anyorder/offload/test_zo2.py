"""ZO2 equals MeZO bit for bit, survives a kill at any moment, and is never stale."""

from __future__ import annotations

import copy
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from anyorder.hyper import HyperError, UnknownOptionError
from anyorder.methods.mezo import MeZO
from anyorder.model.params import ParamsTypeError
from anyorder.offload import ZO2, OffloadError, tensorfile
from anyorder.optimizer.base import NeedsError
from anyorder.oracle.gradients import NonFiniteError
from anyorder.testing.elsewhere import processes

OPTIONS: dict[str, Any] = {"lr": 1e-2, "eps": 1e-2, "seed": 7}


class Chain(nn.Module):
    """Embedding, residual blocks with dropout and a mask, and a head."""

    def __init__(self, blocks: int = 6, width: int = 8) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, width)
        self.blocks = nn.ModuleList(Residual(width) for _ in range(blocks))
        self.head = nn.Linear(width, 11)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x, mask=tokens[..., None] > 0)
        return self.head(x)


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.inner = nn.LayerNorm(width), nn.Linear(width, width)
        self.drop = nn.Dropout(0.2)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return x + self.drop(self.inner(self.norm(x)).tanh()) * mask


class Normed(Chain):
    """With buffers that every evaluation changes, inside and outside of blocks."""

    def __init__(self, blocks: int = 6, width: int = 8) -> None:
        super().__init__(blocks, width)
        self.head = nn.Sequential(nn.BatchNorm1d(9), self.head)  # type: ignore[assignment]
        for block in self.blocks:
            block.norm = nn.BatchNorm1d(9)


def chain(seed: int = 0, **sizes: int) -> Chain:
    torch.manual_seed(seed)
    return Chain(**sizes)


def closure_of(model: Any, number: int) -> Callable[[], Tensor]:
    """The loss of batch ``number``; dropout follows from it too."""
    generator = torch.Generator().manual_seed(number)
    tokens = torch.randint(0, 11, (4, 9), generator=generator)

    def closure() -> Tensor:
        return nn.functional.cross_entropy(
            model(tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()
        )

    return closure


def train(optimizer: Any, model: Any, until: int) -> list[Tensor]:
    """Steps up to a number of steps."""
    losses: list[Tensor] = []
    while optimizer.steps < until:
        torch.manual_seed(optimizer.steps)
        losses.append(optimizer.step(closure_of(model, optimizer.steps)))
    return losses


def mezo(model: Any, until: int, **options: Any) -> tuple[MeZO, list[Tensor]]:
    optimizer = MeZO(model, **{**OPTIONS, **options})
    return optimizer, train(optimizer, model, until)


def assert_equal(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> None:
    assert list(ours) == list(theirs)
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype
        assert torch.equal(ours[name], tensor), name


# The same as MeZO ---------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("where", ["host", "disk"])
def test_weights_are_those_of_mezo(where: str, ahead: bool, tmp_path: Path) -> None:
    settings = {"directions": 2, "weight_decay": 0.1}
    one, two = chain(), chain()
    theirs, wanted = mezo(one, 4, **settings)
    folder = tmp_path / "run" if where == "disk" else None
    ours = ZO2(two, folder=folder, ahead=ahead, **OPTIONS, **settings)
    found = train(ours, two, 4)
    assert torch.equal(torch.stack(found), torch.stack(wanted))
    assert_equal(two.state_dict(), one.state_dict())
    counts, others = ours.calls.to_dict(), theirs.calls.to_dict()
    assert counts.pop("seconds") > 0
    assert others.pop("seconds") > 0
    assert counts == others


def test_each_block_is_read_and_written_once_per_step() -> None:
    model = chain()
    optimizer = ZO2(model, **OPTIONS, directions=3)
    block = 4 * (8 * 8 + 3 * 8)
    train(optimizer, model, 1)
    assert (optimizer.traffic.reads, optimizer.traffic.writes) == (6, 0)
    train(optimizer, model, 4)
    traffic = optimizer.traffic
    assert (traffic.reads, traffic.writes) == (4 * 6, 3 * 6)
    assert traffic.bytes_written == traffic.writes * block
    assert (traffic.peak_bytes, traffic.resident_bytes) == (block, 0)
    optimizer.flush()
    assert optimizer.traffic.writes == 4 * 6
    optimizer.flush()
    assert optimizer.traffic.writes == 4 * 6


@pytest.fixture(scope="module")
def llama() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=31, hidden_size=16, intermediate_size=24, num_hidden_layers=5,
        num_attention_heads=4, num_key_value_heads=2, attention_dropout=0.1, use_cache=False,
        tie_word_embeddings=True,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).train()


def test_a_decoder_of_transformers(llama: nn.Module) -> None:
    tokens = torch.randint(0, 31, (3, 8))
    mask = torch.ones_like(tokens)
    mask[0, :3] = 0
    places = mask.cumsum(-1).sub(1).clamp(min=0)

    def loss(model: Any) -> Tensor:
        return model(tokens, attention_mask=mask, position_ids=places, labels=tokens).loss

    one, two = copy.deepcopy(llama), copy.deepcopy(llama)
    theirs, ours = MeZO(one, **OPTIONS), ZO2(two, **OPTIONS)
    for step in range(3):
        torch.manual_seed(step)
        wanted = theirs.step(lambda: loss(one))
        torch.manual_seed(step)
        assert torch.equal(ours.step(lambda: loss(two)), wanted)
    assert ours.traffic.reads == 3 * 5
    assert_equal(two.state_dict(), one.state_dict())
    with torch.no_grad():
        text = two.eval().generate(
            tokens[:1], attention_mask=mask[:1], max_new_tokens=3, pad_token_id=0
        )
        assert torch.equal(
            text,
            one.eval().generate(
                tokens[:1], attention_mask=mask[:1], max_new_tokens=3, pad_token_id=0
            ),
        )


def test_a_plain_list_of_blocks() -> None:
    def blocks() -> nn.ModuleList:
        torch.manual_seed(1)
        return nn.ModuleList(nn.Linear(5, 5) for _ in range(4))

    def loss(layers: nn.ModuleList) -> Tensor:
        x = torch.linspace(-1, 1, 15).view(3, 5)
        for layer in layers:
            x = layer(x).tanh()
        return x.square().mean()

    one, two = blocks(), blocks()
    theirs, ours = MeZO(one, **OPTIONS), ZO2(two, **OPTIONS)
    for _ in range(3):
        assert torch.equal(ours.step(lambda: loss(two)), theirs.step(lambda: loss(one)))
    assert_equal(two.state_dict(), one.state_dict())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_dtypes(dtype: torch.dtype, tmp_path: Path) -> None:
    one, two = chain().to(dtype), chain().to(dtype)
    mezo(one, 2)
    optimizer = ZO2(two, folder=tmp_path / "run", **OPTIONS)
    train(optimizer, two, 2)
    assert_equal(two.state_dict(), one.state_dict())


def test_schedules_frozen_parameters_and_settings_that_change(tmp_path: Path) -> None:
    one, two = chain(), chain()
    for model in (one, two):
        model.embed.requires_grad_(False)
        model.blocks[0].requires_grad_(False)
        model.blocks[1].inner.requires_grad_(False)
    pairs: list[Any] = [
        (one, MeZO(one, **OPTIONS)), (two, ZO2(two, folder=tmp_path / "run", **OPTIONS))
    ]  # fmt: skip
    for model, optimizer in pairs:
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
        for _ in range(3):
            train(optimizer, model, optimizer.steps + 1)
            schedule.step()
        optimizer.param_groups[0]["weight_decay"] = 0.2
        train(optimizer, model, 5)
    assert_equal(two.state_dict(), one.state_dict())
    assert pairs[1][1].traffic.writes == 5 * 5, "4 updates of 5 blocks, and one at the end"


def test_in_other_modes_of_pytorch(user_mode: Any, tmp_path: Path) -> None:
    one, two = chain(), chain()
    mezo(one, 2)
    with user_mode():
        optimizer = ZO2(two, folder=tmp_path / "run", **OPTIONS)
    for step in range(2):
        torch.manual_seed(step)
        closure = closure_of(two, step)
        with user_mode():
            optimizer.step(closure)
    assert_equal(two.state_dict(), one.state_dict())


def test_moves_that_all_blocks_have_received_are_forgotten() -> None:
    model = chain()
    optimizer = ZO2(model, **OPTIONS)
    train(optimizer, model, 6)
    assert len(optimizer._moves._moves) <= 2
    assert len(optimizer._moves) == 6


def test_steps_that_are_skipped(tmp_path: Path) -> None:
    one, two = chain(), chain()
    options: dict[str, Any] = {**OPTIONS, "nonfinite": "skip"}
    ours = ZO2(two, folder=tmp_path / "run", **options)
    for optimizer, model in ((MeZO(one, **options), one), (ours, two)):
        train(optimizer, model, 1)
        optimizer.step(lambda model=model: closure_of(model, 0)() * torch.nan)
        train(optimizer, model, 3)
        assert optimizer.calls.skipped == 1
    assert_equal(two.state_dict(), one.state_dict())
    again = chain(seed=9)
    resumed = ZO2(again, folder=tmp_path / "run", resume=True, **options)
    assert (resumed.steps, resumed.skips) == (3, 1)
    for optimizer, model in ((resumed, again), (MeZO(chain(), **options), None)):
        if model is not None:
            train(optimizer, model, 4)
    mezo_twin = chain()
    twin = MeZO(mezo_twin, **options)
    train(twin, mezo_twin, 1)
    twin.step(lambda: closure_of(mezo_twin, 0)() * torch.nan)
    train(twin, mezo_twin, 4)
    assert_equal(again.state_dict(), mezo_twin.state_dict())


# Never stale --------------------------------------------------------------------------------------


def test_the_model_can_be_evaluated_at_any_time(tmp_path: Path) -> None:
    one, two = chain().eval(), chain().eval()
    optimizer = ZO2(two, folder=tmp_path / "run", **OPTIONS)
    for steps in (1, 2):
        one.load_state_dict(chain().state_dict())
        mezo(one, steps)
        train(optimizer, two, steps)
        with torch.no_grad():
            assert torch.equal(closure_of(two, 5)(), closure_of(one, 5)())
        assert torch.equal(optimizer.oracle(closure_of(two, 5)).value(), closure_of(one, 5)())
        assert_equal(two.state_dict(), one.state_dict())


def test_weights_that_are_away_read_as_nan_and_are_saved_nevertheless(tmp_path: Path) -> None:
    model = chain()
    optimizer = ZO2(model, **OPTIONS)
    train(optimizer, model, 1)
    assert model.blocks[2].inner.weight.isnan().all()
    torch.save(model.state_dict(), tmp_path / "weights")
    saved = torch.load(tmp_path / "weights")
    part = model.blocks[2].state_dict()
    train(optimizer, model, 2)
    other = chain()
    mezo(other, 1)
    assert_equal(saved, other.state_dict())
    assert_equal(part, other.blocks[2].state_dict())


def test_closing_gives_back_a_plain_model(tmp_path: Path) -> None:
    one, two = chain(), chain()
    mezo(one, 2)
    optimizer = ZO2(two, folder=tmp_path / "run", **OPTIONS)
    train(optimizer, two, 2)
    optimizer.close()
    assert_equal(two.state_dict(), one.state_dict())
    assert_equal(dict(two.named_parameters()), dict(one.named_parameters()))
    assert "forward" not in vars(two.blocks[0])
    with pytest.raises(OffloadError, match="was closed"):
        train(optimizer, two, 3)
    mezo(two, 1)  # steps change memory alone
    two.load_state_dict(copy.deepcopy(one).state_dict())
    closure_of(two, 0)().backward()
    assert two.blocks[0].inner.weight.grad is not None
    assert_equal(ZO2(two, **OPTIONS).model.state_dict(), one.state_dict())


def test_a_run_in_memory_is_resumed_from_its_two_states() -> None:
    one, two, three = chain(), chain(), chain(seed=8)
    mezo(one, 5)
    first = ZO2(two, **OPTIONS)
    train(first, two, 3)
    state, weights = first.state_dict(), copy.deepcopy(two.state_dict())
    train(first, two, 4)
    three.load_state_dict(weights)
    second = ZO2(three, **OPTIONS)
    second.load_state_dict(state)
    assert (second.steps, second.calls.values) == (3, 6)
    train(second, three, 5)
    assert_equal(three.state_dict(), one.state_dict())


# Kills and full disks -----------------------------------------------------------------------------


def normed(seed: int) -> Normed:
    torch.manual_seed(seed)
    return Normed(blocks=3, width=4)


def run_until_killed(folder: str, until: int, events: int, ahead: bool) -> None:
    """Go on with a run, and be killed at a counted event: a file opened, renamed or written to."""
    left = events
    files = tensorfile._bytes

    def tick() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(name: str, given: tuple[Any, ...]) -> None:
        if name in ("open", "os.rename", "os.truncate") and folder in str(given[0]):
            tick()

    def bytes_of(tensor: Tensor) -> memoryview:
        tick()
        return files(tensor)

    model = normed(0)
    tensorfile._bytes = bytes_of
    sys.addaudithook(audit)
    resume = (Path(folder) / "moves.jsonl").exists()
    optimizer = ZO2(model, folder=folder, resume=resume, ahead=ahead, **OPTIONS)
    train(optimizer, model, until)


def kills(folder: Path, until: int, numbers: Iterator[int]) -> int:
    """Run to the end, however often it is killed; return how often it was.

    Every second process reads ahead.
    """
    context = processes()
    for count, events in enumerate(numbers):
        given = (str(folder), until, events, bool(count % 2))
        process = context.Process(target=run_until_killed, args=given)
        process.start()
        process.join()
        if process.exitcode == 0:
            return count
        assert process.exitcode == -signal.SIGKILL
    raise AssertionError


def check_killed(folder: Path, until: int, numbers: Iterator[int]) -> int:
    count = kills(folder, until, numbers)
    one, two = normed(0), normed(1)
    mezo(one, until)
    optimizer = ZO2(two, folder=folder, resume=True, **OPTIONS)
    assert (optimizer.steps, optimizer.calls.values) == (until, 2 * until)
    assert_equal(two.state_dict(), one.state_dict())
    return count


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_weights(tmp_path: Path) -> None:
    rng = random.Random(4)
    numbers = iter(lambda: rng.randrange(100, 160), None)
    assert check_killed(tmp_path / "run", 3, numbers) >= 2


@pytest.mark.slow
def test_a_run_may_be_killed_at_every_event(tmp_path: Path) -> None:
    for events in range(1, 400, 7):
        folder = tmp_path / str(events)
        numbers = iter([events, 10**9])
        if not check_killed(folder, 2, numbers):
            return
    raise AssertionError("more events than expected")


def test_a_full_disk_loses_nothing(tmp_path: Path, full_disk: Any) -> None:
    one, two = chain(), chain()
    mezo(one, 3)
    optimizer = ZO2(two, folder=tmp_path / "run", **OPTIONS)
    train(optimizer, two, 1)
    log = (tmp_path / "run" / "moves.jsonl").stat().st_size
    for size in (100, log):  # not even a block, or the log, can be written
        with full_disk(size), pytest.raises(OffloadError, match="Nothing is lost: free disk space"):
            train(optimizer, two, 2)
    assert optimizer.steps == 1
    assert optimizer.traffic.resident_bytes == 0
    train(optimizer, two, 2)
    with full_disk(100), pytest.raises(OffloadError, match="cannot write"):
        optimizer.flush()
    other = chain(seed=1)
    resumed = ZO2(other, folder=tmp_path / "run", resume=True, **OPTIONS)
    train(resumed, other, 3)
    assert_equal(other.state_dict(), one.state_dict())


def test_a_disk_that_is_full_at_the_start_leaves_the_model_alone(
    tmp_path: Path, full_disk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = chain()
    with full_disk(400), pytest.raises(OffloadError, match="cannot write"):
        ZO2(model, folder=tmp_path / "run", **OPTIONS)
    assert_equal(model.state_dict(), chain().state_dict())
    assert "forward" not in vars(model.blocks[0])
    usage = type("Usage", (), {"free": 3_000})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    with pytest.raises(OffloadError, match=r"has 0.0 GB of free disk space"):
        ZO2(model, folder=tmp_path / "run", **OPTIONS)
    monkeypatch.undo()
    ZO2(model, folder=tmp_path / "run", **OPTIONS)  # what is there is no run


# Narrow storage -----------------------------------------------------------------------------------


@pytest.mark.parametrize("storage", ["bfloat16", "float16"])
def test_narrow_storage_rounds_every_update(storage: str, tmp_path: Path) -> None:
    one, two = chain(), chain()
    narrow = getattr(torch, storage)

    def rounded(name: str, param: Tensor) -> None:
        if name.startswith("blocks."):
            param.copy_(param.to(narrow))

    with torch.no_grad():
        for name, param in one.named_parameters():
            rounded(name, param)
    mezo(one, 3, after=rounded)
    with pytest.warns(UserWarning, match=f"storage='{storage}' rounds every weight of a block"):
        optimizer = ZO2(two, folder=tmp_path / "run", storage=storage, **OPTIONS)
    train(optimizer, two, 3)
    assert_equal(two.state_dict(), one.state_dict())
    block = 8 * 8 + 3 * 8
    assert optimizer.traffic.bytes_written == optimizer.traffic.writes * 2 * block
    assert optimizer.traffic.peak_bytes == 4 * block


def test_narrow_storage_loses_small_updates() -> None:
    full, narrow = chain(), chain()
    small = {**OPTIONS, "lr": 1e-6}
    train(ZO2(full, **small), full, 5)
    with pytest.warns(UserWarning, match="updates smaller than about 2\\^-9 of a weight are lost"):
        optimizer = ZO2(narrow, storage="bfloat16", **small)
    train(optimizer, narrow, 5)
    start, moved, kept = (m.state_dict() for m in (chain(), full, narrow))
    name = "blocks.3.inner.weight"
    assert (moved[name] != start[name]).float().mean() > 0.5
    assert (kept[name] != start[name].bfloat16()).float().mean() < 0.02


# What is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"storage": "int8"}, HyperError, "storage: expected one of ['float16', 'bfloat16']"),
        ({"resume": True}, HyperError, "only a run in files can be resumed"),
        ({"after": print}, HyperError, "after: blocks are updated in the next step"),
        ({"learning_rate": 1.0}, UnknownOptionError, "learning_rate"),
        ({"eps": 0.0}, HyperError, "eps"),
        ({"blocks": "nowhere"}, OffloadError, "has no module 'nowhere'"),
    ],
)
def test_arguments_that_are_refused(options: Any, error: type[Exception], says: str) -> None:
    model = chain()
    with pytest.raises(error) as caught:
        ZO2(model, **options)
    assert says in str(caught.value)
    assert_equal(model.state_dict(), chain().state_dict())


def test_uses_that_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ParamsTypeError, match="expected a model, got list; write ZO2"):
        ZO2([nn.Linear(2, 2)])  # type: ignore[arg-type]
    model = chain()
    optimizer = ZO2(model, folder=tmp_path / "run", **OPTIONS)
    with pytest.raises(OffloadError, match="holds a run; write resume=True"):
        ZO2(chain(), folder=tmp_path / "run", **OPTIONS)
    with pytest.raises(OffloadError, match="belongs to another model"):
        ZO2(chain(blocks=5), folder=tmp_path / "run", resume=True, **OPTIONS)
    with pytest.raises(OffloadError, match="cannot be copied or pickled"):
        copy.deepcopy(model)
    with pytest.raises(OffloadError, match="before ZO2"):
        model.load_state_dict(chain().state_dict())
    with pytest.raises(OffloadError, match="keeps its own state"):
        optimizer.load_state_dict(optimizer.state_dict())
    with pytest.raises(OffloadError, match="groups cannot be added"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))]})
    with pytest.raises(NeedsError, match="needs a closure"):
        optimizer.step()
    with pytest.raises(NonFiniteError):
        optimizer.step(lambda: closure_of(model, 0)() * torch.inf)
    model.blocks[0].requires_grad_(False)
    with pytest.raises(OffloadError, match="requires_grad of blocks.0"):
        optimizer.step(closure_of(model, 0))


def test_explain_says_what_is_offloaded() -> None:
    text = ZO2(chain(), **OPTIONS).explain()
    assert "embed.weight  11x8 float32  stays in memory" in text
    assert "blocks.5.inner.bias  8 float32  offloaded with blocks.5" in text


@pytest.mark.gpu
@pytest.mark.parametrize("ahead", [False, True])
def test_on_a_gpu(ahead: bool, tmp_path: Path) -> None:
    one = chain().cuda().eval()
    theirs = MeZO(one, **OPTIONS)
    for step in range(3):
        theirs.step(closure_of(lambda tokens: one(tokens.cuda()).cpu(), step))
    for folder in (None, tmp_path / "run"):
        two = chain().eval()
        optimizer = ZO2(two, folder=folder, device="cuda", ahead=ahead, **OPTIONS)
        assert next(two.parameters()).is_cuda
        for step in range(3):
            optimizer.step(closure_of(lambda tokens, two=two: two(tokens.cuda()).cpu(), step))
        for name, tensor in two.state_dict().items():
            torch.testing.assert_close(
                tensor.cpu(), one.state_dict()[name].cpu(), rtol=1e-3, atol=1e-5
            )
