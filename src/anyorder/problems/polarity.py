"""Sentences of film reviews: word embeddings and a convolution."""

from __future__ import annotations

from torch import Tensor, nn

from anyorder.problems._classification import Classification, Parts, Samples
from anyorder.problems._data import data_files, split
from anyorder.problems._text import labelled, tokens

_BUCKETS, _LENGTH, _WIDTH, _FILTERS = 4_096, 32, 32, 64
_VALIDATION, _TEST = 1_000, 2_000


class Polarity(Classification):
    """Tell whether a sentence of a film review is positive.

    Embeddings of 4,096 hashed words, one convolution over three words, the maximum over the
    sentence and a linear layer: 137,410 parameters. A sentence is its first 32 words. A fixed
    seed splits the 10,662 sentences into 7,662 for training, 1,000 for validation and 2,000 for
    the test.

    Args:
        batch_size: Sentences per training batch.

    Raises:
        ProblemError: If an option has a wrong value, ``ANYORDER_DATA`` is not set, or the file is
            missing or has another form.

    References:
        B. Pang, L. Lee (2005), Seeing stars. ACL 2005 (sentence polarity data, CC BY 4.0);
        Y. Kim (2014), Convolutional neural networks for sentence classification. EMNLP 2014.
    """

    name = "polarity"
    target = 0.68

    def read(self) -> Parts:
        """Return the hashed words."""
        (path,) = data_files(self.name, "movie_sentences", ["polarity.tsv.gz"])
        texts, labels = labelled(path, ("0", "1"), header=True)
        data = Samples(tokens(texts, _BUCKETS, _LENGTH), labels)
        val, test, train = split(len(labels), (_VALIDATION, _TEST), key=self.name)
        return Parts(data.take(train), data.take(val), data.take(test))

    def network(self) -> nn.Module:
        """Return the network with the default initialisation of ``torch.nn``."""
        return _Convolution()


class _Convolution(nn.Module):
    """Map words of shape ``(n, length)`` to scores of shape ``(n, 2)``."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(_BUCKETS, _WIDTH)
        self.convolution = nn.Conv1d(_WIDTH, _FILTERS, 3, padding=1)
        self.head = nn.Linear(_FILTERS, 2)

    def forward(self, words: Tensor) -> Tensor:
        found = self.convolution(self.embedding(words).transpose(1, 2)).relu()
        return self.head(found.amax(dim=2))
