"""Restores into tensors that are there."""

import mmap
import signal
import threading

import ckptd
import numpy as np
import pytest
import torch
from ckptd import _restore_into
from conftest import BIN
from same_state import assert_same
from server import Server
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


class Watched:
    """A restore whose slices are noted."""

    def __init__(self, restore):
        self.restore = restore
        self.reads = []

    def __getattr__(self, name):
        return getattr(self.restore, name)

    def read_slices(self, slices):
        self.reads.append(slices)
        self.restore.read_slices(slices)


@pytest.fixture
def restore_aside(client, monkeypatch):
    """Restores with little memory for what is read aside; returns the restore, and the sizes of all memory for that."""
    made = []

    class Memory(mmap.mmap):
        def __init__(self, _, size, *__):
            made.append(size)

    monkeypatch.setattr(_restore_into, "ASIDE_BYTES", 4_000_000)
    monkeypatch.setattr(_restore_into.mmap, "mmap", Memory)

    def restore(reference, live):
        made.clear()
        watched = Watched(
            client._connection().open_restore(reference, [], [], compare=True)
        )
        _restore_into.restore_into(watched, live, [])
        return watched, made

    return restore


def test_what_is_read_aside_comes_in_waves(client, restore_aside):
    saved = {f"{i}": torch.randn(500, 600) for i in range(10)} | {
        "array": np.random.rand(300, 500),
        "big": torch.randn(1000, 1000),
    }
    saved |= {"view": saved["big"][:, 10:20], "direct": torch.randn(400, 500)}
    client.save("aside", saved, epoch=1)
    live = {
        name: np.zeros(value.shape, order="F")
        if name == "array"
        else torch.zeros(value.T.shape).T
        for name, value in saved.items()
    }
    live["direct"] = torch.zeros(400, 500)
    for round_trip in range(2):
        restore, made = restore_aside("aside@1", live)
        assert len(restore.reads) > 3
        assert len(made) == 1 and made[0] <= 4_000_000, "all waves use one memory"
        for name, value in saved.items():
            assert (live[name] == value).all(), name
        assert (restore.fetched_bytes() == 0) == bool(round_trip), (
            "what is right already is not sent"
        )


def test_what_is_large_is_read_aside_in_parts(client, restore_aside):
    saved = {
        "wide": torch.randn(13, 1 << 18),
        "odd": torch.randn(3, 1000, 1001),
        "column": torch.randn(1, 2_000_001, 1).to(torch.bfloat16),
        "permuted": torch.randn(40, 50, 2000).permute(2, 0, 1),
        "array": np.asfortranarray(np.random.rand(700, 900)),
        "rows": np.random.rand(1100, 600),
    }
    assert all(value.nbytes > 4_000_000 for value in saved.values())
    shared = torch.randn(1100, 1000)
    saved |= {"shared": shared, "again": shared, "tied": shared.detach()}
    client.save("parts", saved, epoch=1)
    live = {
        "wide": torch.zeros(1 << 18, 13).T,
        "odd": nn.Parameter(torch.zeros(1001, 1000, 3).permute(2, 1, 0)),
        "column": torch.zeros(1, 4_000_002, 1, dtype=torch.bfloat16)[:, ::2],
        "permuted": torch.zeros(2000, 40, 50),
        "array": np.zeros((700, 900)),
        "rows": np.zeros((600, 1100)).T,
        "shared": torch.zeros(1000, 1100).T,
        "again": torch.zeros(1000, 2200).T[::2],
        "tied": torch.zeros(1000, 1100).T,
    }
    restore, made = restore_aside("parts@1", live)
    assert len(restore.reads) > 2 * len(saved)
    assert made[0] <= 4_000_000
    for name, value in saved.items():
        assert (live[name] == value).all(), name
    assert live["odd"].is_leaf and live["odd"].grad_fn is None
    restore, _ = restore_aside("parts@1", live)
    # Of parts that do not end where chunks do, the chunks at their edges come again.
    assert restore.fetched_bytes() < 2 * (len(restore.reads) << 20)
    live["wide"][5, 7] = 0
    client.save("wide", {"wide": saved["wide"]}, epoch=1)
    restore, _ = restore_aside("wide@1", {"wide": live["wide"]})
    assert restore.fetched_bytes() == 1 << 20
    assert torch.equal(live["wide"], saved["wide"])


def test_a_tensor_with_views_is_read_aside_whole(client, restore_aside):
    base = torch.randn(1200, 1000)
    saved = {"base": base, "view": base[:, 3:5]}
    client.save("views", saved, epoch=1)
    live = {"base": torch.zeros(1000, 1200).T, "view": torch.zeros(1200, 2)}
    _, made = restore_aside("views@1", live)
    assert made == [4_800_000]
    assert torch.equal(live["base"], base) and torch.equal(live["view"], base[:, 3:5])


def test_an_expanded_tensor_is_restored_into_a_whole_one(client):
    saved = {"a": torch.randn(1000, 1).expand(1000, 500), "b": torch.randn(3, 1, 4000).expand(3, 5, 4000)}
    client.save("expanded", saved, epoch=1)
    live = {"a": torch.zeros(1000, 500), "b": torch.zeros(4000, 5, 3).permute(2, 1, 0)}
    client.restore_into("expanded@1", live)
    assert torch.equal(live["a"], saved["a"]) and torch.equal(live["b"], saved["b"])


