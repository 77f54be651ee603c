"""A loop with accelerate: gradient accumulation, a schedule, a checkpoint, closures."""

import torch
from accelerate import Accelerator
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import anyorder
from anyorder.integrations import metrics

torch.manual_seed(0)
pixels, labels = load_digits(return_X_y=True)
data = TensorDataset(torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(labels))
model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

accelerator = Accelerator(gradient_accumulation_steps=2)
optimizer = anyorder.ScheduleFreeAdamW(model, lr=3e-3)
scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
model, optimizer, loader, scheduler = accelerator.prepare(
    model, optimizer, DataLoader(data, batch_size=32, shuffle=True), scheduler
)
for x, y in loader:
    with accelerator.accumulate(model):
        loss = nn.functional.cross_entropy(model(x), y)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()

optimizer.eval()  # the parameters hold the point to evaluate and to save
accelerator.save_state("checkpoint")
optimizer.train()
print(metrics(optimizer))

# A method that needs more than gradients takes a closure, as everywhere.
model = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10))
optimizer = anyorder.AdaHessian(model, lr=0.05)
model, optimizer = accelerator.prepare(model, optimizer)
for x, y in loader:
    optimizer.step(lambda x=x, y=y: nn.functional.cross_entropy(model(x), y))
print(metrics(optimizer))
