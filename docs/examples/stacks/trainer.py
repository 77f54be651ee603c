"""transformers.Trainer with methods that take gradients, that average, that take values."""

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

import anyorder
from anyorder.integrations import metrics
from anyorder.integrations.transformers import AnswerMixin, ClosureMixin

torch.manual_seed(0)
pixels, labels = load_digits(return_X_y=True)


class Digits(Dataset):
    """Some of the images, as Trainer takes them."""

    def __init__(self, rows):
        self.rows = list(rows)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        row = self.rows[index]
        return {"pixels": torch.tensor(pixels[row]).float() / 16, "labels": int(labels[row])}


class Network(nn.Module):
    """A small classifier that returns its loss, as models of transformers do."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, pixels, labels=None):
        logits = self.layers(pixels)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


train, test = Digits(range(1024)), Digits(range(1024, 1280))
common = {
    "per_device_train_batch_size": 16, "max_steps": 20, "eval_strategy": "steps", "eval_steps": 10,
    "save_steps": 10, "logging_steps": 10, "report_to": [], "disable_tqdm": True,
}  # fmt: skip

# Methods that only need gradients: pass the optimizer. Trainer makes its schedule for it.
model = Network()
trainer = Trainer(
    model, TrainingArguments("output/muon", lr_scheduler_type="cosine", warmup_steps=2, **common),
    train_dataset=train, eval_dataset=test, optimizers=(anyorder.Muon(model, lr=0.05), None),
)  # fmt: skip
trainer.train()
print(metrics(trainer.optimizer))


class AnswerTrainer(AnswerMixin, Trainer):
    """For methods that evaluate at another point than they train at: it saves that one."""


model = Network()
averaged = AnswerTrainer(
    model, TrainingArguments("output/averaged", lr_scheduler_type="constant", **common),
    train_dataset=train, eval_dataset=test,
    optimizers=(anyorder.ScheduleFreeAdamW(model, lr=0.01), None),
)  # fmt: skip
averaged.train()


class ClosureTrainer(ClosureMixin, Trainer):
    """For methods that need values, rankings or curvature."""


model = Network()
values = ClosureTrainer(
    model, TrainingArguments("output/mezo", gradient_accumulation_steps=2, **common),
    train_dataset=train, eval_dataset=test, optimizers=(anyorder.MeZO(model, lr=1e-3), None),
)  # fmt: skip
values.train()
print(metrics(values.optimizer))
