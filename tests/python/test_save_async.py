"""Saves in the background."""

import signal
import subprocess
import sys
import threading
import time

import ckptd
import numpy as np
import pytest
import torch
from conftest import BIN
from same_state import assert_same
from server import Server
from torch import nn


@pytest.fixture
def paused(tmp_path):
    """A server that answers nothing until it is told to go on, and a client of it."""
    with Server(BIN / "ckptd", tmp_path / "store", tmp_path / "ckptd.log") as server:
        client = ckptd.Client(server.address, retry_s=20)
        client.runs()
        server.process.send_signal(signal.SIGSTOP)
        yield server, client
        server.process.send_signal(signal.SIGCONT)
        assert server.stop() == 0


def go_on(server):
    server.process.send_signal(signal.SIGCONT)


def test_what_is_saved_is_the_state_of_the_moment_of_the_call(client):
    """A training loop: the optimizer goes on while each epoch's state is being sent."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1000, 1000), nn.BatchNorm1d(1000), nn.Linear(1000, 10))
    optimizer = torch.optim.AdamW(model.parameters())
    expected, handles = {}, []
    for epoch in range(5):
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.randn(8, 1000)).square().mean().backward()
            optimizer.step()
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch, "array": np.full(3000, epoch)}
        expected[epoch] = torch.utils._pytree.tree_map(lambda x: x.clone() if isinstance(x, torch.Tensor) else x, state)
        handles.append(client.save_async("loop", state))
    assert [handle.result(60).epoch for handle in handles] == list(range(5))
    for epoch, state in expected.items():
        restored = client.restore(f"loop@{epoch}")
        assert_same(restored["optimizer"], state["optimizer"])
        assert all(torch.equal(restored["model"][k], v) for k, v in state["model"].items())


def test_it_returns_while_the_server_does_nothing(paused):
    server, client = paused
    state = {"w": torch.ones(1 << 20), "epoch": 1}
    handle = client.save_async("returns", state)
    state["w"].zero_()
    assert not handle.done() and "on its way" in repr(handle)
    with pytest.raises(TimeoutError):
        handle.result(timeout=0.1)
    go_on(server)
    assert handle.result(60).epoch == 1 and handle.exception() is None
    assert (client.restore("returns@1")["w"] == 1).all()


def test_a_second_save_waits_for_the_first(paused):
    server, client = paused
    first = client.save_async("waits", {"w": torch.ones(1 << 20)}, epoch=1)
    threading.Timer(1, go_on, [server]).start()
    second = client.save_async("waits", {"w": torch.zeros(1 << 20)}, epoch=2)
    assert first.done(), "there is one copy at most"
    assert second.result(60).epoch == 2


def test_the_latest_takes_the_place_of_one_that_waits(paused):
    server, client = paused
    handles = [client.save_async("latest", {"w": torch.full((1000,), float(n))}, epoch=n, latest_only=True) for n in range(5)]
    go_on(server)
    assert handles[4].result(60).epoch == 4 and handles[0].result(60).epoch == 0
    for handle in handles[1:4]:
        with pytest.raises(ckptd.Conflict, match="newer state"):
            handle.result(60)
    assert [c.epoch for c in client.checkpoints("latest")] == [0, 4], "nothing of what was replaced is raised here"


def test_one_that_cannot_be_saved_takes_the_place_of_none(paused):
    server, client = paused
    first, second = (client.save_async("latest", {"w": torch.ones(9)}, epoch=n, latest_only=True) for n in (1, 2))
    with pytest.raises(ckptd.InvalidState):
        client.save_async("latest", {"w": object()}, epoch=3, latest_only=True)
    go_on(server)
    assert [handle.result(60).epoch for handle in (first, second)] == [1, 2]


def test_the_copys_memory_is_used_again(client):
    state = {"w": torch.ones(1 << 20), "a": np.ones(5000)}
    places = set()
    for epoch in range(4):
        client.save_async("again", state, epoch=epoch).result(60)
        (copies,) = client._background._spare
        places.add(frozenset(m.ctypes.data for memory in copies._free.values() for m in memory))
    assert len(places) == 1


def test_an_error_is_raised_by_the_result_or_the_next_call(tmp_path):
    client = ckptd.Client("127.0.0.1:1", retry_s=0.1)
    handle = client.save_async("error", {"w": torch.ones(3)}, epoch=1)
    with pytest.raises(ckptd.Unavailable, match="is it running"):
        handle.result(60)
    handle = client.save_async("error", {"w": torch.ones(3)}, epoch=2)
    while not handle.done():
        time.sleep(0.01)
    with pytest.raises(ckptd.Error, match="earlier save in the background, of error@2, failed.*is it running") as raised:
        client.save_async("error", {"w": torch.ones(3)}, epoch=3)
    assert isinstance(raised.value.__cause__, ckptd.Unavailable)
    with pytest.raises(ckptd.Unavailable):
        client.runs()


def test_a_state_that_cannot_be_saved_is_refused_at_the_call(client):
    with pytest.raises(ckptd.InvalidState, match="function"):
        client.save_async("refused", {"f": lambda: 0}, epoch=1)
    assert client.save_async("refused", {"w": torch.ones(3)}, epoch=1).result(60).version == 1


def test_the_last_save_is_waited_for_at_exit(client, server):
    program = """
import ckptd, torch
ckptd.connect().save_async("exit", {"w": torch.ones(30_000_000)}, epoch=1)
"""
    import os

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True,
                          env=os.environ | {"CKPT_SERVER": server.address})  # fmt: skip
    assert done.stderr == "ckptd: waiting for the save of exit@1\n"
    assert client.checkpoint("exit@1").logical_bytes == 120_000_000


def test_python_goes_on_during_the_copy_and_the_sending(client):
    """The GIL is free: a thread that counts is not held up."""
    state = {"w": torch.ones(100_000_000)}
    client.save_async("gil", {"w": state["w"]}, epoch=0).result(60)
    longest, stop = 0.0, threading.Event()

    def count():
        nonlocal longest
        before = time.monotonic()
        while not stop.is_set():
            now = time.monotonic()
            longest = max(longest, now - before)
            before = now

    counter = threading.Thread(target=count)
    counter.start()
    begin = time.monotonic()
    client.save_async("gil", state, epoch=1).result(60)
    took = time.monotonic() - begin
    stop.set()
    counter.join()
    print(f"a save of 400 MB took {took:.2f} s, and held the GIL for {longest:.3f} s at most")
