"""torch.distributed.checkpoint on ckptd: several processes, with gloo on the CPU."""

import collections
import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import ckptd
import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from conftest import BIN
from same_state import assert_same
from server import Ctl, Server

SCRIPT = Path(__file__).with_name("dcp_ranks.py")


class Ranks:
    """Processes that save and load together. They keep what they expect, and how it went, in the folder."""

    def __init__(self, server, folder):
        self.folder = folder
        self.environment = os.environ | {"CKPT_SERVER": server.address, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}

    def run(self, world_size, *scenarios, timeout=120):
        """The exit codes."""
        processes = [
            subprocess.Popen([sys.executable, SCRIPT, str(rank), str(world_size), str(self.folder), *scenarios], env=self.environment)
            for rank in range(world_size)
        ]
        try:
            deadline = time.monotonic() + timeout
            return [process.wait(deadline - time.monotonic()) for process in processes]
        finally:
            for process in processes:
                process.kill()
                process.wait()

    def went_well(self, world_size, scenario):
        for rank in range(world_size):
            outcome = self.folder / f"{scenario}.{world_size}.{rank}.json"
            assert outcome.exists(), f"rank {rank} did not get there"
            assert not json.loads(outcome.read_text()), f"rank {rank}: {json.loads(outcome.read_text())}"

    def expected(self, name):
        return torch.load(self.folder / f"{name}.pt", weights_only=False)


ON_FOUR = [
    "fsdp_saves", "fsdp_loads", "fsdp_and_tensor_parallel_save", "replicated_once", "exact_saves", "random_states",
    "what_is_refused", "odd_ends", "what_a_user_does_wrong", "cached_plans", "saves_in_the_background", "without_pickle",
]  # fmt: skip
ON_TWO = ["fsdp_loads", "tensor_parallel_saves_and_loads", "unsharded_loads", "all_load_one_version"]


@pytest.fixture(scope="module")
def ranks(server, tmp_path_factory):
    return Ranks(server, tmp_path_factory.mktemp("ranks"))


@pytest.fixture(scope="module")
def four(ranks):
    ranks.run(4, *ON_FOUR)
    return ranks


@pytest.fixture(scope="module")
def two(four, server):
    torch.manual_seed(0)
    flat = torch.randn(40)
    state = {
        "model": {"conv": torch.randn(5, 3, 4, 2).to(memory_format=torch.channels_last), "turned": torch.randn(6, 5).t(), "view": flat[3:33].view(5, 6), "steps": flat.view(5, 8)[:, 1:7:2]},
        "optimizer": {"state": {"w": torch.randn(3)}, "groups": [{"lr": 0.1}]},
        "epoch": 3,
        "pair": (flat[:5], "x"),
        "array": np.asfortranarray(np.arange(6).reshape(2, 3)),
    }  # fmt: skip
    state["model"]["tied"] = state["model"]["turned"].detach()
    client = ckptd.connect(server.address)
    client.save("plain", state)
    client.save("list", [torch.ones(3)], epoch=1)
    torch.save(state, four.folder / "plain.pt")
    four.run(2, *ON_TWO)
    return four


@pytest.mark.parametrize("scenario", ON_FOUR)
def test_on_four(four, scenario):
    four.went_well(4, scenario)


@pytest.mark.parametrize("scenario", ON_TWO)
def test_on_two(two, scenario):
    two.went_well(2, scenario)


def test_on_one(four):
    four.run(1, "fsdp_loads")
    four.went_well(1, "fsdp_loads")


def test_one_that_is_killed_leaves_nothing_visible(ranks, client):
    begin = time.monotonic()
    codes = ranks.run(2, "one_is_killed")
    assert codes == [1, -9] and time.monotonic() - begin < 60
    assert "killed" not in [run.name for run in client.runs()]


def test_ranks_wait_for_a_server_that_serves_fewer_at_once(tmp_path):
    with Server(BIN / "ckptd", tmp_path / "store", tmp_path / "ckptd.log", words=["--max-streams", "2"]) as server:
        ranks = Ranks(server, tmp_path)
        assert ranks.run(4, "fsdp_saves", "fsdp_loads") == [0] * 4


def test_a_sharded_checkpoint_is_a_normal_one(four, client, server, tmp_path):
    expected = four.expected("fsdp")
    assert_same(client.restore("fsdp@1"), expected)
    exact = client.restore("fsdp@2")
    assert type(exact["model"]) is collections.OrderedDict, "as get_state_dict has it, of sharded tensors"
    assert_same({**exact, "model": dict(exact["model"])}, expected)
    assert client.checkpoint("fsdp@2").components == ("model", "optimizer")
    chunks = ckptd.dcp.StorageReader("fsdp@1").read_metadata().state_dict_metadata["model.embed.weight"].chunks
    assert [(tuple(chunk.offsets), tuple(chunk.sizes)) for chunk in chunks] == [((row, 0), (min(251, 1001 - row), 33)) for row in range(0, 1001, 251)]
    ctl = Ctl(BIN / "ckptctl", server.address)
    shown = {tensor["path"]: tensor for tensor in ctl("show", "fsdp@1")["tensors"]}
    assert shown["model.embed.weight"]["shape"] == [1001, 33]
    file = tmp_path / "fsdp.pth"
    ctl("restore", "fsdp@1", file)
    assert_same(torch.load(file), expected)


