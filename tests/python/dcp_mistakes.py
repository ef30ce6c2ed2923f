"""Scenarios of test_dcp.py's ranks in which something is wrong, or odd."""

import dataclasses
import sys
import threading
import time
from pathlib import Path

import ckptd
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import get_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "harness"))
from dcp_states import RANK, WORLD, Blind, Evil, Net, expect, fsdp, refused, save, train
from same_state import assert_same  # noqa: E402


def what_is_refused():
    net, optimizer = fsdp()
    train(net, optimizer, 1)
    raw = {"optimizer": optimizer.state_dict()}
    refused(ckptd.InvalidState, "get_state_dict", raw, "refused@1")
    refused(ckptd.InvalidState, "evil: a value of type", {"w": torch.ones(3), "evil": Evil()}, "refused@1")
    refused(ckptd.InvalidState, "evil: a value of type", {"w": torch.ones(3), "evil": Evil()}, "refused@1", planner=ckptd.dcp.SavePlanner())
    refused(ckptd.InvalidState, "loss", {"w": torch.ones(3), "loss": 0.5 * RANK}, "refused@1")
    refused(ckptd.InvalidState, "layout", {"w": torch.eye(3).to_sparse()}, "refused@1")
    refused(ckptd.InvalidState, "meta", {"w": torch.ones(3, device="meta")}, "refused@1")
    refused(ckptd.InvalidState, "DTensor", {"w": (distribute_tensor(torch.ones(8), init_device_mesh("cpu", (WORLD,)), [Shard(0)]),)}, "refused@1")
    refused(RuntimeError, "rank 2 failed", {"w": torch.ones(3)}, "refused@1", writer=Failing("refused@1"))
    assert not Evil.ran
    refused(ckptd.InvalidState, "needs pickle", {"w": torch.ones(3), "evil": slice(3)}, "refused@1", planner=Blind())
    try:
        save({"w": torch.ones(3)}, "refused@1", use_collectives=False)
        raise AssertionError("it was saved")
    except ckptd.InvalidState as error:
        assert "use_collectives" in str(error)
    save(raw, "raw@1", ckptd.dcp.SavePlanner())
    expect("raw", torch.utils._pytree.tree_map(lambda x: x.full_tensor() if isinstance(x, DTensor) else x, raw))


class Failing(ckptd.dcp.StorageWriter):
    def write_data(self, plan, planner):
        if RANK == 2:
            raise RuntimeError("rank 2 failed")
        return super().write_data(plan, planner)


class Halves(ckptd.dcp.SavePlanner):
    """Saves floats in half precision."""

    def create_local_plan(self):
        plan = super().create_local_plan()
        for item in plan.items:
            if item.tensor_data is not None:
                item.tensor_data.properties.dtype = torch.bfloat16
        return plan

    def transform_object(self, write_item, object):
        found = super().transform_object(write_item, object)
        return found.to(torch.bfloat16) if isinstance(found, torch.Tensor) else found


class Forgetful(dcp.DefaultLoadPlanner):
    """Loses what the reader tells its ranks."""

    def finish_plan(self, plan):
        return super().finish_plan(dataclasses.replace(plan, storage_data=None))


