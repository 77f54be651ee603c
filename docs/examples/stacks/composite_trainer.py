"""A Trainer for methods that need the outputs of the model and their loss apart."""

from torch.nn.functional import cross_entropy
from transformers import Trainer

from anyorder import Composite
from anyorder.integrations.transformers import ClosureMixin


class CompositeTrainer(ClosureMixin, Trainer):
    """Passes a Composite instead of the loss."""

    def closure(self, model, inputs, num_items_in_batch=None):
        return Composite(
            lambda: model(**inputs)["logits"],
            lambda logits: cross_entropy(logits, inputs["labels"]),
        )
