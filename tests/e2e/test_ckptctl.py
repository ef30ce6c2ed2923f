"""ckptctl as people and scripts use it: what it prints, where, and how it ends."""

import contextlib
import hashlib
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from same_state import assert_same
from server import Ctl, Server
from torch import nn

CKPTCTL = Path(os.environ["CKPT_BIN"]) / "ckptctl"
CHECKPOINT_KEYS = ["run", "epoch", "version", "step", "metrics", "labels", "tags", "logical_bytes", "new_bytes", "world_size", "create_time"]
TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 70_000)
        self.tied = nn.Linear(8, 70_000)
        self.tied.weight = self.head.weight
        self.conv.bias.requires_grad_(False)

    def forward(self, x):
        h = self.norm(self.conv(x)).mean((2, 3))
        return self.head(h) + self.tied(h)


def trained(epoch=3):
    torch.manual_seed(epoch)
    net = Net()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [2, 3])
    for _ in range(2):
        optimizer.zero_grad()
        net(torch.randn(4, 3, 8, 8)).square().mean().backward()
        optimizer.step()
        scheduler.step()
    return {
        "model": net.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "rng": torch.get_rng_state(),
        "epoch": epoch,
        "step": epoch * 100,
        "best_accuracy": epoch / 8,
        "val_loss": torch.tensor(2.5),
        "amp": True,
        "arch": "net",
    }


def digest_of(tensor):
    """A contiguous tensor's digest, as client/include/ckpt/tensor_digest.h has it."""
    data = tensor.detach().numpy().tobytes()
    head = struct.pack(f"<I{2 * tensor.dim()}Q", tensor.dim(), *[0] * tensor.dim(), *tensor.shape)
    chunks = b"".join(hashlib.sha256(data[i : i + (1 << 20)]).digest() for i in range(0, len(data), 1 << 20))
    return hashlib.sha256(head + chunks).hexdigest()


def save_pth(path, state):
    torch.save(state, path)
    return path


def flip_a_bit(store, near, offset):
    """In the pack that has these bytes."""
    for pack in store.glob("packs/*/*.pack"):
        data = pack.read_bytes()
        if (place := data.find(near) + offset) >= offset:
            pack.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
            return
    raise AssertionError("no pack has these bytes")


def run(*words, server=None, env=None, **more):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("CKPT_")} | (env or {})
    where = ["--server", server.address] if server else []
    words = [word if isinstance(word, bytes) else str(word) for word in words]
    return subprocess.run(
        [CKPTCTL, *where, *words], capture_output=True, text=True, timeout=60, env=environment, **more
    )


def fails(code, *words, server=None, **more):
    """Asserts the exit code and that nothing is on standard output; returns what is on standard error."""
    done = run(*words, server=server, **more)
    assert (done.returncode, done.stdout) == (code, ""), (done.returncode, done.stdout, done.stderr)
    assert done.stderr
    return done.stderr


def test_a_pth_goes_in_and_comes_back_equal(server, ctl, tmp_path):
    state = trained()
    saved = ctl("save", "equal", save_pth(tmp_path / "in.pth", state))
    assert saved["epoch"] == 3 and saved["version"] == 1 and saved["step"] == 300
    ctl("restore", "equal@3", tmp_path / "out.pth")
    for mmap in (False, True):
        assert_same(torch.load(tmp_path / "in.pth", weights_only=True), torch.load(tmp_path / "out.pth", weights_only=True, mmap=mmap))
    net = Net()
    net.load_state_dict(torch.load(tmp_path / "out.pth", weights_only=True)["model"])


