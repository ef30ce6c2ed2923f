"""The client's calls: what they take, return and raise."""

import datetime
import os
import subprocess
import sys
import threading
import time
import tomllib
from pathlib import Path

import ckptd
import numpy as np
import pytest
import torch
from conftest import BIN
from same_state import assert_same
from server import Ctl, Server
from torch import nn


def model_state(seed=0):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 5000))
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    for parameter in net.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    return {"model": net.state_dict(), "optimizer": optimizer.state_dict(), "epoch": seed}


def test_save_and_load_are_two_lines(client):
    state = model_state(3)
    saved = ckptd.save(state, "two", metrics={"val_acc": 0.91})
    assert (saved.run, saved.epoch, saved.version, saved.metrics) == ("two", 3, 1, {"val_acc": 0.91})
    assert_same(ckptd.load("two:best"), state)
    ckptd.save(state, "two@7")
    assert ckptd.connect().checkpoint("two:latest").epoch == 7
    for reference in ("two@", "two@x", "two@1#1", "two@" + "9" * 5000):
        with pytest.raises(ckptd.InvalidState, match="RUN@EPOCH"):
            ckptd.save(state, reference)


def test_the_version_is_the_same_everywhere():
    said = subprocess.run([BIN / "ckptctl", "--version"], capture_output=True, text=True, check=True).stdout
    pyproject = Path(__file__).resolve().parents[2] / "client/python/pyproject.toml"
    assert said == f"ckptctl {ckptd.__version__}\n"
    assert tomllib.loads(pyproject.read_text())["project"]["version"] == ckptd.__version__


def test_what_a_checkpoint_says(client):
    state = model_state()
    saved = client.save("says", state, epoch=5, step=50, metrics={"a": 1, "b": 2.5}, labels={"git": "1f3"}, primary_metric="b:min")
    assert saved.reference == "says@5#1"
    assert (saved.step, saved.metrics, saved.labels, saved.tags) == (50, {"a": 1.0, "b": 2.5}, {"git": "1f3"}, ())
    assert saved.components == ("model", "optimizer", "epoch")
    assert saved.sent_bytes > 0 and saved.cited_bytes == 0 and saved.new_bytes > saved.sent_bytes
    assert abs(datetime.datetime.now(datetime.timezone.utc) - saved.create_time) < datetime.timedelta(minutes=1)
    again = client.save("says", state, epoch=6)
    assert again.sent_bytes == 0 and again.cited_bytes == saved.sent_bytes
    assert [c.epoch for c in client.checkpoints("says")] == [5, 6]
    found = client.checkpoint("says@5")
    assert (found.sent_bytes, found.cited_bytes, found.new_bytes) == (None, None, saved.new_bytes)
    (run,) = [r for r in client.runs() if r.name == "says"]
    assert (run.checkpoint_count, run.latest_epoch, run.stored_bytes) == (2, 6, saved.new_bytes + again.new_bytes)
    assert (run.best.metric, run.best.value, run.best.epoch) == ("b", 2.5, 5)


@pytest.mark.parametrize("epoch", [4, np.int64(4), np.uint8(4), np.array([4]), torch.tensor(4), torch.tensor([[4]], dtype=torch.int16)])
def test_the_epoch_is_the_states_or_what_is_said(client, epoch):
    assert client.save("epochs", {"epoch": epoch, "step": epoch}).epoch == 4
    saved = client.save("epochs", {"epoch": epoch}, epoch=9)
    assert (saved.epoch, saved.step) == (9, None)


@pytest.mark.parametrize("state", [{}, {"epoch": True}, {"epoch": 1.0}, {"epoch": None}, [1], torch.ones(2)])
def test_a_save_does_not_guess_the_epoch(client, state):
    with pytest.raises(ckptd.InvalidState, match="epoch=N") as raised:
        client.save("guess", state)
    assert raised.value.reason == "NO_EPOCH"


