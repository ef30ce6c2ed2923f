"""The example trainers, as one runs them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import ckptd
import pytest
import torch

EXAMPLES = Path(__file__).resolve().parents[2] / "client/examples"


@pytest.fixture
def python(client):
    def run(script, *words, fails=False):
        done = subprocess.run([sys.executable, EXAMPLES / script, *words], capture_output=True, text=True, timeout=120,
                              env={**os.environ, "OMP_NUM_THREADS": "1"})
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done.stdout

    return run


def test_a_resumed_run_ends_with_the_same_model(client, python):
    whole = python("digits_pytorch.py", "--run", "whole", "--epochs", "4")
    python("digits_pytorch.py", "--run", "parts", "--epochs", "2")
    rest = python("digits_pytorch.py", "--run", "parts", "--epochs", "4", "--resume")
    assert "resumed parts@1#1" in rest and "epoch 1:" not in rest
    assert re.findall(r"^(?:epoch [23]|model).*", whole, re.MULTILINE) == re.findall(r"^(?:epoch|model).*", rest, re.MULTILINE)
    best = client.checkpoint("parts:best")
    shown = python("digits_pytorch.py", "--evaluate", "parts:best")
    assert shown == f"{best.reference}: val_acc {best.metrics['val_acc']:.4f}, saved with val_acc {best.metrics['val_acc']:.4f}\n"


def test_two_lines(client, python):
    assert "a new run" in python("digits_pytorch_two_lines.py", "1")
    assert python("digits_pytorch_two_lines.py", "2").startswith("epoch 1:")
    assert [checkpoint.epoch for checkpoint in client.checkpoints("digits-two-lines")] == [0, 1]


def test_a_sharded_run_goes_on_with_fewer_processes(client, tmp_path):
    def ranks(count, *words):
        done = subprocess.run([Path(sys.executable).with_name("torchrun"), "--nnodes=1", "--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0",
                               f"--nproc-per-node={count}", EXAMPLES / "digits_fsdp.py", *words],
                              capture_output=True, text=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"})  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    before = ranks(4, "--epochs", "2")
    assert before.endswith("saved digits-fsdp@1#1\n")
    after = ranks(2, "--epochs", "3", "--resume")
    assert "resumed after epoch 1: " + re.findall("epoch 1: (.*)", before)[0] in after
    assert [checkpoint.world_size for checkpoint in client.checkpoints("digits-fsdp")] == [4, 4, 2]
    assert client.checkpoint("digits-fsdp:latest").metrics["val_acc"] > 0.8
    weight = ckptd.load("digits-fsdp:latest")["model"]["0.weight"]
    assert weight.shape == (256, 64) and type(weight) is torch.Tensor