def test_a_restore_that_fails_gives_the_stream_back(tmp_path, monkeypatch):
    with Server(BIN / "ckptd", tmp_path / "store", tmp_path / "log", words=["--max-streams", "1"]) as server:
        client = ckptd.Client(server.address)
        client.save("own", {"a": torch.ones(3000), "b": torch.ones(30, 100)}, epoch=1)
        live = {"a": torch.zeros(3000), "b": torch.zeros(100, 30).T}
        with pytest.raises(ckptd.InvalidState, match="nothing was written") as refused:
            client.restore_into("own@1", {"a": torch.zeros(3000)})
        with pytest.raises(ckptd.InvalidState, match="nothing was written"):
            client.restore_into("own@1", {"a": torch.zeros(3)})  # while the exception holds what it was raised from
        assert refused.value.reason == "STATE_DIFFERS"

        def fail(to, source):
            raise RuntimeError("no memory on the device")

        with monkeypatch.context() as patch:
            patch.setattr(_restore_into, "_copy", fail)
            with pytest.raises(RuntimeError, match="no memory") as raised:
                client.restore_into("own@1", live)
        assert raised.value.__notes__ == ["the state is torn: part of it has been restored"]
        client.restore_into("own@1", live)
        assert live["a"].sum() == 3000 and live["b"].sum() == 3000


def test_all_differences_are_listed_and_nothing_is_written(client):
    client.save("differs", {"model": {"a": torch.ones(3), "b": torch.ones(2, 2), "c": torch.ones(1)}, "x": torch.ones(1)}, epoch=1)
    live = {"model": {"a": torch.zeros(4), "b": torch.zeros(2, 2, dtype=torch.float64), "d": torch.zeros(1)}, "x": torch.zeros(1)}
    with pytest.raises(ckptd.InvalidState) as raised:
        client.restore_into("differs@1", live)
    assert raised.value.reason == "STATE_DIFFERS"
    for line in ("model.a: is float32 [4] in the state, and float32 [3] in the checkpoint", "model.b: is float64 [2, 2] in the state",
                 "model.c: is a tensor in the checkpoint only", "model.d: is a tensor in the state only"):  # fmt: skip
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


A, T = torch.randn(200, 200), torch.zeros(200, 200)
WIDE = torch.zeros(200, 300)


@pytest.mark.parametrize(
    ("saved", "live", "why"),
    [
        ({"a": A, "b": A + 1}, {"a": T.T, "b": T}, "shares memory with"),
        ({"a": A, "b": A + 1}, {"a": T.T, "b": T.T}, "shares memory with"),
        ({"a": A, "b": A + 1}, {"a": WIDE[:, :200], "b": WIDE[:, 100:]}, "shares memory with"),
        ({"a": A, "b": A[3:9]}, {"a": T, "b": T[4:10]}, "shares memory with"),
        ({"a": A, "b": A.T}, {"a": T, "b": T}, "shares memory with"),
        ({"a": A[:120], "b": A[80:]}, {"a": T[:120], "b": T[:120]}, "shares memory with"),
        ({"a": A[:3, :4]}, {"a": torch.zeros(6).as_strided((3, 4), (1, 1))}, "whose elements share memory"),
        ({"a": np.zeros((2, 300))}, {"a": np.lib.stride_tricks.as_strided(np.zeros(300), (2, 300), (0, 8))}, "whose elements share memory"),
    ],
)  # fmt: skip
def test_memory_that_would_be_written_twice_is_a_difference(client, saved, live, why):
    client.save("twice", saved, epoch=1)
    with pytest.raises(ckptd.InvalidState, match=why):
        client.restore_into("twice@1", live)
    assert not any(value.any() for value in live.values())


def test_memory_that_is_shared_as_it_was_is_none(client):
    fused = torch.zeros(200, 400)
    for saved, live in (
        ({"a": A, "b": A[3:9], "c": A.T, "d": A[:, 7]}, {"a": (t := T.clone()), "b": t[3:9], "c": t.T, "d": t[:, 7]}),
        ({"a": A, "b": A, "c": A.T}, {"a": (u := T.clone().T), "b": u, "c": u.T}),
        ({"a": A, "b": A + 1}, {"a": fused[:, :200], "b": fused[:, 200:]}),
        ({"a": A, "b": A + 1}, {"a": fused[:, ::2], "b": fused[:, 1::2]}),
        ({"a": A[:0], "b": A}, {"a": T[:0], "b": T.clone()}),
    ):
        client.save("alike", saved, epoch=1)
        client.restore_into("alike:latest", live)
        assert all(torch.equal(live[name], value) for name, value in saved.items())


def test_an_inference_tensor_of_another_layout_is_restored(client):
    client.save("inference", {"a": A}, epoch=1)
    with torch.inference_mode():
        live = {"a": torch.zeros(200, 200).T}
    client.restore_into("inference@1", live)
    assert torch.equal(live["a"], A)
