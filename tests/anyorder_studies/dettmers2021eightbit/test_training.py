from __future__ import annotations

import math

import pytest
import torch

from anyorder.compare.plan.seeds import TUNING_SEED
from anyorder.model.embedding import StableEmbedding
from anyorder_studies.dettmers2021eightbit import training
from anyorder_studies.dettmers2021eightbit.training import GUESS, build, trained, tuned
from anyorder_studies.study import StudyError


def test_networks_have_the_stated_shapes_and_depend_on_the_seed_alone() -> None:
    first, again, other = build("digits", 0), build("digits", 0), build("digits", 1)
    assert [tuple(p.shape) for p in first.parameters() if p.ndim == 2] == [
        (256, 64), (256, 256), (10, 256),
    ]  # fmt: skip
    pairs = list(zip(first.parameters(), again.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a, b) and not torch.equal(a, c) for a, b, c in pairs)


def test_the_stable_embedding_alone_differs_and_stays_in_float32() -> None:
    plain, stable = build("lm", 0), build("lm_stable", 0)
    assert isinstance(stable.get_submodule("embedding"), StableEmbedding)
    others = {n: p for n, p in plain.named_parameters() if not n.startswith("embedding")}
    named = dict(stable.named_parameters())
    assert all(torch.equal(named[name], param) for name, param in others.items())
    ends = {model: trained(model, "dynamic_2048", 1, 1e-3, 0) for model in ("lm", "lm_stable")}
    # Two buffers of 256 x 64 numbers in four bytes instead of one; eight scales each fewer, and
    # a norm of two times 64 more.
    codes, scales, norm = 2 * 256 * 64, 2 * 8 * 4, 2 * 2 * 64 * 4
    more = ends["lm_stable"]["state_bytes"] - ends["lm"]["state_bytes"]
    assert more == 3 * codes - scales + norm


@pytest.mark.parametrize("contestant", ["float32", "dynamic_256"])
def test_training_learns(contestant: str) -> None:
    found = trained("digits", contestant, 40, 3e-3, 0)
    assert found["unstable"] == 0.0
    assert found["train_loss"] < 1.0 and found["accuracy"] > 0.7


def test_what_diverges_counts_as_a_guess() -> None:
    found = trained("digits", "float32", 20, 1e30, 0)
    assert found["unstable"] == 1.0
    assert found["loss"] == GUESS["digits"] == pytest.approx(math.log(10))


def test_the_step_size_is_the_best_of_the_grid_on_tuning_seeds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[float, int]] = []

    def pretended(
        model: str, contestant: str, steps: int, lr: float, seed: int
    ) -> dict[str, float]:
        seen.append((lr, seed))
        return {"train_loss": (lr - 0.1) ** 2, "loss": (lr - 0.3) ** 2}

    monkeypatch.setattr(training, "trained", pretended)
    assert tuned("digits", "float32", 5, (0.01, 0.1, 0.3), 2) == 0.1
    assert tuned("lm", "float32", 5, (0.01, 0.1, 0.3), 1) == 0.3
    assert {seed for _, seed in seen} == {TUNING_SEED, TUNING_SEED + 1}
    with pytest.raises(StudyError):
        tuned("lm", "float32", 5, (), 1)
