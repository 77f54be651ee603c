"""Lightning: automatic and manual optimisation, with every kind of method."""

import lightning.pytorch as lightning
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, Subset, TensorDataset

import anyorder
from anyorder.integrations import metrics
from anyorder.integrations.lightning import AnswerMixin

torch.manual_seed(0)
pixels, labels = load_digits(return_X_y=True)
data = TensorDataset(torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(labels))
train, test = Subset(data, range(512)), Subset(data, range(512, 640))


class Classifier(lightning.LightningModule):
    """Automatic optimisation, for methods that only need gradients."""

    def __init__(self, method, **options):
        super().__init__()
        self.method, self.options = method, options
        self.net = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10))

    def training_step(self, batch, batch_idx):
        x, y = batch
        self.log_dict(metrics(self.optimizers()))
        return cross_entropy(self.net(x), y)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_loss", cross_entropy(self.net(x), y))

    def configure_optimizers(self):
        optimizer = anyorder.methods.get(self.method)(self.net, **self.options)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.9)
        return {"optimizer": optimizer, "lr_scheduler": scheduler}


class Averaged(AnswerMixin, Classifier):
    """For methods that evaluate at another point than they train at."""


class Values(Classifier):
    """For methods of values and rankings: Lightning's closures, without backward."""

    def backward(self, loss):
        pass


class Manual(Classifier):
    """Manual optimisation, for methods of any order."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = self.optimizers().step(lambda: cross_entropy(self.net(x), y))
        self.log("train_loss", loss)

    def on_train_epoch_end(self):
        self.lr_schedulers().step()


class Outputs(Manual):
    """For methods that need outputs and loss apart."""

    def training_step(self, batch, batch_idx):
        x, y = batch
        closure = anyorder.Composite(lambda: self.net(x), lambda z: cross_entropy(z, y))
        self.log("train_loss", self.optimizers().step(closure))


def fit(module):
    """Train one module for two passes."""
    trainer = lightning.Trainer(
        max_epochs=2, accelerator="cpu", logger=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, DataLoader(train, batch_size=64), DataLoader(test, batch_size=128))
    print(module.method, f"{trainer.callback_metrics['val_loss']:.2f}")
    return trainer


if __name__ == "__main__":
    fit(Classifier("muon", lr=0.02))
    fit(Averaged("schedule_free_adamw", lr=3e-3))
    fit(Values("mezo", lr=1e-3))
    fit(Manual("adahessian", lr=0.1))
    fit(Outputs("sso"))
