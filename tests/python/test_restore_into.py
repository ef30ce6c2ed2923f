"""Restores into tensors that are there."""

import ckptd
import numpy as np
import pytest
import torch
from ckptd import _restore_into
from ckptd._decode import StoredTensor
from same_state import assert_same
from torch import nn


def net(seed):
    torch.manual_seed(seed)
    made = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 5000))
    made[0].to(memory_format=torch.channels_last)
    return made


def test_a_models_tensors_stay_where_they_are(client):
    saved, live = net(1), net(2)
    client.save("into", {"model": saved.state_dict(), "note": "saved"}, epoch=1)
    before = {name: tensor.data_ptr() for name, tensor in live.state_dict().items()}
    state = {"model": live.state_dict(), "note": "mine"}
    assert client.restore_into("into:latest", state).epoch == 1
    assert state["note"] == "mine"
    assert_same(live.state_dict(), saved.state_dict())
    assert before == {name: tensor.data_ptr() for name, tensor in live.state_dict().items()}


def test_layouts_that_differ_are_copied(client):
    image = torch.randn(2, 3, 40, 50)
    flat = torch.randn(3000)
    tied = torch.randn(2000)
    state = {"image": image.to(memory_format=torch.channels_last), "a": flat[:1000], "b": flat[500:], "t": [tied, tied],
             "array": np.asfortranarray(np.arange(6000.0).reshape(2, 3000)), "big": np.arange(3000, dtype=">i4")}  # fmt: skip
    client.save("layouts", state, epoch=1)
    live = {"image": torch.zeros(2, 3, 40, 50), "a": torch.zeros(2000)[::2], "b": torch.zeros(2500), "t": [torch.zeros(2000), torch.zeros(2000)],
            "array": np.zeros((2, 3000)), "big": np.zeros(6000, dtype=">i4")[::2]}  # fmt: skip
    client.restore_into("layouts@1", live)
    for name in ("image", "a", "b"):
        assert torch.equal(live[name], state[name]), name
    assert torch.equal(live["t"][0], tied) and torch.equal(live["t"][1], tied)
    assert (live["array"] == state["array"]).all() and (live["big"] == state["big"]).all()


def test_what_is_read_aside_takes_little_memory(client, monkeypatch):
    saved = {f"{i}": torch.randn(500, 600) for i in range(10)} | {"array": np.random.rand(300, 500), "big": torch.randn(1000, 1000)}
    saved |= {"view": saved["big"][:, 10:20], "direct": torch.randn(400, 500)}
    client.save("aside", saved, epoch=1)
    live = {name: np.zeros(value.shape, order="F") if name == "array" else torch.zeros(value.T.shape).T for name, value in saved.items()}
    live["direct"] = torch.zeros(400, 500)
    limit = 4_000_000
    monkeypatch.setattr(_restore_into, "ASIDE_BYTES", limit)
    sizes = []

    class Watched:
        def __init__(self, restore):
            self.restore = restore

        def __getattr__(self, name):
            return getattr(self.restore, name)

        def read_into(self, addresses):
            sizes.append(sum(size for size, address in zip(stored, addresses, strict=True) if address))
            self.restore.read_into(addresses)

    for round_trip in range(2):
        restore = client._connection().open_restore("aside@1", [], [], compare=True, keep_stream=True)
        stored = [StoredTensor(*fields).size_bytes for fields in restore.tensors()]
        sizes.clear()
        _restore_into.restore_into(Watched(restore), live, [])
        assert len(sizes) > 4 and all(size <= limit for size in sizes), sizes
        for name, value in saved.items():
            assert (live[name] == value).all(), name
        assert (restore.fetched_bytes() == 0) == bool(round_trip), "what is right already is not sent"


def test_all_differences_are_listed_and_nothing_is_written(client):
    client.save("differs", {"model": {"a": torch.ones(3), "b": torch.ones(2, 2), "c": torch.ones(1)}, "x": torch.ones(1)}, epoch=1)
    live = {"model": {"a": torch.zeros(4), "b": torch.zeros(2, 2, dtype=torch.float64), "d": torch.zeros(1)}, "x": torch.zeros(1)}
    with pytest.raises(ckptd.InvalidState) as raised:
        client.restore_into("differs@1", live)
    assert raised.value.reason == "STATE_DIFFERS"
    for line in ("model.a: is float32 [4] in the state, and float32 [3] in the checkpoint", "model.b: is float64 [2, 2] in the state",
                 "model.c: is in the checkpoint only", "model.d: is in the state only"):  # fmt: skip
        assert line in str(raised.value)
    assert not live["x"].any()
    client.restore_into("differs@1", live, components=["x"])
    assert live["x"] == 1


def test_autograd_is_told(client):
    client.save("autograd", {"w": torch.ones(2000)}, epoch=1)
    w = torch.zeros(2000, requires_grad=True)
    loss = (w * w).sum()
    client.restore_into("autograd@1", {"w": w})
    assert w.requires_grad and w.is_leaf
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_failure_in_the_middle_says_that_the_state_is_torn(tmp_path):
    import signal
    import threading

    from conftest import BIN
    from server import Server

    with Server(BIN / "ckptd", tmp_path / "store", tmp_path / "ckptd.log") as server:
        client = ckptd.Client(server.address, retry_s=0.2)
        client.save("torn", {"w": torch.ones(100_000_000)}, epoch=1)
        live = {"w": torch.zeros(100_000_000)}

        def stop_when_it_has_begun():
            while not live["w"][0]:
                pass
            server.process.send_signal(signal.SIGKILL)

        killer = threading.Thread(target=stop_when_it_has_begun)
        killer.start()
        with pytest.raises(ckptd.Unavailable, match="the state is torn"):
            client.restore_into("torn@1", live)
        killer.join()
        server.process.wait()


def test_memory_that_is_shared_only_here_is_a_difference(client):
    client.save("apart", {"w": torch.arange(10.0), "v": torch.arange(5.0), "n": np.arange(4)}, epoch=1)
    z = torch.zeros(10)
    for v in (z[2:7], z[:5], z[5:]):
        with pytest.raises(ckptd.InvalidState, match="shares memory with"):
            client.restore_into("apart@1", {"w": z, "v": v, "n": np.zeros(4, int)})
    assert not z.any()
    client.save("together", {"w": z, "v": z[2:7]}, epoch=1)
    live = torch.ones(10)
    client.restore_into("together@1", {"w": live, "v": live[2:7]})
    assert not live.any()