def test_the_same_file_as_the_next_epoch_adds_next_to_nothing(server, ctl, tmp_path):
    torch.manual_seed(1)
    path = save_pth(tmp_path / "in.pth", {"model": {f"w{i}": torch.randn(1 << 20) for i in range(8)}, "epoch": 1})
    first = ctl("save", "again", path)
    second = ctl("save", "again", path, "--epoch", 2)
    assert first["new_bytes"] > first["logical_bytes"] >= 32 << 20
    assert second["new_bytes"] < first["logical_bytes"] / 1000 + (128 << 10)
    assert second["logical_bytes"] == first["logical_bytes"]
    (entry,) = [r for r in ctl("runs") if r["run"] == "again"]
    assert entry["logical_bytes"] == 2 * first["logical_bytes"]
    assert entry["stored_bytes"] == first["new_bytes"] + second["new_bytes"]


def test_what_the_file_says_of_itself(server, ctl, tmp_path):
    path = save_pth(tmp_path / "in.pth", trained(7))
    assert ctl("save", "says", path)["metrics"] == {"best_accuracy": 0.875, "val_loss": 2.5}
    words = ("--epoch", 8, "--step", 5, "--metric", "val_loss=nan", "--metric", "top5=0.25", "--label", "git=a=b", "--label", "note=")
    saved = ctl("save", "says", path, *words)
    assert saved["epoch"] == 8 and saved["step"] == 5
    assert saved["metrics"] == {"best_accuracy": 0.875, "top5": 0.25, "val_loss": "NaN"}
    assert saved["labels"] == {"git": "a=b", "note": ""}
    assert ctl("save", "says", path, "--epoch", "010")["epoch"] == 10
    for number in ("9223372036854775808", "0x10", "1.5", "", "1e3"):
        fails(2, "save", "says", path, "--epoch", number, server=server)
        fails(2, "save", "says", path, "--step", number, server=server)
    bare = save_pth(tmp_path / "bare.pth", Net().state_dict())
    assert "--epoch" in fails(1, "save", "says", bare, server=server)
    saved = ctl("save", "says", bare, "--epoch", "-1")
    assert saved["epoch"] == -1 and saved["step"] is None and saved["metrics"] == {}
    for value in (True, 2.0, torch.tensor(2.0), torch.tensor([2, 3]), torch.tensor(True), np.bool_(True), np.uint64(2**63)):
        assert "epoch" in fails(1, "save", "says", save_pth(tmp_path / "b.pth", {"epoch": value}), server=server)
    assert "not UTF-8" in fails(2, "save", "says", bare, "--epoch", 1, "--label", b"a=\xff", server=server)


INTEGERS = ("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8")


def test_numbers_of_every_type(server, ctl, tmp_path):
    """numpy's and PyTorch's scalars, and tensors of one element, are numbers as Python's are."""
    for name in INTEGERS:
        numbers = [n for n in (-3, 12, 100) if n >= 0 or name.startswith("int")]
        dtype = getattr(torch, name)
        for make in (getattr(np, name), partial(torch.tensor, dtype=dtype), lambda n: torch.tensor([n], dtype=dtype)):  # noqa: B023
            state = {"epoch": make(numbers[0]), "step": make(numbers[-1]), "count": make(numbers[0])}
            saved = ctl("save", "numbers", save_pth(tmp_path / "in.pth", state))
            assert (saved["epoch"], saved["step"], saved["metrics"]) == (numbers[0], 100, {"count": numbers[0]}), name
    values = [0.75, -0.1, 0.0, 6e-8, 65504.0, float("inf")]
    arrays = [np.array(values, t) for t in ("f2", "f4", "f8")]
    tensors = [torch.tensor(values, dtype=t) for t in (torch.float16, torch.bfloat16, torch.float32, torch.float64)]
    for many in arrays + tensors:
        saved = ctl("save", "numbers", save_pth(tmp_path / "in.pth", {"epoch": 1} | {f"m{i}": m for i, m in enumerate(many)}))
        expected = {f"m{i}": float(m) for i, m in enumerate(many)} | {"m5": "Infinity"}
        assert saved["metrics"] == expected, many.dtype


