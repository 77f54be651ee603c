"""The language model: its text, its arithmetic, its derivatives."""

from __future__ import annotations

import math
import sysconfig
from pathlib import Path

import pytest
import torch

from anyorder.problems import ProblemError, load
from anyorder.problems.stdlib_lm import MODULES, TEST, TRAINING, VALIDATION, StdlibLM, _text


@pytest.fixture(scope="module")
def tiny() -> StdlibLM:
    return StdlibLM()


def hessian_product(problem: StdlibLM):
    model, batch = problem.build(0), problem.batch(0, 0)[:2]
    parameters = list(model.parameters())
    gradient = torch.autograd.grad(problem.loss(model, batch), parameters, create_graph=True)
    total = sum((g * torch.ones_like(g)).sum() for g in gradient)
    return torch.autograd.grad(total, parameters)


class TestText:
    def test_modules_are_split_without_overlap(self):
        assert len(MODULES) == 89
        assert list(MODULES) == sorted(set(MODULES))
        assert sorted(TRAINING + VALIDATION + TEST) == list(MODULES)
        assert (len(VALIDATION), len(TEST)) == (9, 8)

    def test_it_is_the_source_of_this_python(self):
        folder = Path(sysconfig.get_path("stdlib"))
        expected = (folder / "heapq.py").read_bytes()
        assert bytes(_text(("heapq",)).tolist()) == expected

    def test_missing_source_is_said(self, monkeypatch, tmp_path):
        monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
        with pytest.raises(ProblemError, match=r"heapq\.py.*installed with its source"):
            _text(("heapq",))

    def test_windows_are_pieces_of_training_text(self, tiny):
        batch = tiny.batch(1, 2)
        assert batch.shape == (16, 65)
        text = bytes(tiny._training.tolist())
        assert all(bytes(row.tolist()) in text for row in batch)
        assert torch.equal(batch, tiny.batch(1, 2))
        assert not torch.equal(batch, tiny.batch(1, 3))
        assert not torch.equal(batch, tiny.batch(2, 2))


class TestModel:
    @pytest.mark.parametrize(
        ("options", "count"),
        [({}, 136_960), ({"tied": True}, 120_576), ({"size": "small"}, 4_886_528)],
    )
    def test_size(self, options, count):
        model = StdlibLM(**options).build(0)
        assert sum(p.numel() for p in model.parameters()) == count

    def test_tied_head_shares_the_embedding(self):
        model = StdlibLM(tied=True).build(0)
        assert model.head.weight is model.embedding.weight
        untied = StdlibLM().build(0)
        assert untied.head.weight is not untied.embedding.weight

    def test_start_knows_nothing(self, tiny):
        loss = tiny.evaluate(tiny.build(0))["loss"]
        assert loss == pytest.approx(math.log(256), abs=0.3)

    def test_attention_looks_back_only(self, tiny):
        model = tiny.build(0)
        tokens = tiny.batch(0, 0)[:1, :-1]
        changed = tokens.clone()
        changed[0, 40] = (changed[0, 40] + 1) % 256
        before, after = model(tokens), model(changed)
        assert torch.equal(before[0, :40], after[0, :40])
        assert not torch.allclose(before[0, 41:], after[0, 41:], atol=1e-6)

    def test_both_attentions_agree(self):
        plain, fused = StdlibLM(), StdlibLM(attention="sdpa")
        batch = plain.batch(0, 0)
        losses = [p.loss(p.build(0), batch) for p in (plain, fused)]
        assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-6)

    def test_hessian_products(self, tiny):
        """The default can be differentiated twice; against differences of the gradient."""
        products = hessian_product(tiny)
        assert all(product.isfinite().all() for product in products)
        model = tiny.build(0).double()
        batch = tiny.batch(0, 0)[:2]
        sides = []
        for sign in (1, -1):
            moved = tiny.build(0).double()
            with torch.no_grad():
                for p in moved.parameters():
                    p += sign * 1e-6
            sides.append(torch.autograd.grad(tiny.loss(moved, batch), list(moved.parameters())))
        for name, product, ahead, behind in zip(
            dict(model.named_parameters()), products, *sides, strict=True
        ):
            expected = (ahead - behind) / 2e-6
            error = (product - expected).norm() / (expected.norm() + 1e-3)
            assert error < 1e-2, name

    def test_fused_attention_has_no_second_derivative_on_the_cpu(self):
        """The reason for the default; when this fails the default can change."""
        with pytest.raises(RuntimeError, match="derivative for aten::_scaled_dot_product"):
            hessian_product(StdlibLM(attention="sdpa"))


class TestResults:
    def test_bits_are_nats_in_another_unit(self, tiny):
        model = tiny.build(0)
        for result in (tiny.evaluate(model), tiny.test(model)):
            assert result["bits_per_byte"] == pytest.approx(result["loss"] / math.log(2))

    def test_loss_is_the_mean_over_bytes(self, tiny):
        model, batch = tiny.build(0), tiny.batch(0, 0)
        logs = model(batch[:, :-1]).log_softmax(-1)
        expected = -logs.gather(-1, batch[:, 1:, None]).mean()
        assert tiny.loss(model, batch).item() == pytest.approx(expected.item(), rel=1e-5)

    def test_learns(self, tiny):
        model = tiny.build(0)
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        for step in range(60):
            optimizer.zero_grad()
            tiny.loss(model, tiny.batch(0, step)).backward()
            optimizer.step()
        assert tiny.evaluate(model)["bits_per_byte"] < 4.2

    def test_target_depends_on_the_size(self):
        assert load("stdlib-lm", size="small").target < load("stdlib-lm").target


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": "large"}, "size must be one of 'tiny', 'small'; got 'large'"),
        ({"attention": "flash"}, "attention must be one of 'math', 'sdpa'; got 'flash'"),
        ({"tied": "yes"}, "tied must be True or False; got 'yes'"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ProblemError, match=f"stdlib-lm: {message}"):
        StdlibLM(**options)