@pytest.mark.parametrize(
    ("named", "arguments"),
    [
        ("epoch", {"epoch": 1 << 63}),
        ("step", {"step": -(1 << 70)}),
        (r"labels\['seed'\]", {"labels": {"seed": 1}}),
        ("labels", {"labels": {1: "seed"}}),
        (r"metrics\['acc'\]", {"metrics": {"acc": "high"}}),
        (r"metrics\['loss'\]", {"metrics": {"loss": torch.ones(2)}}),
        ("metrics", {"metrics": {2: 0.5}}),
        ("primary_metric", {"primary_metric": 1}),
        ("metrics must be a dict", {"metrics": [0.5]}),
        ("labels must be a dict", {"labels": "seed"}),
        ("a name in metrics has half a character", {"metrics": {"\ud800": 0.5}}),
        (r"labels\['seed'\] has half a character", {"labels": {"seed": "\ud800"}}),
    ],
)
def test_an_argument_that_cannot_be_is_named(client, named, arguments):
    with pytest.raises(ckptd.InvalidState, match=named) as raised:
        client.save("arguments", {"w": torch.ones(2)}, **{"epoch": 1} | arguments)
    assert raised.value.reason == "BAD_ARGUMENT"


@pytest.mark.parametrize("read", ["restore", "restore_into", "load_into", "explain", "checkpoint"])
def test_a_reference_that_is_no_text_is_refused(client, read):
    state = [{}] if read == "restore_into" else []
    with pytest.raises(ckptd.InvalidState, match="reference must be a str such as") as raised:
        getattr(client, read)(None, *state)
    assert raised.value.reason == "BAD_ARGUMENT"


def test_texts_that_cannot_be_are_named(client):
    for named, call in (
        ("address", lambda: ckptd.connect(5)),
        ("address", lambda: ckptd.connect([client.address])),
        ("domain", lambda: ckptd.connect(client.address, domain={})),
        ("retry_s", lambda: ckptd.connect(client.address, retry_s="3")),
        ("retry_s", lambda: ckptd.Client(client.address, retry_s=float("nan"))),
        ("domain", lambda: ckptd.Client("127.0.0.1:1", domain=b"x")),
        ("run has half", lambda: client.save("\ud800", {}, epoch=1)),
        ("reference has half", lambda: client.restore("\udfff@1")),
        ("reference must be", lambda: ckptd.save({}, 5)),
        ("components must be a list", lambda: client.restore("r@1", components=5)),
        ("each of include has half", lambda: client.restore("r@1", include=["\ud800*"])),
    ):
        with pytest.raises(ckptd.InvalidState, match=named) as raised:
            call()
        assert raised.value.reason == "BAD_ARGUMENT"


def test_messages_can_be_printed(client):
    client.save("printed", {"w": torch.ones(2)}, epoch=1)
    for call in (
        lambda: client.restore_into("printed@1", {"a\ud800\x1b[31m": torch.ones(2)}),
        lambda: client.save("r\x9b", {"w": torch.ones(2)}, epoch=1),
        lambda: client.restore("nosuch\x9b@1"),
        lambda: ckptd.Client("a\x1b[31mb"),
    ):
        with pytest.raises(ckptd.Error) as raised:
            call()
        assert not set(str(raised.value)) & {"\x1b", "\x9b", "\ud800"}


def test_what_is_selected_may_come_from_a_generator(client):
    client.save("selected", {"model": {"w": torch.ones(2)}, "note": "x"}, epoch=1)
    assert list(client.restore("selected@1", components=(name for name in ["model"]))) == ["model"]
    live = {"model": {"w": torch.zeros(2)}, "note": torch.ones(1)}
    client.restore_into("selected@1", live, components=iter(["model"]))
    assert torch.equal(live["model"]["w"], torch.ones(2))


