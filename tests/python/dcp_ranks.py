"""A rank of test_dcp.py: runs scenarios, one after the other, and notes in the folder how each went.

dcp_ranks.py RANK WORLD_SIZE FOLDER SCENARIO…
"""

import collections
import datetime
import json
import os
import pickle
import signal
import sys
import threading
import traceback
import warnings
from pathlib import Path

import ckptd
import numpy as np
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "harness"))
import dcp_mistakes
from dcp_states import (
    FOLDER, RANK, WORLD, Evil, Foreign, expect, fsdp, load_and_compare, save, sharded, tensor_parallel, total, train, whole,
)
from same_state import assert_same  # noqa: E402

# ---- Saved on 4


def fsdp_saves():
    net, optimizer = fsdp()
    train(net, optimizer)
    expect("fsdp", whole(net, optimizer))
    writer = ckptd.dcp.StorageWriter("fsdp@1", step=7, metrics={"val_acc": 0.5 + RANK}, labels={"git": "1f3c2a"})
    dcp.save(sharded(net, optimizer), storage_writer=writer)
    if RANK == 0:
        assert writer.checkpoint.reference == "fsdp@1#1" and writer.checkpoint.step == 7
        assert writer.checkpoint.metrics == {"val_acc": 0.5}
    save(sharded(net, optimizer), "fsdp@2", ckptd.dcp.SavePlanner(), writer)
    if RANK == 0:
        assert (writer.checkpoint.epoch, writer.checkpoint.step, writer.checkpoint.metrics) == (2, None, {})


def fsdp_loads():
    load_and_compare("fsdp@1", "fsdp", *fsdp(seed=1))
    load_and_compare("fsdp@2", "fsdp", *fsdp(seed=1))


def fsdp_and_tensor_parallel_save():
    net, optimizer = tensor_parallel(data_parallel=2)
    train(net, optimizer)
    assert any("_StridedShard" in str(p.placements) for p in net.parameters())
    expect("2d", whole(net, optimizer))
    save(sharded(net, optimizer), "2d@1")
    load_and_compare("2d@1", "2d", *tensor_parallel(seed=1, data_parallel=2))


