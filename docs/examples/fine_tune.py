"""Fine-tune a transformer with forward passes only, and keep the run in a few hundred bytes."""

import torch
from transformers import BertConfig, BertForSequenceClassification

from anyorder import MeZO
from anyorder.seed_log import record, replay


def base():
    """The model before fine-tuning; yours is loaded with from_pretrained."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=8,
    )  # fmt: skip
    return BertForSequenceClassification(config).eval()  # no dropout


model = base()
tokens = torch.randint(50, (64, 8), generator=torch.Generator().manual_seed(1))
labels = (tokens[:, 0] < 25).long()
optimizer = MeZO(model, lr=3e-3, eps=1e-3)
with record(optimizer, "run.seedlog"):
    for step in range(200):
        rows = torch.arange(step * 16, step * 16 + 16) % 64
        loss = optimizer.step(lambda r=rows: model(tokens[r], labels=labels[r]).loss)

again = base()
replay("run.seedlog", again)
assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