def odd_ends():
    mesh = init_device_mesh("cpu", (WORLD,))
    # Ranks without rows cannot tell which of two parameters in one flat buffer are one.
    flat = torch.arange(3.0)
    one, other = (distribute_tensor(flat + i, mesh, [Shard(0)]) for i in range(2))
    state = {"a": one, "b": other, "tie": [one.detach(), one.detach()]}
    save(state, "odd@1", ckptd.dcp.SavePlanner())
    # torch gives the reference that the writer has already.
    writer = ckptd.dcp.StorageWriter("odd@2", step=5, metrics={"loss": 1.0})
    dcp.save(state, storage_writer=writer, checkpoint_id="odd@2")
    if RANK == 0:
        assert (writer.checkpoint.step, writer.checkpoint.metrics) == (5, {"loss": 1.0})
    numbers = {"z": torch.tensor([1 + 2j, 3 - 4j]).conj(), "n": torch._neg_view(torch.arange(3.0))}
    save(numbers, "odd@3", ckptd.dcp.SavePlanner())
    assert_same(ckptd.load("odd@3"), {"z": torch.tensor([1 - 2j, 3 + 4j]), "n": -torch.arange(3.0)})
    live = {"z": torch.zeros(2, dtype=torch.complex64).conj(), "n": torch._neg_view(torch.zeros(3))}
    dcp.load(live, storage_reader=ckptd.dcp.StorageReader("odd@3"))
    assert torch.equal(live["z"], torch.tensor([1 - 2j, 3 + 4j])) and torch.equal(live["n"], -torch.arange(3.0))
    save({"e": torch.arange(6.0).view(2, 3)}, "odd@4", ckptd.dcp.SavePlanner())
    try:
        dcp.load({"e": torch.zeros(1, 3).expand(2, 3)}, storage_reader=ckptd.dcp.StorageReader("odd@4"))
        raise AssertionError("it was loaded")
    except CheckpointException as error:
        assert "more than one element" in str(error.failures[RANK][0])
    try:
        dcp.load({"e": torch.zeros(2, 3)}, storage_reader=ckptd.dcp.StorageReader("odd@4"), planner=Forgetful())
        raise AssertionError("it was loaded")
    except CheckpointException as error:
        assert error.failures[RANK][0].reason == "NO_TICKET"
    torch.set_default_device("meta")
    try:
        live = {"e": torch.zeros(2, 3, dtype=torch.float64, device="cpu")}  # another dtype: through a temporary
        dcp.load(live, storage_reader=ckptd.dcp.StorageReader("odd@4"))
        assert live["e"].sum() == 15
        assert ckptd.dcp.StorageWriter("odd@5").stage({"e": live["e"]})["e"].sum() == 15
    finally:
        torch.set_default_device("cpu")
    target = torch.zeros(2, 3)
    before = target._version
    dcp.load({"e": target}, storage_reader=ckptd.dcp.StorageReader("odd@4"))
    assert target._version > before, "who had saved it for backward is told"
    for epoch in range(3):  # a writer for each, which knows of no plan before
        save({"w": torch.full((3,), epoch + 0.5)}, f"halves@{epoch}", Halves(enable_plan_caching=True))
        assert_same(ckptd.load(f"halves@{epoch}"), {"w": torch.full((3,), epoch + 0.5, dtype=torch.bfloat16)})


class Late(ckptd.dcp.StorageWriter):
    """Takes long to commit."""

    def finish(self, metadata, results):
        time.sleep(1)
        super().finish(metadata, results)