def replicated_once():
    torch.manual_seed(0)
    mesh = init_device_mesh("cpu", (WORLD,))
    pair = init_device_mesh("cpu", (2, WORLD // 2))
    plain, matrix = torch.randn(100_000), torch.randn(400, 1000)
    state = {
        "plain": plain,
        "tied": plain.detach(),
        "replicated": distribute_tensor(matrix, mesh, [Replicate()]),
        "halves": distribute_tensor(matrix + 1, pair, [Replicate(), Shard(0)]),
        "array": np.arange(3000),
        "pair": (torch.zeros(5000), "within a tuple"),
    }
    expected = 400_000 + 2 * 1_600_000 + 24_000 + 20_000
    for epoch, planner in enumerate((None, ckptd.dcp.SavePlanner(), ckptd.dcp.SavePlanner(dedup_save_to_lowest_rank=True))):
        state["plain"] += 1  # so that the server has nothing of it
        state["replicated"] += 1
        state["halves"] += 1
        state["array"] += 1
        state["pair"][0].add_(1)
        writer = save(state, f"once@{epoch}", planner)
        sent = total(writer.sent_bytes + writer.cited_bytes)
        assert sent == expected, sent


def exact_state():
    mesh = init_device_mesh("cpu", (WORLD,))
    weight = torch.arange(35.0).reshape(7, 5)
    tied = nn.Parameter(torch.arange(9.0))
    state = {
        "numbers": {0: {"exp_avg": distribute_tensor(weight, mesh, [Shard(0)])}, 10: torch.ones(3), -1: None},
        "ordered": collections.OrderedDict(b=1, a=2),
        "empty": {},
        "lists": [[], (), [torch.zeros(2), 0.5, {}], (1, "x", (torch.full((3,), 7.0), None))],
        "tied": {"a": tied, "b": tied},
        "shards": [distribute_tensor(weight, mesh, [Shard(1)])] * 2,
        "big": -(1 << 100),
        "nan": float("nan"),
        "set": {"x", "y", "zz"},
        "array": np.arange(6.0).reshape(2, 3),
        "arrays": [np.arange(3)] * 2,
        "dtype": torch.bfloat16,
        "scalar": torch.tensor(3, dtype=torch.int16),
        "none": torch.zeros(0, 3),
    }
    state["ordered"]._metadata = {"version": 2, "tensor": torch.ones(2)}
    return state


def exact_saves():
    state = exact_state()
    save(state, "exact@1", ckptd.dcp.SavePlanner())
    save(state, "flat@1")
    plain = torch.utils._pytree.tree_map(lambda x: x.full_tensor() if isinstance(x, DTensor) else x, state)
    plain["ordered"]._metadata = state["ordered"]._metadata
    plain["shards"] = [plain["shards"][0]] * 2
    expect("exact", plain)


def random_states():
    torch.manual_seed(RANK)
    state = {"rng": {f"rank {RANK}": {"torch": torch.get_rng_state(), "seed": RANK}}}
    save(state, "rng@1", ckptd.dcp.SavePlanner())
    expected = torch.rand(3)
    mine = {"rng": {f"rank {RANK}": {"torch": torch.empty_like(torch.get_rng_state()), "seed": None}}}
    dcp.load(mine, storage_reader=ckptd.dcp.StorageReader("rng@1"))
    torch.set_rng_state(mine["rng"][f"rank {RANK}"]["torch"])
    assert torch.equal(torch.rand(3), expected) and mine["rng"][f"rank {RANK}"]["seed"] == RANK


def cached_plans():
    state = {"w": torch.ones(5), "d": distribute_tensor(torch.ones(9), init_device_mesh("cpu", (WORLD,)), [Shard(0)]), "n": 1}
    for cls, works in ((dcp.DefaultSavePlanner, False), (ckptd.dcp.SavePlanner, True)):
        run = cls.__name__
        save(state, f"{run}@1", cls(enable_plan_caching=True))
        state["w"] += 1
        if works:
            save(state, f"{run}@2", cls(enable_plan_caching=True))
            continue
        try:
            save(state, f"{run}@2", cls(enable_plan_caching=True))
            raise AssertionError("it was saved")
        except CheckpointException as error:
            assert all(isinstance(e, ckptd.InvalidState) and "caching" in str(e) for e, _ in error.failures.values()), error
            assert len(error.failures) == WORLD
    assert torch.equal(ckptd.load("SavePlanner@2")["w"], state["w"])
    assert [c.epoch for c in ckptd.connect().checkpoints("DefaultSavePlanner")] == [1]


class Slow(ckptd.dcp.StorageWriter):
    """Sends when it is told to."""

    go = threading.Event()

    def write_data(self, plan, planner):
        assert self.go.wait(30)
        return super().write_data(plan, planner)


def saves_in_the_background():
    net, optimizer = fsdp()
    group = dist.new_group(backend="gloo")  # of its own: the training goes on in the default one
    writer = Slow("async@0")
    assert isinstance(writer, dcp.staging.AsyncStager)
    places = set()
    for epoch in range(3):
        train(net, optimizer, 1)
        expect(f"async{epoch}", whole(net, optimizer) | {"epoch": epoch})
        state = sharded(net, optimizer) | {"epoch": epoch}
        Slow.go.clear()
        future = dcp.async_save(
            state, storage_writer=writer, checkpoint_id=f"async@{epoch}", planner=ckptd.dcp.SavePlanner(), process_group=group
        )
        train(net, optimizer, 2)
        assert not future.done()
        Slow.go.set()
        train(net, optimizer, 1)
        future.result()
        (copies,) = writer._stager._spare
        places.add(frozenset(m.ctypes.data for memory in copies._free.values() for m in memory))
    assert len(places) == 1, "the memory of the copies is used again"
    writer.reset("reset@1", metrics={"loss": 1.0})
    Slow.go.clear()
    future = dcp.async_save({"w": torch.full((3,), 1.0)}, storage_writer=writer, process_group=group)
    writer.reset("reset@2", metrics={"loss": 2.0})  # while the first is on its way, or has not begun
    Slow.go.set()
    future.result()
    dcp.async_save({"w": torch.full((3,), 2.0)}, storage_writer=writer, process_group=group).result()
    state = exact_state()
    future = dcp.async_save(
        state, storage_writer=writer, checkpoint_id="exact@2", planner=ckptd.dcp.SavePlanner(), process_group=group
    )
    state["numbers"][10].zero_()
    state["ordered"]._metadata["version"] = 3
    state["lists"][2].append(5)
    state["array"][0] = 0
    future.result()
    future = dcp.async_save({"evil": Evil()}, storage_writer=writer, checkpoint_id="evil@1", process_group=group)
    assert "evil: a value of type" in str(future.exception()) and not Evil.ran
    circle = {}
    circle["circle"] = circle
    try:
        dcp.async_save(circle, storage_writer=writer, checkpoint_id="evil@1", process_group=group)
        raise AssertionError("it was copied")
    except ckptd.InvalidState as error:
        assert "contains itself" in str(error)
    again = pickle.loads(pickle.dumps(writer))
    assert again.checkpoint_id == "evil@1" and again._stager is not writer._stager


def without_pickle():
    """Neither a save nor what is stored has one."""
    state = {"w": torch.ones(5), "n": 1, "l": [1, "x"], "t": (1, 2)}
    kept, torch.save = torch.save, None
    try:
        save(state, "pickle@1")
        save(state, "pickle@2", ckptd.dcp.SavePlanner())
        save(state, "pickle@3", Foreign())
    finally:
        torch.save = kept


# ---- On fewer


def tensor_parallel_saves_and_loads():
    net, optimizer = tensor_parallel()
    train(net, optimizer)
    expect("tp", whole(net, optimizer))
    save(sharded(net, optimizer), "tp@1")
    load_and_compare("tp@1", "tp", *tensor_parallel(seed=1))
    load_and_compare("2d@1", "2d", *tensor_parallel(seed=1))


def unsharded_loads():
    """What one process saved with ckptd.save: with other strides, views and ties."""
    expected = torch.load(FOLDER / "plain.pt", weights_only=False)
    mesh = init_device_mesh("cpu", (WORLD,))
    empty = {key: torch.zeros_like(value) for key, value in expected["model"].items()}
    state = {
        "model": {key: distribute_tensor(value, mesh, [Shard(0)]) for key, value in empty.items()},
        "optimizer": {"state": {"w": torch.zeros(3, dtype=torch.float64)}, "groups": [{"lr": None}]},
        "epoch": None,
        "pair": None,
        "array": None,
    }
    dcp.load(state, storage_reader=ckptd.dcp.StorageReader("plain:latest"))
    for key, value in state["model"].items():
        assert torch.equal(value.full_tensor(), expected["model"][key]), key
    assert torch.equal(state["optimizer"]["state"]["w"], expected["optimizer"]["state"]["w"].double())
    assert_same(state["pair"], expected["pair"])
    assert_same(state["array"], expected["array"])
    assert state["epoch"] == 3 and state["optimizer"]["groups"] == [{"lr": 0.1}]
    for reference, kind in (("plain@99", ckptd.NotFound), ("list@1", ckptd.InvalidState)):
        try:
            dcp.load(state, storage_reader=ckptd.dcp.StorageReader(reference))
            raise AssertionError("it was loaded")
        except CheckpointException as error:
            assert all(isinstance(e, kind) for e, _ in error.failures.values()), error


class Moving(ckptd.dcp.StorageReader):
    """Between rank 0's look and the others' there is another checkpoint."""

    def read_metadata(self, *args, **kwargs):
        if RANK:
            dist.barrier()
        found = super().read_metadata(*args, **kwargs)
        if not RANK:
            ckptd.save({"w": torch.ones(4) * 2, "n": 2}, "moving@2")
            dist.barrier()
        return found


def all_load_one_version():
    if RANK == 0:
        ckptd.save({"w": torch.ones(4), "n": 1}, "moving@1")
    dist.barrier()
    state = {"w": torch.zeros(4), "n": 0}
    dcp.load(state, storage_reader=Moving("moving:latest"))
    assert (state["w"] == 1).all() and state["n"] == 1, state


class Killed(ckptd.dcp.StorageWriter):
    def write_data(self, plan, planner):
        if RANK == WORLD - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().write_data(plan, planner)


def one_is_killed():
    net, optimizer = fsdp()
    save(sharded(net, optimizer), "killed@1", writer=Killed("killed@1"))


def main():
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    # Gloo meets in a file and talks over the loopback.
    meeting = FOLDER / f"meeting of {sys.argv[4]}"
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=RANK, world_size=WORLD, timeout=datetime.timedelta(seconds=30))
    failed = False
    for name in sys.argv[4:]:
        outcome = ""
        try:
            (globals().get(name) or getattr(dcp_mistakes, name))()
            dist.barrier()
        except BaseException:
            outcome, failed = traceback.format_exc(), True
        (FOLDER / f"{name}.{WORLD}.{RANK}.json").write_text(json.dumps(outcome))
        if failed:
            break
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(failed)  # FSDP2 on gloo may abort when the interpreter ends


if __name__ == "__main__":
    main()