def test_numbers_that_cannot_be_metrics_are_left_out(server, ctl, tmp_path):
    names = ("a:b", "x" * 201, "a\nb", "\x7f", "\x85", "", "\ud800", "x" * 200, "é")
    path = save_pth(tmp_path / "in.pth", {"epoch": 1, **dict.fromkeys(names, 0.5)})
    assert ctl("save", "names", path)["metrics"] == {"x" * 200: 0.5, "é": 0.5}

    path = save_pth(tmp_path / "in.pth", {"epoch": 2, **{f"n{i}": i for i in range(100)}})
    assert len(ctl("save", "names", path)["metrics"]) == 100
    assert ctl("save", "names", path, "--metric", "n7=0.5")["metrics"]["n7"] == 0.5
    done = run("--output", "json", "save", "names", path, "--metric", "acc=0.5", server=server)
    assert done.returncode == 0 and json.loads(done.stdout)["metrics"] == {"acc": 0.5}
    assert "too many numbers" in done.stderr and "--metric" in done.stderr
    assert ctl("list", "names")[-1]["metrics"] == {"acc": 0.5}


def test_json_shapes(server, ctl, tmp_path):
    state = trained()
    saved = ctl("save", "shapes/one", save_pth(tmp_path / "in.pth", state), "--label", "host=a")
    assert list(saved) == CHECKPOINT_KEYS
    assert saved["tags"] == [] and re.fullmatch(TIME, saved["create_time"])
    assert ctl("list", "shapes/one") == [saved]

    (entry,) = [r for r in ctl("runs") if r["run"] == "shapes/one"]
    assert list(entry) == ["run", "checkpoints", "latest_epoch", "best", "logical_bytes", "stored_bytes", "create_time", "update_time"]
    assert (entry["checkpoints"], entry["latest_epoch"], entry["best"]) == (1, 3, None)  # two metrics and none named as the run's

    shown = ctl("show", "shapes/one:latest")
    assert list(shown) == [*CHECKPOINT_KEYS, "components", "tensors"]
    assert shown["components"][:4] == ["model", "optimizer", "scheduler", "rng"]
    tensors = {t["path"]: t for t in shown["tensors"]}
    weight = tensors["model.conv.weight"]
    assert list(weight) == ["path", "component", "dtype", "shape", "size_bytes", "role", "requires_grad", "digest"]
    assert weight["shape"] == [8, 3, 3, 3] and weight["dtype"] == "float32" and weight["size_bytes"] == 864
    assert weight["component"] == "model" and weight["digest"] == digest_of(state["model"]["conv.weight"])
    assert tensors["model.head.weight"]["digest"] == digest_of(state["model"]["head.weight"])  # several chunks
    assert tensors["model.norm.num_batches_tracked"]["dtype"] == "int64"
    assert tensors["model.norm.running_mean"]["role"] == "buffer"
    assert tensors["optimizer.state.0.exp_avg"]["role"] == "optimizer"
    assert tensors["model.head.weight"]["digest"] == tensors["model.tied.weight"]["digest"]
    assert sum(t["size_bytes"] for t in shown["tensors"]) >= shown["logical_bytes"] > 0

    restored = ctl("restore", "shapes/one@3", tmp_path / "out.pth")
    assert restored == {
        "reference": "shapes/one@3",
        "run": "shapes/one",
        "epoch": 3,
        "version": 1,
        "file": str(tmp_path / "out.pth"),
        "size_bytes": (tmp_path / "out.pth").stat().st_size,
    }


def test_runs_up_to_a_limit(server, ctl, tmp_path):
    path = save_pth(tmp_path / "in.pth", {"w": torch.ones(1)})
    for name in ("limit/a", "limit/b"):
        ctl("save", name, path, "--epoch", 1)
    every = ctl("runs")
    assert len(every) >= 2
    for limit in (1, len(every) - 1, len(every), 1001):
        assert ctl("--retry-s", 0, "runs", "--limit", limit) == every[:limit]


