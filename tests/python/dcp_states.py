"""States of test_dcp.py's ranks, and what they do with them: each has its arguments from the command line."""

import collections
import sys
from pathlib import Path

import ckptd
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "harness"))
from same_state import assert_same  # noqa: E402

RANK, WORLD, FOLDER = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])


class Net(nn.Module):
    """1001 rows, 10, 3 and 1: none is a multiple of 4, and some ranks of 4 get nothing."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(1001, 33)
        self.first = nn.Linear(33, 12)
        self.second = nn.Linear(12, 3)
        self.scale = nn.Parameter(torch.ones(1))
        self.register_buffer("seen", torch.tensor(0))

    def forward(self, x):
        self.seen += 1
        return self.second(torch.tanh(self.first(self.embed(x)))) * self.scale


def fsdp(seed=0):
    torch.manual_seed(seed)
    net = Net()
    mesh = init_device_mesh("cpu", (WORLD,))
    fully_shard(net.second, mesh=mesh)
    fully_shard(net, mesh=mesh)
    return net, torch.optim.AdamW(net.parameters(), lr=0.01)


def tensor_parallel(seed=0, data_parallel=1):
    torch.manual_seed(seed)
    net = nn.Sequential(collections.OrderedDict(up=nn.Linear(24, 40), act=nn.Tanh(), down=nn.Linear(40, 24)))
    mesh = init_device_mesh("cpu", (data_parallel, WORLD // data_parallel), mesh_dim_names=("data", "tensor"))
    parallelize_module(net, mesh["tensor"], {"up": ColwiseParallel(), "down": RowwiseParallel()})
    if data_parallel > 1:
        fully_shard(net, mesh=mesh["data"])
    return net, torch.optim.AdamW(net.parameters(), lr=0.01, foreach=False)


def train(net, optimizer, steps=2):
    for _ in range(steps):
        inputs = torch.randint(1001, (8,)) if isinstance(net, Net) else torch.randn(8, 24)
        optimizer.zero_grad()
        net(inputs).square().mean().backward()
        optimizer.step()


def sharded(net, optimizer):
    model, state = get_state_dict(net, optimizer)
    return {"model": model, "optimizer": state}


def whole(net, optimizer):
    """The same, with whole tensors."""
    model, state = get_state_dict(net, optimizer, options=StateDictOptions(full_state_dict=True))
    return {"model": model, "optimizer": state}


def expect(name, state):
    if RANK == 0:
        torch.save(state, FOLDER / f"{name}.pt")


def load_and_compare(reference, name, net, optimizer):
    state = sharded(net, optimizer)
    dcp.load(state, storage_reader=ckptd.dcp.StorageReader(reference))
    set_state_dict(net, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
    assert_same(whole(net, optimizer), torch.load(FOLDER / f"{name}.pt"))


def save(state, reference, planner=None, writer=None, **options):
    writer = writer or ckptd.dcp.StorageWriter(reference)
    dcp.save(state, storage_writer=writer, planner=planner, checkpoint_id=reference, **options)
    return writer


def refused(kind, match, state, reference, **options):
    """All ranks' saves fail with this, and nothing is visible."""
    try:
        save(state, reference, **options)
    except CheckpointException as error:
        assert any(isinstance(e, kind) and match in str(e) for e, _ in error.failures.values()), error
    else:
        raise AssertionError("it was saved")
    dist.barrier()
    run = reference.partition("@")[0]
    assert all(run != found.name for found in ckptd.connect().runs())


def total(number):
    numbers = [None] * WORLD
    dist.all_gather_object(numbers, number)
    return sum(numbers)


class Evil:
    ran = False

    def __reduce__(self):
        Evil.ran = True
        return print, ("evil",)


class Foreign(dcp.SavePlanner):
    """None of torch's: it shows no more than its plan."""

    def set_up_planner(self, state_dict, storage_meta=None, is_coordinator=False):
        self.inner = dcp.DefaultSavePlanner()
        self.inner.set_up_planner(state_dict, storage_meta, is_coordinator)

    def create_local_plan(self):
        return self.inner.create_local_plan()

    def create_global_plan(self, plans):
        return self.inner.create_global_plan(plans)

    def finish_plan(self, plan):
        return self.inner.finish_plan(plan)

    def lookup_object(self, index):
        return self.inner.lookup_object(index)

    def resolve_data(self, item):
        return self.inner.resolve_data(item)


class Blind(Foreign):
    lookup_object = None  # it has no more than bytes of torch.save
