"""A problem for several processes: each computes the gradient of its part of the batch."""

import torch
import torch.distributed as dist
from torch import nn

from anyorder.problems import Problem, seeded


class Parallel(Problem):
    """Learn a product of eight numbers; the wrapper averages gradients over the processes."""

    def build(self, seed):
        """A model whose gradients are averaged."""
        with seeded(seed):
            model = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 1))
        return nn.parallel.DistributedDataParallel(model)

    def batch(self, seed, step):
        """The part of the batch that belongs to this process."""
        numbers = torch.Generator().manual_seed(100_000 * seed + step)
        whole = torch.randn(64, 8, generator=numbers)
        return whole[dist.get_rank() :: dist.get_world_size()]

    def loss(self, model, batch):
        """The mean squared error."""
        return nn.functional.mse_loss(model(batch), batch.prod(1, keepdim=True))

    def evaluate(self, model):
        """The loss on fixed points, the same in every process."""
        points = torch.linspace(-1, 1, 512).reshape(64, 8)
        with torch.no_grad():
            return {"loss": self.loss(model, points).item()}