def test_tables_are_for_people(server, ctl, tmp_path):
    path = save_pth(tmp_path / "in.pth", {"model": Net().state_dict(), "epoch": 4, "val_loss": 0.25})
    saved = run("save", "tables", path, server=server)
    assert re.fullmatch(r"saved tables@4#1: [\d.]+ MiB, [\d.]+ MiB new\n", saved.stdout) and saved.stderr == ""
    lines = run("runs", server=server).stdout.splitlines()
    assert lines[0].split("  ")[0] == "RUN" and len({line.find("LOGICAL") for line in lines[:1]}) == 1
    assert re.search(r"^tables +1 +4 +val_loss 0\.25 @4 .*" + TIME + "$", "\n".join(lines), re.MULTILINE)
    text = run("list", "tables", server=server).stdout
    assert re.search(r"^ +4 +1 +- +val_loss=0\.25 ", text, re.MULTILINE)
    shown = run("show", "tables@4", server=server).stdout
    assert re.search(r"^model\.conv\.weight +float32 +\[8, 3, 3, 3\] +864$", shown, re.MULTILINE)
    restored = run("restore", "tables@4", tmp_path / "out.pth", server=server)
    assert restored.stdout.startswith("restored tables@4#1 into ") and restored.stderr == ""


def test_references(server, ctl, tmp_path):
    path = save_pth(tmp_path / "in.pth", {"w": torch.ones(2)})

    def save(epoch, **metrics):
        return ctl("save", "refs", path, "--epoch", epoch, *[w for k, v in metrics.items() for w in ("--metric", f"{k}={v}")])

    def at(reference):
        shown = ctl("show", reference)
        return shown["epoch"], shown["version"]

    save(3, val_loss=0.5)
    assert at("refs:best") == (3, 1)  # its only metric
    save(3, val_loss=0.25, acc=1)
    save(4, val_loss=0.25, acc="nan")
    save(5, val_loss=0.75, acc=2)
    save(1, val_loss="nan")
    assert at("refs@3") == (3, 2) and at("refs@3#1") == (3, 1)
    assert at("refs:latest") == (1, 1)  # committed last
    assert at("refs:best:val_loss") == at("refs:best:val_loss:min") == (3, 2)  # a tie goes to the earlier epoch
    assert at("refs:best:val_loss:max") == (5, 1)
    assert at("refs:best:acc") == (5, 1) and at("refs:best:acc:min") == (3, 2)
    assert next(r for r in ctl("runs") if r["run"] == "refs")["best"] is None  # two metrics, and none is the primary one
    assert "refs:best:acc, refs:best:val_loss" in fails(3, "show", "refs:best", server=server)
    for primary, wanted in (("acc", 5), ("acc:min", 3), ("val_loss", 3), ("val_loss:max", 5)):
        said = run("save", "refs", path, "--epoch", 9, "--primary-metric", primary, server=server).stderr
        assert f"has no metric {primary.split(':')[0]}, by which refs:best goes" in said
        assert at("refs:best") == (wanted, {5: 1, 3: 2}[wanted])
        best = next(r for r in ctl("runs") if r["run"] == "refs")["best"]
        assert (best["metric"], best["epoch"]) == (primary.split(":")[0], wanted)
    save(6, acc=9, val_loss=9)  # the last one said stays: less of val_loss is no longer better
    assert at("refs:best") == (6, 1)
    assert "NAME:max" in fails(2, "save", "refs", path, "--epoch", 9, "--primary-metric", "a:b", server=server)
    for reference in ("refs@99", "refs@3#7", "refs:best:top5", "refs:nosuchtag", "nosuchrun@1"):
        fails(3, "show", reference, server=server)
    for reference in ("refs@", "refs@x", "refs:best:acc:most", "a//b@1", "refs", "\x1b[31m@1"):
        assert "\x1b" not in fails(2, "show", reference, server=server)


