"""Measures the Python client beside what PyTorch users do today, alternating, in one go.

The state is a model with Adam's moments. Prints each figure's median, minimum and maximum, and the ratios of the medians.
"""

import argparse
import contextlib
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import ckptd
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/harness"))
from server import Server  # noqa: E402

LAYER = 1024  # a layer's width: 4 MiB of weights
# What is compared: name, the sides of the ratio.
RATIOS = {
    "save / torch.save + fsync": ("save", "torch.save + fsync"),
    "save of an unchanged state / torch.save + fsync": ("save, unchanged", "torch.save + fsync"),
    "stall of save_async / clone of the state": ("save_async, stall", "clone of the state"),
    "stall of save_async / stall of dcp.async_save": ("save_async, stall", "dcp.async_save, stall"),
    "restore_into / torch.load + load_state_dict": ("restore_into", "torch.load + load_state_dict"),
}


class Trainer:
    def __init__(self, gib):
        torch.manual_seed(0)
        layers = max(1, round(gib * (1 << 30) / (3 * 4 * LAYER * LAYER)))  # weights and two moments
        self.model = nn.Sequential(*(nn.Linear(LAYER, LAYER, bias=False) for _ in range(layers)))
        self.optimizer = torch.optim.Adam(self.model.parameters())
        for parameter in self.model.parameters():
            parameter.grad = torch.randn_like(parameter)
        self.optimizer.step()

    @torch.no_grad()
    def train(self):
        """Changes every tensor."""
        for parameter in self.model.parameters():
            parameter.grad.mul_(1.01)
        self.optimizer.step()

    def state(self):
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load(self, state):
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])


def copy_of(value):
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: copy_of(member) for key, member in value.items()}
    return value


def measure(trainer, client, folder, epoch):
    """Seconds of each side, once."""
    file = folder / "state.pth"
    out = {}

    @contextlib.contextmanager
    def timed(what):
        start = time.perf_counter()
        yield
        out[what] = time.perf_counter() - start

    def save_file():
        with timed("torch.save + fsync"), open(file, "r+b" if file.exists() else "wb") as stream:
            torch.save(trainer.state(), stream)
            stream.flush()
            os.fsync(stream.fileno())

    def save():
        with timed("save"):
            client.save("bench", trainer.state(), epoch=epoch)
        with timed("save, unchanged"):
            client.save("bench", trainer.state(), epoch=epoch)

    def clone():
        with timed("clone of the state"):
            kept = copy_of(trainer.state())
        del kept

    def save_async():
        trainer.train()
        with timed("save_async, stall"):
            handle = client.save_async("bench-async", trainer.state(), epoch=epoch)
        handle.result()

    def dcp_async():
        with timed("dcp.async_save, stall"):
            future = dcp.async_save(trainer.state(), checkpoint_id=folder / "dcp")
        future.result()
        shutil.rmtree(folder / "dcp")

    def load_file():
        with timed("torch.load + load_state_dict"):
            trainer.load(torch.load(file, weights_only=True))

    def restore():
        with timed("restore_into"):
            client.restore_into("bench:latest", trainer.state())

    trainer.train()
    pairs = [(save_file, save), (clone, save_async, dcp_async), (load_file, restore)]
    for sides in pairs:
        for side in sides if epoch % 2 else reversed(sides):
            side()
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=float, default=1, metavar="GIB", help="size of the state (default 1)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each side runs (default 5)")
    parser.add_argument("--dir", default="/dev/shm" if os.path.isdir("/dev/shm") else None,
                        help="folder for stores and files (default: memory-backed)")  # fmt: skip
    parser.add_argument("--json", metavar="FILE", help="write all figures there")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory(dir=args.dir) as name:
        folder = Path(name)
        store = dist.FileStore(str(folder / "rendezvous"), 1)
        dist.init_process_group("gloo", store=store, rank=0, world_size=1)
        trainer = Trainer(args.size)
        rounds = []
        for epoch in range(args.rounds + 1):
            with Server(ROOT / "build/bin/ckptd", folder / "store", folder / "ckptd.log") as server:
                client = ckptd.Client(server.address)
                client.save_async("bench-async", trainer.state(), epoch=0).result()  # its buffers are used again
                figures = measure(trainer, client, folder, epoch)
                del client
                server.stop()
            shutil.rmtree(folder / "store")
            if epoch > 0:  # the first warms up
                rounds.append(figures)
        dist.destroy_process_group()

    medians = {what: statistics.median(r[what] for r in rounds) for what in rounds[0]}
    print(f"{args.size:g} GiB of model and Adam's moments, {args.rounds} rounds, alternating; {os.cpu_count()} cores, "
          f"PyTorch {torch.__version__}; seconds\n")  # fmt: skip
    print(f"{'':40}{'median':>9}{'min':>9}{'max':>9}")
    for what, median in medians.items():
        values = [r[what] for r in rounds]
        print(f"{what:40}{median:9.3f}{min(values):9.3f}{max(values):9.3f}")
    print()
    ratios = {what: medians[a] / medians[b] for what, (a, b) in RATIOS.items()}
    for what, ratio in ratios.items():
        print(f"{what:60}{ratio:9.3f}")
    if args.json:
        Path(args.json).write_text(json.dumps({"rounds": rounds, "medians": medians, "ratios": ratios}, indent=1))


if __name__ == "__main__":
    main()
