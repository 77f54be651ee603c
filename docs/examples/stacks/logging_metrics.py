"""The ledger and the learning rates in any logger: one call returns them as numbers by name.

Run it with the name of a logger: tensorboard, mlflow, trackio or wandb.
"""

import sys

import torch
from sklearn.datasets import load_digits
from torch import nn

import anyorder
from anyorder.integrations import metrics


def logger(name):
    """Return a function of numbers by name and a step, and one that ends the run."""
    if name == "tensorboard":
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter("runs")

        def log(numbers, step):
            for key, value in numbers.items():
                writer.add_scalar(key, value, step)

        return log, writer.close
    if name == "mlflow":
        import mlflow

        mlflow.set_tracking_uri("sqlite:///mlflow.db")
        mlflow.start_run()
        return lambda numbers, step: mlflow.log_metrics(numbers, step=step), mlflow.end_run
    if name == "trackio":
        import trackio

        trackio.init(project="digits", name="adahessian")
        return lambda numbers, step: trackio.log(numbers, step=step), trackio.finish
    import wandb

    run = wandb.init(project="digits", mode="offline")
    return lambda numbers, step: run.log(numbers, step=step), run.finish


torch.manual_seed(0)
pixels, labels = load_digits(return_X_y=True)
x, y = torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(labels)
model = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))

optimizer = anyorder.AdaHessian(model, lr=0.1)
log, finish = logger(sys.argv[1])
for step in range(5):
    rows = torch.randint(len(x), (64,))
    loss = optimizer.step(lambda r=rows: nn.functional.cross_entropy(model(x[r]), y[r]))
    log({"loss": loss.item(), **metrics(optimizer)}, step)
finish()
