"""Adaptive batch sizes: a test of the gradient noise enlarges the batches of any ``DataLoader``.

A batch is large enough if its gradient is an accurate descent direction. The controller measures
the variance between the gradients of micro-batches and enlarges the next batches if it is too high.
It never shrinks them. It works with every gradient-based method. Do not scale the step size with
the batch: AdaGrad and Adam already account for the smaller noise.

Example:
    >>> import torch
    >>> from torch.utils.data import DataLoader, TensorDataset
    >>> from anyorder import AdaGrad
    >>> from anyorder.batching import BatchSizeController
    >>> torch.manual_seed(0)
    <torch._C.Generator object at ...>
    >>> x, y = torch.randn(512, 4), torch.randn(512)
    >>> model = torch.nn.Linear(4, 1)
    >>> optimizer = AdaGrad(model, lr=0.1)
    >>> loader = DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True)
    >>> controller = BatchSizeController(loader, test="norm", eta=0.5, largest=256)
    >>> controller.size
    16
    >>> for batches in controller:
    ...     loss = optimizer.step(
    ...         controller.closures(batches, lambda x, y: ((model(x)[:, 0] - y) ** 2).mean())
    ...     )
    >>> controller.size > 16
    True

References:
    Lau, Liu and Kolar (2024), "AdAdaGrad: Adaptive Batch Size Schemes for Adaptive Gradient
    Methods", arXiv 2402.11215; Byrd, Chin, Nocedal and Wu (2012), "Sample size selection in
    optimization methods for machine learning"; Bollapragada, Byrd and Nocedal (2018), "Adaptive
    sampling strategies for stochastic optimization", arXiv 1710.11258.
"""

from anyorder.batching.controller import BatchSizeController
from anyorder.batching.loaders import BatchingError
from anyorder.batching.samples import per_sample_gradients

__all__ = ["BatchSizeController", "BatchingError", "per_sample_gradients"]