def test_an_exact_state_comes_back_exactly(four, client):
    expected = four.expected("exact")
    for reference in ("exact@1", "exact@2"):
        restored = client.restore(reference)
        assert restored["tied"]["a"] is restored["tied"]["b"] and restored["shards"][0] is restored["shards"][1]
        assert restored["arrays"][0] is restored["arrays"][1]
        assert_same(restored, expected)
    assert_same(client.restore("raw@1"), four.expected("raw"))


def test_the_default_planner_flattens(four, client):
    restored, expected = client.restore("flat@1"), four.expected("exact")
    assert list(restored["numbers"]) == ["0", "10", "-1"] and "empty" not in restored
    assert_same(restored["numbers"]["0"]["exp_avg"], expected["numbers"][0]["exp_avg"])
    assert_same(restored["lists"][3], expected["lists"][3])
    assert type(restored["ordered"]) is dict


def test_what_was_saved_in_the_background_is_the_state_of_the_call(four, client):
    for epoch in range(3):
        restored = client.restore(f"async@{epoch}")
        assert_same({**restored, "model": dict(restored["model"])}, four.expected(f"async{epoch}"))


def test_a_save_is_what_the_writer_said_at_the_call(four, client):
    for epoch in (1, 2):
        assert client.checkpoint(f"reset@{epoch}").metrics == {"loss": epoch}
        assert client.restore(f"reset@{epoch}")["w"][0] == epoch


def test_ranks_that_have_nothing_of_a_tensor_do_not_say_that_it_is_shared(four, client):
    state = client.restore("odd@1")
    assert torch.equal(state["b"], state["a"] + 1)
    assert state["tie"][0] is state["tie"][1]


def test_each_ranks_random_state_has_a_key(four, client):
    assert list(client.restore("rng@1")["rng"]) == [f"rank {rank}" for rank in range(4)]


def test_nothing_stored_is_a_pickle(four, client):
    for reference in ("pickle@1", "pickle@2", "pickle@3", "fsdp@1", "exact@1"):
        nodes = client._connection().open_restore(reference, [], []).nodes()
        assert not [node for node in nodes if node[0] == ckptd._kinds.OPAQUE]
    assert_same(client.restore("pickle@2"), {"w": torch.ones(5), "n": 1, "l": [1, "x"], "t": (1, 2)})
    assert client.restore("pickle@3")["t"] == (1, 2)


def test_without_process_groups(client):
    """One process: the same calls."""
    state = {"w": torch.randn(30, 40), "half": torch.randn(3).half(), "n": {"epoch": 1}, "o": collections.OrderedDict(a=1)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save(state, storage_writer=ckptd.dcp.StorageWriter("single@1"), planner=ckptd.dcp.SavePlanner())
        assert_same(client.restore("single@1"), state)
        loaded = {"w": torch.zeros(40, 30).t(), "half": torch.zeros(3), "n": {"epoch": 0}, "o": {"a": 0}}
        dcp.load(loaded, storage_reader=ckptd.dcp.StorageReader("single:latest"))
    assert torch.equal(loaded["w"], state["w"]) and torch.equal(loaded["half"], state["half"].float())
    assert loaded["n"] == {"epoch": 1} and loaded["o"] == {"a": 1}


def test_a_pickle_is_not_loaded(client):
    client.save("opaque", {"w": torch.ones(3), "path": slice(3)}, epoch=1, opaque="pickle")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        only = {"w": torch.zeros(3)}
        dcp.load(only, storage_reader=ckptd.dcp.StorageReader("opaque@1"))
        assert (only["w"] == 1).all()
        with pytest.raises(BaseException, match="allow_pickle"):
            dcp.load({"path": None}, storage_reader=ckptd.dcp.StorageReader("opaque@1"))


@pytest.mark.parametrize("reference", ["run", "run@", "run@x", "run@1#2", "run:latest"])
def test_a_save_goes_to_a_run_and_an_epoch(reference):
    with pytest.raises(ckptd.InvalidState, match="RUN@EPOCH"):
        ckptd.dcp.StorageWriter(reference)
    assert not ckptd.dcp.StorageWriter.validate_checkpoint_id(reference)