def test_a_long_error_keeps_its_code(server, ctl, tmp_path):
    path = save_pth(tmp_path / "in.pth", {"w": torch.ones(2), "epoch": 1})
    ctl("save", "long", path, *[w for i in range(100) for w in ("--metric", f"{'é' * 90}{i}=1")])
    assert "more than one metric" in fails(3, "show", "long:best", server=server)


def test_restores_what_was_chosen(server, ctl, tmp_path):
    state = trained()
    ctl("save", "chosen", save_pth(tmp_path / "in.pth", state))
    ctl("restore", "chosen@3", tmp_path / "model.pth", "--component", "model", "--component", "epoch")
    assert_same({k: torch.load(tmp_path / "in.pth")[k] for k in ("model", "epoch")}, torch.load(tmp_path / "model.pth"))
    ctl("restore", "chosen@3", tmp_path / "some.pth", "--include", "model.*.weight", "--include", "*running*")
    assert list(torch.load(tmp_path / "some.pth")) == ["model"]
    assert [k for k in state["model"] if k.endswith("weight") or "running" in k] == list(torch.load(tmp_path / "some.pth")["model"])
    assert "model, optimizer" in fails(3, "restore", "chosen@3", tmp_path / "no.pth", "--component", "weights", server=server)
    for words in (("--include", "weights.*"), ("--include", ""), ("--component", "optimizer", "--include", "model.*")):
        assert "NOTHING_MATCHES" in fails(3, "restore", "chosen@3", tmp_path / "no.pth", *words, server=server)
    assert not (tmp_path / "no.pth").exists()


def test_formats_turn_into_each_other(server, ctl, tmp_path):
    state = trained()
    ctl("save", "formats", save_pth(tmp_path / "in.pth", state))
    ctl("restore", "formats@3", tmp_path / "out.safetensors", "--component", "model")
    loaded = load_file(tmp_path / "out.safetensors")
    assert sorted(loaded) == sorted(state["model"])  # one component: its name is left out
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state["model"].items())
    tensors = {"a.weight": torch.ones(3), "b": torch.arange(4)}
    save_file(tensors, tmp_path / "in.safetensors")
    ctl("save", "formats", tmp_path / "in.safetensors", "--epoch", 9)
    ctl("restore", "formats@9", tmp_path / "anything", "--format", "pth")
    assert_same(tensors, dict(sorted(torch.load(tmp_path / "anything").items())))
    assert "ending" in fails(1, "restore", "formats@9", tmp_path / "out.xyz", server=server)
    assert ctl("save", "formats", tmp_path / "anything", "--format", "pth", "--epoch", 10)["epoch"] == 10
    for name in ("checkpoint.pth.tar", "OUT.PTH"):
        ctl("restore", "formats@10", tmp_path / name)
        assert_same(torch.load(tmp_path / name), torch.load(tmp_path / "anything"))
        ctl("save", "formats", tmp_path / name, "--epoch", 11)


def test_the_file_is_named_for_the_checkpoint_when_it_is_not_given(server, ctl, tmp_path):
    ctl("save", "team/named", save_pth(tmp_path / "in.pth", trained()))
    done = run("restore", "team/named:latest", server=server, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "team-named@3.pth").exists()


def test_a_file_that_is_there_stays(server, ctl, tmp_path):
    ctl("save", "stays", save_pth(tmp_path / "in.pth", trained()))
    target = tmp_path / "out.pth"
    target.write_text("precious")
    assert "--force" in fails(4, "restore", "stays@3", target, server=server)
    assert target.read_text() == "precious"
    ctl("restore", "stays@3", target, "--force")
    torch.load(target)
    target.chmod(0o600)
    ctl("restore", "stays@3", target, "--force")
    assert target.stat().st_mode & 0o7777 == 0o600
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.pth", "out.pth"]


