"""skorch: a method of this package in a scikit-learn estimator, with a schedule and a search."""

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, LRScheduler
from skorch.dataset import unpack_data
from torch import nn

import anyorder

torch.manual_seed(0)
pixels, labels = load_digits(return_X_y=True)
x, y = (pixels / 16).astype(np.float32)[:600], labels[:600]


class Network(nn.Module):
    """A small classifier."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))

    def forward(self, x):
        return self.layers(x)


settings = {"criterion": nn.CrossEntropyLoss, "max_epochs": 10, "verbose": 0}
schedule = LRScheduler(torch.optim.lr_scheduler.StepLR, step_size=5)
net = NeuralNetClassifier(
    Network, optimizer=anyorder.AdamW, optimizer__weight_decay=0.01, lr=0.01,
    callbacks=[("schedule", schedule)], **settings,
)  # fmt: skip
search = GridSearchCV(net, {"lr": [1e-3, 1e-2]}, cv=2, scoring="accuracy")
search.fit(x, y)
print(search.best_params_, f"{search.best_score_:.2f}")


class ClosureNet(NeuralNetClassifier):
    """For methods that need more than gradients: the closure of skorch without backward()."""

    def train_step_single(self, batch, **fit_params):
        self._set_training(True)
        inputs, targets = unpack_data(batch)
        predicted = self.infer(inputs, **fit_params)
        loss = self.get_loss(predicted, targets, X=inputs, training=True)
        return {"loss": loss, "y_pred": predicted}


second = ClosureNet(Network, optimizer=anyorder.AdaHessian, lr=0.1, **settings)
second.fit(x, y)
print(second.optimizer_.calls)


class Answer(Callback):
    """For methods that evaluate at another point than they train at."""

    def on_batch_begin(self, net, training=False, **kwargs):
        net.optimizer_.train(training)

    def on_train_end(self, net, **kwargs):
        net.optimizer_.eval()


averaged = NeuralNetClassifier(
    Network, optimizer=anyorder.ScheduleFreeAdamW, lr=0.02, callbacks=[Answer], **settings
)
averaged.fit(x, y)
print(f"{averaged.history[-1, 'valid_loss']:.2f}")
