"""Two processes with DistributedDataParallel or FSDP2.

Run it with::

    torchrun --nproc-per-node 2 data_parallel.py ddp
    torchrun --nproc-per-node 2 data_parallel.py fsdp
"""

import sys

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import anyorder

dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
rank, size = dist.get_rank(), dist.get_world_size()
if torch.cuda.is_available():
    torch.cuda.set_device(rank)
    torch.set_default_device("cuda")
sharded, name = sys.argv[1] == "fsdp", sys.argv[2] if len(sys.argv) > 2 else "adamw"

torch.manual_seed(0)  # the same model in each process
pixels, labels = load_digits(return_X_y=True)
x, y = torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(labels)
model = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10))
if sharded:
    mesh = dist.init_device_mesh("cuda" if torch.cuda.is_available() else "cpu", (size,))
    fully_shard(model, mesh=mesh)
else:
    model = DistributedDataParallel(model)

optimizer = anyorder.methods.get(name)(model)
for _ in range(20):
    rows = torch.randint(len(x), (64,))[rank::size]  # a share of one batch for each process
    loss = optimizer.step(lambda r=rows: nn.functional.cross_entropy(model(x[r]), y[r]))

weights = [p.full_tensor() if sharded else p for p in model.parameters()]
if rank == 0:
    total = sum(w.double().abs().sum().item() for w in weights)
    print(f"loss {loss.item():.6f} weights {total:.6f} bytes sent {optimizer.calls.bytes_sent}")
dist.destroy_process_group()
