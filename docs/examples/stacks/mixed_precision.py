"""Mixed precision and gradient accumulation, in the loop of PyTorch and with closures."""

import torch
from sklearn.datasets import load_digits
from torch import nn

import anyorder

torch.manual_seed(0)
pixels, labels = load_digits(return_X_y=True)
x, y = torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(labels)
device = "cuda" if torch.cuda.is_available() else "cpu"
x, y = x.to(device), y.to(device)


def network():
    """Return a small classifier."""
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).to(device)


def loss_of(model, rows, dtype):
    """Return the loss of one micro-batch under autocast."""
    with torch.autocast(device, dtype=dtype):
        return nn.functional.cross_entropy(model(x[rows]), y[rows])


# bfloat16: autocast inside the closure. A list of closures accumulates gradients.
model = network()
optimizer = anyorder.AdamW(model, lr=3e-3, clip_norm=1.0)
for _ in range(30):
    parts = torch.randint(len(x), (4, 16))
    loss = optimizer.step([lambda r=rows: loss_of(model, r, torch.bfloat16) for rows in parts])
print(f"bfloat16, closures: loss {loss.item():.2f}, {optimizer.calls.grads} gradients")

# float16: the optimizer scales and unscales; an overflow skips the step and lowers the scale.
model = network()
scaler = torch.amp.GradScaler(device)
optimizer = anyorder.AdamW(model, lr=3e-3, scaler=scaler)
for _ in range(30):
    rows = torch.randint(len(x), (64,))
    loss = optimizer.step(lambda r=rows: loss_of(model, r, torch.float16))
print(f"float16, closures: loss {loss.item():.2f}, {optimizer.calls.skipped} steps skipped")

# float16 in a loop of PyTorch: nothing changes, the scaler takes the step.
model = network()
scaler = torch.amp.GradScaler(device)
optimizer = anyorder.AdamW(model.parameters(), lr=3e-3)
for _ in range(30):
    optimizer.zero_grad()
    for rows in torch.randint(len(x), (4, 16)):
        loss = loss_of(model, rows, torch.float16) / 4
        scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    scaler.step(optimizer)
    scaler.update()
print(f"float16, scaler.step: loss {4 * loss.item():.2f}, {optimizer.calls.grads} gradients")
