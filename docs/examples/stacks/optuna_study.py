"""Tune a method in a study of your own, within a fixed budget for each trial."""

import optuna
import torch
from sklearn.datasets import load_digits
from torch import nn

import anyorder

pixels, labels = load_digits(return_X_y=True)
x, y = torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(labels)


def suggested(trial, method):
    """Suggest each setting from the search space that the method declares for it."""
    return {
        name: trial.suggest_float(name, hyper.low, hyper.high, log=hyper.search == "log")
        for name, hyper in method.hypers.items()
        if hyper.search in ("log", "linear") and isinstance(hyper.default, float)
    }


def objective(trial):
    """Return the validation loss after 100 gradients."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))
    method = anyorder.methods.get(trial.suggest_categorical("method", ["adamw", "lion"]))
    optimizer = method(model, budget="100grads", **suggested(trial, method))
    try:
        while True:
            rows = torch.randint(1200, (64,))
            optimizer.step(lambda r=rows: nn.functional.cross_entropy(model(x[r]), y[r]))
            if optimizer.steps % 20 == 0:
                trial.report(validation(optimizer, model), optimizer.steps)
                if trial.should_prune():
                    raise optuna.TrialPruned
    except anyorder.BudgetExhausted:
        return validation(optimizer, model)
    finally:
        trial.set_user_attr("calls", optimizer.calls.to_dict())


@torch.no_grad()
def validation(optimizer, model):
    """Return the loss on images that are not used for training, at the point to evaluate."""
    with optimizer.answer():
        return nn.functional.cross_entropy(model(x[1200:]), y[1200:]).item()


optuna.logging.set_verbosity(optuna.logging.WARNING)
study = optuna.create_study(
    sampler=optuna.samplers.TPESampler(seed=0), pruner=optuna.pruners.MedianPruner()
)
study.optimize(objective, n_trials=8)
print(study.best_params, f"{study.best_value:.2f}", study.best_trial.user_attrs["calls"])