def what_a_user_does_wrong():
    groups = [dist.new_group(backend="gloo") for _ in range(2)]
    writer, w, futures = Late("late@0"), torch.zeros(3), []
    for epoch in range(2):  # does not wait for the first one
        w.fill_(epoch)
        writer.reset(f"late@{epoch}")
        futures.append(dcp.async_save({"w": w}, storage_writer=writer, process_group=groups[epoch]))
    for future in futures:
        future.result()
    dist.barrier()
    for epoch in range(2):
        assert ckptd.load(f"late@{epoch}")["w"][0] == epoch

    mesh = init_device_mesh("cpu", (WORLD,))
    state = {"w": distribute_tensor(torch.zeros(10, 4), mesh, [Shard(0)])}
    if RANK == 0:
        ckptd.save({"w": torch.ones(10, 4)}, "whole@1")
    dist.barrier()
    client = ckptd.connect()
    for wrong in (lambda: client.restore_into("whole@1", state), lambda: ckptd.save(state, "wrong@1")):
        try:
            wrong()
            raise AssertionError("a DTensor was taken for a tensor")
        except ckptd.InvalidState as error:
            assert "ckptd.dcp" in str(error)

    # Nor for one in the background before it saves by itself; and whoever resets may be another thread.
    writer.reset("mixed@1", metrics={"epoch": 1.0})
    thread = threading.Thread(target=lambda: futures.append(dcp.async_save({"w": w + 1}, storage_writer=writer, process_group=groups[0])))
    thread.start()
    thread.join()
    writer.reset("mixed@2", metrics={"epoch": 2.0})
    dcp.save({"w": w + 2}, storage_writer=writer)
    futures[-1].result()
    dist.barrier()
    for epoch in (1, 2):
        found = ckptd.connect().checkpoint(f"mixed@{epoch}")
        assert found.metrics["epoch"] == epoch and ckptd.load(found.reference)["w"][0] == w[0] + epoch

    # A stager of torch's own tells the writer nothing.
    stager = dcp.staging.DefaultStager(dcp.staging.StagingOptions(False, False, False, False))
    try:
        dcp.async_save({"w": w}, storage_writer=writer, process_group=groups[0], async_stager=stager).result()
        raise AssertionError("it was saved")
    except CheckpointException as error:
        assert error.failures[RANK][0].reason == "NOT_STAGED"
    dist.barrier()

    # What fails before it begins says nothing of the next save.
    writer = ckptd.dcp.StorageWriter("stale@1", metrics={"loss": 1.0})
    circle = {}
    circle["circle"] = circle
    start = time.monotonic()
    for wrong in (
        lambda: dcp.async_save(circle, storage_writer=writer, process_group=groups[0]),
        lambda: dcp.async_save({1: 1, "1": 1}, storage_writer=writer, process_group=groups[0]).result(),
        lambda: dcp.async_save({"w": w}, storage_writer=writer, checkpoint_id="bad", process_group=groups[0]).result(),
    ):
        try:
            wrong()
            raise AssertionError("it was saved")
        except (ckptd.InvalidState, CheckpointException, ValueError):
            pass
        dist.barrier()
    dcp.save({"w": w}, storage_writer=writer, checkpoint_id="stale@2")
    dcp.async_save({"w": w}, storage_writer=writer, checkpoint_id="stale@3", process_group=groups[0]).result()
    dcp.save({"w": w}, storage_writer=writer)
    assert time.monotonic() - start < 30
    dist.barrier()
    assert [(c.epoch, c.version, dict(c.metrics)) for c in ckptd.connect().checkpoints("stale")] == [(2, 1, {}), (3, 1, {}), (3, 2, {})]

    net, optimizer = fsdp()
    train(net, optimizer)
    if RANK == 0:
        torch.manual_seed(0)
        plain = Net()
        client.save("plain", ckptd.torch.capture(model=plain, optimizer=torch.optim.AdamW(plain.parameters())), epoch=1)
    dist.barrier()
    for load in (client.load_into, client.explain):
        try:
            load("plain@1", model=net, optimizer=optimizer)
            raise AssertionError("shards were taken for whole tensors")
        except ckptd.InvalidState as error:
            assert "ckptd.dcp" in str(error)

    save({"o": optimizer.state_dict()}, "moments@1", ckptd.dcp.SavePlanner())
    for planner in (None, ckptd.dcp.LoadPlanner()):
        try:
            dcp.load({"o": fsdp()[1].state_dict()}, storage_reader=ckptd.dcp.StorageReader("moments@1"), planner=planner)
            raise AssertionError("the moments were lost")
        except CheckpointException as error:
            assert error.failures[RANK][0].reason == "OPTIMIZER_WITHOUT_STATE", error

    only_groups = {"o": {"param_groups": optimizer.state_dict()["param_groups"]}}
    planner = ckptd.dcp.LoadPlanner(allow_partial_load=True)
    dcp.load(only_groups, storage_reader=ckptd.dcp.StorageReader("moments@1"), planner=planner)

    # A rank that has no rows has no moments, and loads all the same.
    def few_rows():
        few = torch.nn.Linear(8, 3, bias=False)
        fully_shard(few, mesh=mesh)
        sgd = torch.optim.SGD(few.parameters(), lr=0.1, momentum=0.9)
        few(torch.ones(2, 8)).sum().backward()
        sgd.step()
        model, state = get_state_dict(few, sgd)
        return {"model": model, "alias": {"w": model["weight"].detach()}, "optimizer": state}

    save(few_rows(), "few@1", ckptd.dcp.SavePlanner())
    dcp.load(few_rows(), storage_reader=ckptd.dcp.StorageReader("few@1"))

    keys = {"per_class": {0: 0.5, True: 1, "x": [{2: "two"}]}, "w": {3: torch.ones(2)}}
    save(keys, "keys@1", ckptd.dcp.SavePlanner())
    into = {"per_class": {0: 0.0, True: 0, "x": [{2: ""}]}, "w": {3: torch.zeros(2)}}
    dcp.load(into, storage_reader=ckptd.dcp.StorageReader("keys@1"), planner=ckptd.dcp.LoadPlanner())
    assert_same(into, keys)
