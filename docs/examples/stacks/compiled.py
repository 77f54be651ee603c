"""A compiled model: the optimizer takes it like any other, and checkpoints fit both forms."""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn

import anyorder

torch.manual_seed(0)
pixels, labels = load_digits(return_X_y=True)
x, y = torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(labels)
plain = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10))
model = torch.compile(plain, backend=sys.argv[1] if len(sys.argv) > 1 else "inductor")

optimizer = anyorder.AdamW(model, lr=3e-3)
for _ in range(30):
    rows = torch.randint(len(x), (64,))
    loss = optimizer.step(lambda r=rows: nn.functional.cross_entropy(model(x[r]), y[r]))
print(f"loss {loss.item():.2f}; {', '.join(optimizer.named_params())}")

resumed = anyorder.AdamW(plain, lr=3e-3)
resumed.load_state_dict(optimizer.state_dict())
