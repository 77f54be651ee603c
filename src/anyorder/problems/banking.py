"""Questions to a bank: a network on hashed words, with 77 classes."""

from __future__ import annotations

from torch import nn

from anyorder.problems._banking import questions
from anyorder.problems._classification import Classification, Parts, Samples
from anyorder.problems._data import split
from anyorder.problems._text import counts

_BUCKETS, _CLASSES = 1_024, 77
_VALIDATION = 1_000


class Banking(Classification):
    """Tell which of 77 intents a question to an online bank has.

    A network with layers 1024-128-77 and ReLU on hashed words (see ``spam``). A fixed seed holds
    out 1,000 of the 10,003 published training questions for validation; the test uses the 3,080
    published test questions.

    Args:
        batch_size: Questions per training batch.

    Raises:
        ProblemError: If an option has a wrong value, ``ANYORDER_DATA`` is not set, or a file is
            missing or has another form.

    References:
        I. Casanueva et al. (2020), Efficient intent detection with dual sentence encoders.
        arXiv:2003.04807 (data: CC BY 4.0).
    """

    name = "banking"
    target = 0.8

    def read(self) -> Parts:
        """Return the counted words."""
        (texts, labels), test = questions(self.name)
        data = Samples(counts(texts, _BUCKETS), labels)
        val, train = split(len(labels), (_VALIDATION,), key=self.name)
        return Parts(data.take(train), data.take(val), Samples(counts(test[0], _BUCKETS), test[1]))

    def network(self) -> nn.Module:
        """Return the network with the default initialisation of ``torch.nn``."""
        return nn.Sequential(nn.Linear(_BUCKETS, 128), nn.ReLU(), nn.Linear(128, _CLASSES))