def test_only_a_file_is_replaced(server, ctl, tmp_path):
    ctl("save", "replaced", save_pth(tmp_path / "in.pth", trained()))
    os.mkfifo(tmp_path / "fifo.pth")
    (tmp_path / "folder.pth").mkdir()
    for name in ("fifo.pth", "folder.pth"):
        assert "no regular file" in fails(1, "restore", "replaced@3", tmp_path / name, "--force", server=server)
    assert (tmp_path / "fifo.pth").is_fifo() and (tmp_path / "folder.pth").is_dir()
    (tmp_path / "target.pth").write_text("old")
    (tmp_path / "link.pth").symlink_to("target.pth")
    ctl("restore", "replaced@3", tmp_path / "link.pth", "--force")
    assert (tmp_path / "link.pth").is_symlink()
    torch.load(tmp_path / "target.pth")


def write_while_it_is_saved(tmp_path, change):
    """Calls `change` with the path of a file that ckptctl has mapped; returns how its save ended."""
    path = save_pth(tmp_path / "in.pth", {"epoch": 1, "w": torch.randn(3_000_000)})
    with Server(CKPTCTL.parent / "ckptd", tmp_path / "store", tmp_path / "ckptd.log") as server:
        server.process.send_signal(signal.SIGSTOP)
        words = [CKPTCTL, "--server", server.address, "save", "written", path]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as save:
            while str(path) not in Path(f"/proc/{save.pid}/maps").read_text():
                assert save.poll() is None
            time.sleep(0.2)  # until its CRCs are checked
            change(path)
            server.process.send_signal(signal.SIGCONT)
            out, err = save.communicate(timeout=60)
        saved = bool(Ctl(CKPTCTL, server.address)("runs"))
        assert server.stop() == 0
    assert saved == (out != "")
    return save.returncode, err


def overwrite(path):
    with open(path, "r+b") as file:
        file.seek(5_000_000)
        file.write(b"other")