def test_what_is_done_with_what_was_read_needs_no_stream(tmp_path):
    with Server(BIN / "ckptd", tmp_path / "store", tmp_path / "log", words=["--max-streams", "1"]) as server:
        client = ckptd.Client(server.address, retry_s=1)
        net = nn.Linear(3, 3)
        client.save("one", {"model": net.state_dict(), "optimizer": 1}, epoch=1)

        def map_location(storage, location):
            client.restore("one@1")
            return storage

        client.restore("one@1", map_location=map_location)
        optimizer = torch.optim.SGD(net.parameters())
        with pytest.raises(ckptd.InvalidState) as refused:
            client.explain("one@1", model=net, optimizer=optimizer)
        client.restore("one@1")  # while the exception holds what it was raised from
        assert refused.value.reason == "STATE_DIFFERS"


def test_a_pack_that_is_cut_under_a_running_server_is_done_without(tmp_path):
    with Server(BIN / "ckptd", tmp_path / "store", tmp_path / "log") as server:
        client = ckptd.Client(server.address)
        state = {"w": torch.randn(500_000)}
        client.save("cut", state, epoch=1)
        (pack,) = (tmp_path / "store/packs/default").glob("*.pack")
        os.truncate(pack, 100_000)
        client.save("cut", {"w": torch.randn(500)}, epoch=2)  # finds it
        assert f"{pack.name} has been cut, moved or removed" in server.log_tail()
        assert client.save("cut", state, epoch=3).sent_bytes == 2_000_000
        assert torch.equal(client.restore("cut@3")["w"], state["w"])


def test_errors_are_a_tree(client):
    with pytest.raises(ckptd.NotFound, match=r"nosuch.*\[RUN_NOT_FOUND\]"):
        client.restore("nosuch@1")
    with pytest.raises(ckptd.InvalidState, match="BAD_REFERENCE"):
        client.checkpoint("nonsense")
    with pytest.raises(ckptd.InvalidState, match="HOST:PORT"):
        ckptd.connect("nonsense")
    with pytest.raises(ckptd.InvalidState, match="list of str, not 'model'"):
        client.restore("r@1", components="model")
    with pytest.raises(ckptd.InvalidState, match="each of include must be a str, not 1"):
        client.restore("r@1", include=["a", 1])
    with pytest.raises(ckptd.InvalidState, match="run must be a str"):
        client.checkpoints(1)
    with pytest.raises(ckptd.Unavailable, match=r"127.0.0.1:1.*is it running"):
        ckptd.Client("127.0.0.1:1", retry_s=0.1).runs()
    assert issubclass(ckptd.NotFound, ckptd.Error)


def test_what_was_chosen_is_restored(client):
    state = model_state(1)
    client.save("chosen", state)
    assert_same(client.restore("chosen@1", components=["model"]), {"model": state["model"]})
    some = client.restore("chosen@1", components=["model"], include=["*.weight"])
    assert list(some["model"]) == [k for k in state["model"] if k.endswith("weight")]
    with pytest.raises(ckptd.NotFound, match="NOTHING_MATCHES"):
        client.restore("chosen@1", include=["nothing"])
    with pytest.raises(ckptd.NotFound, match="model, optimizer"):
        client.restore("chosen@1", components=["weights"])


def test_without_torch(server, client):
    """numpy's states need no PyTorch: none is imported."""
    program = """
import sys, ckptd, numpy as np
state = {"epoch": 1, "a": np.arange(6.0).reshape(2, 3), "b": np.float32(2), "c": [None, True, "x", b"y", 1 << 80]}
ckptd.save(state, "numpy")
loaded = ckptd.load("numpy@1")
assert loaded.keys() == state.keys() and (loaded["a"] == state["a"]).all() and loaded["b"] == 2 and loaded["c"] == state["c"]
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, env={"CKPT_SERVER": server.address, "PYTHONPATH": ":".join(sys.path)})


def test_a_map_of_devices(client):
    client.save("map", {"w": torch.ones(3)}, epoch=1)
    assert client.restore("map@1", map_location="cpu")["w"].device.type == "cpu"
    assert client.restore("map@1", map_location=torch.device("meta"))["w"].device.type == "meta"
    assert client.restore("map@1", map_location={"cpu": "meta"})["w"].device.type == "meta"
    seen = []
    client.restore("map@1", map_location=lambda storage, location: seen.append((storage.nbytes(), location)))
    assert seen == [(12, "cpu")]


def test_ctrl_c_ends_a_call_within_a_second(tmp_path):
    program = """
