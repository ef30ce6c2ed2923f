"""What the C++ trainer saved, PyTorch opens: the same network gives the same answers, and Adam goes on from there."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
TRAINER = Path(os.environ["CKPT_BIN"]) / "digits_trainer"


class Net(nn.Module):
    def __init__(self, weights):
        super().__init__()
        hidden = len(weights["fc1.bias"])
        self.fc1, self.bn, self.fc2 = nn.Linear(64, hidden), nn.BatchNorm1d(hidden), nn.Linear(hidden, 10)

    def forward(self, x):
        return self.fc2(torch.relu(self.bn(self.fc1(x))))


@pytest.fixture
def best(server, ctl, tmp_path):
    """The best checkpoint's metadata and its file, as torch loads it."""
    subprocess.run([TRAINER, "--server", server.address, "--run", "digits", "--epochs", "4"], check=True, stdout=subprocess.DEVNULL)
    ctl("restore", "digits:best", tmp_path / "best.pth")
    return ctl("show", "digits:best"), torch.load(tmp_path / "best.pth", weights_only=True)


def test_the_best_is_what_the_table_says(ctl, best):
    shown, state = best
    accuracies = {c["epoch"]: c["metrics"]["val_acc"] for c in ctl("list", "digits")}
    assert accuracies[shown["epoch"]] == max(accuracies.values()) == state["best_val_acc"]
    (run,) = ctl("runs")
    assert run["best"] == {"metric": "val_acc", "value": max(accuracies.values()), "epoch": shown["epoch"]}
    roles = {t["path"]: t["role"] for t in shown["tensors"]}
    assert roles["model.bn.running_var"] == "buffer" and roles["model.fc1.weight"] == "parameter"


def test_pytorch_goes_on_with_it(best):
    shown, state = best
    net = Net(state["model"])
    net.load_state_dict(state["model"])  # strict
    optimizer = torch.optim.Adam(net.parameters())
    optimizer.load_state_dict(state["optimizer"])
    assert optimizer.state[net.fc2.bias]["step"] == shown["step"]

    data = torch.from_numpy(np.loadtxt(ROOT / "client/examples/digits/digits.csv", delimiter=",", dtype=np.float32))
    held_out = data[4::5]
    images, labels = held_out[:, :64] / 16, held_out[:, 64].long()
    net.eval()
    with torch.no_grad():
        accuracy = (net(images).argmax(1) == labels).float().mean().item()
    assert accuracy == pytest.approx(shown["metrics"]["val_acc"], abs=1e-6)

    net.train()
    nn.functional.cross_entropy(net(images), labels).backward()
    optimizer.step()