def overwrite_and_put_the_time_back(path):
    before = path.stat()
    overwrite(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("change", [overwrite, overwrite_and_put_the_time_back])
def test_a_file_that_is_written_to_meanwhile_is_refused(tmp_path, change):
    code, err = write_while_it_is_saved(tmp_path, change)
    assert code == 4 and "in.pth was written to while it was read" in err and "FILE_CHANGED" in err


def test_a_file_that_is_cut_off_meanwhile_is_refused(tmp_path):
    code, err = write_while_it_is_saved(tmp_path, lambda path: os.truncate(path, 1000))
    assert code == 4 and "in.pth" in err and "FILE_CHANGED" in err


def test_a_file_that_another_takes_the_place_of_is_saved(tmp_path):
    def replace(path):
        (tmp_path / "new.pth").write_bytes(b"another")
        (tmp_path / "new.pth").rename(path)

    assert write_while_it_is_saved(tmp_path, replace)[0] == 0


def test_a_file_that_is_renamed_meanwhile_is_saved(tmp_path):
    assert write_while_it_is_saved(tmp_path, lambda path: path.rename(tmp_path / "previous.pth"))[0] == 0


def test_bad_files_are_refused_and_nothing_is_saved(server, ctl, tmp_path):
    whole = save_pth(tmp_path / "in.pth", trained()).read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    (tmp_path / "flipped.pth").write_bytes(flipped)
    (tmp_path / "text.pth").write_text("no checkpoint")
    torch.save(trained(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    torch.save({"epoch": 1, "optimizer": {"hook": print}}, tmp_path / "hook.pth")
    for name, code, says in (
        ("cut.pth", 7, "cut.pth"), ("flipped.pth", 7, "CRC"), ("text.pth", 1, "text.pth"), ("old.pth", 1, "torch.save"),
        ("hook.pth", 1, "optimizer.hook"), ("absent.pth", 3, "absent.pth"), ("in.txt", 1, "ending"),
    ):  # fmt: skip
        assert says in fails(code, "save", "bad", tmp_path / name, "--epoch", 1, server=server), name
    assert "bad" not in [r["run"] for r in ctl("runs")]


@pytest.mark.skipif(not Path("/sys/kernel").exists(), reason="nothing here that root may not write either")
def test_a_file_that_may_not_be_written(server, ctl, tmp_path):
    ctl("save", "rights", save_pth(tmp_path / "in.pth", trained()))
    assert "FILE_NOT_PERMITTED" in fails(1, "restore", "rights@3", "/sys/kernel/out.pth", server=server)


def test_usage_errors(server):
    for words in (
        [], ["nosuch"], ["list"], ["show"], ["save", "r"], ["runs", "--output", "xml"], ["save", "r", "f.pth", "--metric", "x"],
        ["save", "r", "f.pth", "--metric", "x=fast"], ["save", "r", "f.pth", "--metric", "=1"], ["save", "r", "f.pth", "--epoch", "x"],
        ["save", "r", "f.pth", "--label", "x"],
        ["save", "r", "f.pth", "--metric", "x=1", "--metric", "x=2"], ["save", "r", "f.pth", "--label", "x=1", "--label", "x=2"], ["restore", "r@1", "--format", "zip"], ["runs", "--retry-s", "-1"], ["runs", "--retry-s", "nan"], ["runs", "--limit", "0"], ["completion", "fish"],
    ):  # fmt: skip
        fails(2, *words, server=server)
    assert "no command 'nosuch'" in fails(2, "nosuch", "r", server=server)


def writes_into(process, folder):
    """Whether it has a file of this folder open."""
    names = []
    for entry in Path(f"/proc/{process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            names.append(os.readlink(entry))
    return any(name.startswith(f"{folder}/") for name in names)


def has_nameless_files(folder):
    try:
        os.close(os.open(folder, os.O_TMPFILE | os.O_RDWR))
    except OSError:
        return False
    return True


def test_a_restore_that_is_interrupted_or_killed_leaves_nothing(server, ctl, tmp_path):
    ctl("save", "interrupted", save_pth(tmp_path / "in.pth", {"epoch": 1, "w": torch.randn(30_000_000)}))
    out = tmp_path / "out"
    out.mkdir()
    killed = [signal.SIGKILL] if has_nameless_files(out) else []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, *killed):
        words = [CKPTCTL, "--server", server.address, "restore", "interrupted@1", out / "out.pth"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as restore:
            while not writes_into(restore, out):
                assert restore.poll() is None
            restore.send_signal(number)
            restore.communicate(timeout=60)
        assert restore.returncode == -number
        assert not list(out.iterdir())


def test_nobody_there():
    done = fails(6, "--server", "127.0.0.1:1", "--retry-s", "0.2", "runs")
    assert "127.0.0.1:1" in done and "is it running" in done
    assert "HOST:PORT" in fails(2, "--server", "nonsense", "runs")
    assert "127.0.0.1:2" in fails(6, "--retry-s", "0.2", "runs", env={"CKPT_SERVER": "127.0.0.1:2"})


def test_damage_is_named_and_the_next_save_heals_it(tmp_path):
    torch.manual_seed(1)
    state = {"epoch": 1, "model": {f"w{i}": torch.randn(700_000) for i in range(3)}}
    path = save_pth(tmp_path / "in.pth", state)
    with Server(CKPTCTL.parent / "ckptd", tmp_path / "store", tmp_path / "ckptd.log") as server:
        ctl = Ctl(CKPTCTL, server.address)
        first = ctl("save", "damage", path)
        for name, record, of_record in (("w0", 2, 500), ("w2", 2, 20)):  # in a payload, and in a record's header
            chunk = state["model"][name].numpy().tobytes()[record << 20 :]
            flip_a_bit(tmp_path / "store", chunk[:1000], of_record - 112)
        message = fails(7, "restore", "damage@1", tmp_path / "out.pth", server=server)
        assert "run damage epoch 1 version 1, tensor model.w2 chunk 2" in message and "DATA_DAMAGED" in message
        assert "tensor model.w0 chunk 2" in server.log.read_text()
        assert not (tmp_path / "out.pth").exists()
        ctl("restore", "damage@1", tmp_path / "part.pth", "--include", "model.w1")
        again = ctl("save", "damage", path, "--epoch", 2)
        assert 0 < again["new_bytes"] < first["new_bytes"] / 2
        for epoch in (1, 2):
            ctl("restore", f"damage@{epoch}", tmp_path / f"{epoch}.pth")
            assert_same(torch.load(tmp_path / f"{epoch}.pth"), state)
        assert server.stop() == 0


def test_every_command_has_help_with_an_example():
    whole = run("--help")
    assert whole.returncode == 0 and whole.stderr == ""
    for code in range(8):
        assert f"{code} " in whole.stdout
    for command in ("runs", "list", "show", "save", "restore", "completion"):
        assert command in whole.stdout
        done = run(command, "--help")
        assert done.returncode == 0 and re.search(rf"Example:\n  .*ckptctl {command}", done.stdout), done.stdout
    assert re.fullmatch(r"ckptctl \d+\.\d+\.\d+\n", run("--version").stdout)


def test_restores_help_says_which_names_a_safetensors_file_has():
    assert "fc.weight, not model.fc.weight" in run("restore", "--help").stdout


def test_progress_is_shown_on_a_terminal_only(server, tmp_path):
    path = save_pth(tmp_path / "in.pth", {"w": torch.randn(6 << 20), "epoch": 1})
    assert run("save", "progress", path, server=server).stderr == ""
    ours, theirs = pty.openpty()
    done = subprocess.run([CKPTCTL, "--server", server.address, "save", "progress", path, "--epoch", "2"], stdout=subprocess.PIPE, stderr=theirs, timeout=60)
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert done.returncode == 0 and "saving [" in shown and shown.endswith("\x1b[K")


def test_a_result_that_cannot_be_written_is_a_failure(server, ctl, tmp_path):
    ctl("save", "pipe", save_pth(tmp_path / "in.pth", trained()))
    large = ["--output", "json", "show", "pipe@3"]  # more than a buffer, which fails before all is printed
    assert len(run(*large, server=server).stdout) > 8192
    for words in (["runs"], large):
        with open("/dev/full", "w") as full:
            done = subprocess.run([CKPTCTL, "--server", server.address, *words], stdout=full, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 1 and "cannot write" in done.stderr


@pytest.mark.skipif(not shutil.which("bash"), reason="no bash here")
def test_bash_completes(server, ctl, tmp_path):
    ctl("save", "resnet-50", save_pth(tmp_path / "in.pth", trained()))

    def complete(*words):
        script = f"""
            PATH={CKPTCTL.parent}:$PATH; source <(ckptctl completion bash)
            COMP_WORDS=({" ".join(f"'{w}'" for w in words)}); COMP_LINE="${{COMP_WORDS[*]}}"
            COMP_CWORD={len(words) - 1}; _ckptctl
            printf '%s\\n' "${{COMPREPLY[@]}}" """
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, env={**os.environ, "CKPT_SERVER": server.address})
        assert done.stderr == "", done.stderr
        return done.stdout.split()

    assert {"runs", "list", "show", "save", "restore"} <= set(complete("ckptctl", ""))
    assert complete("ckptctl", "resto") == ["restore"]
    assert complete("ckptctl", "list", "resn") == ["resnet-50"]
    assert complete("ckptctl", "--output", "j") == ["json"]
    assert complete("ckptctl", "runs", "--l") == ["--limit"]
    assert complete("ckptctl", "save", "r", "x.pth", "--ep") == ["--epoch"]
    assert complete("ckptctl", "restore", "x", "--format", "s") == ["safetensors"]

