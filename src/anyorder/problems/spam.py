"""Text messages: logistic regression on hashed words, with few positive samples."""

from __future__ import annotations

from torch import nn

from anyorder.problems._classification import Classification, Parts, Samples
from anyorder.problems._data import data_files, split
from anyorder.problems._text import counts, labelled

_BUCKETS = 1_024
_VALIDATION, _TEST = 800, 1_500


class Spam(Classification):
    """Find the unwanted ones (13 %) among English text messages.

    Logistic regression with 2,050 parameters: words are hashed into 1,024 buckets, counted as
    ``log(1 + count)``, and each message is scaled to length 1. A fixed seed splits the 5,574
    messages into 3,274 for training, 800 for validation and 1,500 for the test.

    Args:
        batch_size: Messages per training batch.

    Raises:
        ProblemError: If an option has a wrong value, ``ANYORDER_DATA`` is not set, or the file is
            missing or has another form.

    References:
        T. A. Almeida, J. M. Gomez Hidalgo, A. Yamakami (2011), Contributions to the study of SMS
        spam filtering. DocEng 2011.
    """

    name = "spam"
    metric = "average_precision"
    target = 0.93

    def read(self) -> Parts:
        """Return the counted words."""
        (path,) = data_files(self.name, "sms_spam", ["SMSSpamCollection.tsv.gz"])
        texts, labels = labelled(path, ("ham", "spam"), header=False)
        data = Samples(counts(texts, _BUCKETS), labels)
        val, test, train = split(len(labels), (_VALIDATION, _TEST), key=self.name)
        return Parts(data.take(train), data.take(val), data.take(test))

    def network(self) -> nn.Module:
        """Return one linear layer with the default initialisation of ``torch.nn``."""
        return nn.Linear(_BUCKETS, 2)