import ckptd, torch, sys
client = ckptd.connect(sys.argv[1])
print("ready", flush=True)
client.save("interrupted", {"w": torch.ones(1 << 22)}, epoch=1)
"""
    import signal

    with Server(BIN / "ckptd", tmp_path / "store", tmp_path / "ckptd.log") as server:
        server.process.send_signal(signal.SIGSTOP)
        with subprocess.Popen([sys.executable, "-c", program, server.address], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as save:
            assert save.stdout.readline() == "ready\n"
            time.sleep(1)
            begin = time.monotonic()
            save.send_signal(signal.SIGINT)
            _, err = save.communicate(timeout=30)
            took = time.monotonic() - begin
        assert "KeyboardInterrupt" in err, err
        print(f"ended after {took:.2f} s")
        server.process.send_signal(signal.SIGCONT)
        client = ckptd.Client(server.address)
        assert client.runs() == []
        assert client.save("interrupted", {"w": torch.ones(3)}, epoch=1).version == 1
        assert server.stop() == 0


def test_a_forked_child_is_told_that_it_cannot(server, client):
    import os

    client.save("fork", {"w": torch.ones(3)}, epoch=1)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        said = b"nothing"
        for use in (client.runs, lambda: ckptd.load("fork@1"), lambda: ckptd.Client(server.address)):
            try:
                use()
            except ckptd.Error as error:
                said = error.reason.encode()
            os.write(write, said)
        os._exit(0)
    os.close(write)
    assert os.waitpid(child, 0)[1] == 0
    assert os.read(read, 1000) == b"FORKED" * 3
    assert client.checkpoint("fork@1").epoch == 1


def test_threads_save_at_once(client):
    def save(number):
        client.save(f"threads/{number}", {"w": torch.full((300_000,), float(number))}, epoch=number)

    threads = [threading.Thread(target=save, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(4):
        assert client.restore(f"threads/{number}@{number}")["w"][7] == number


def test_a_hundred_thousand_tensors(client):
    state = {"epoch": 1, "model": {f"w{i}": torch.full((256,), float(i)) for i in range(100_000)}}
    begin = time.monotonic()
    client.save("many", state)
    saved = time.monotonic()
    loaded = client.restore("many@1")
    print(f"100,000 tensors of 1 KiB: saved in {saved - begin:.2f} s, restored in {time.monotonic() - saved:.2f} s")
    assert len(loaded["model"]) == 100_000 and loaded["model"]["w99999"][255] == 99999


def test_ckptctl_writes_what_python_saved(server, client, tmp_path):
    state = model_state(2)
    client.save("both", state)
    Ctl(BIN / "ckptctl", server.address)("restore", "both@2", tmp_path / "out.pth")
    assert_same(torch.load(tmp_path / "out.pth"), state)


def test_workers_of_a_data_loader_end_though_nobody_holds_a_client(server):
    """The two-line way leaves the only reference to the client in the module."""
    program = """
import torch, ckptd
class Numbers(torch.utils.data.Dataset):
    def __len__(self):
        return 8
    def __getitem__(self, i):
        return float(i)
ckptd.save({"a": 1.0}, "loader@1")
ckptd.load("loader@1")
batches = list(torch.utils.data.DataLoader(Numbers(), batch_size=4, num_workers=2))
assert torch.cat(batches).tolist() == [float(i) for i in range(8)], batches
"""
    env = {"CKPT_SERVER": server.address, "PYTHONPATH": ":".join(sys.path)}
    subprocess.run([sys.executable, "-c", program], check=True, env=env, timeout=100)
