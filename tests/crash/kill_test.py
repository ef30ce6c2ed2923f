"""ckptd is killed at random moments while clients save; nothing that was acknowledged may be lost or torn.

Two clients save one checkpoint after the other. ckptd is killed with SIGKILL again and again, and started again on the same
address: each save goes on where it was and must end well. Now and then a client is killed too: its save may then be there
or not, but only as a whole. In the end the store must hold exactly what was acknowledged, byte for byte.

usage: kill_test.py --bin DIR [--minutes N | --kills N] [--seed N]
"""

import argparse
import json
import os
import random
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "harness"))
import state_file  # noqa: E402
from server import Ctl, Server  # noqa: E402


class Client(threading.Thread):
    """Saves epochs of one run until told to stop, and remembers what became of each."""

    def __init__(self, name, ctl, folder, seed):
        super().__init__(name=name)
        self.ctl, self.folder, self.random = ctl, Path(folder), random.Random(seed)
        self.committed = {}  # (epoch, version): digests of the file
        self.unknown = {}    # epoch: digests of the file whose save was killed
        self.stopping = threading.Event()
        self.error = None
        self.tensors = {}

    def run(self):
        epoch = 0
        try:
            while not self.stopping.is_set():
                epoch += 1
                self.save(epoch)
        except Exception as error:  # reported by the main thread
            self.error = error

    def train(self):
        """Changes some of the tensors, as an epoch does: the rest is cited."""
        for i in range(8):
            name = f"model.{i}"
            if name not in self.tensors or self.random.random() < 0.5:
                size = self.random.choice((0, 100, 4096, 70_000, (1 << 20) + 1, 3 << 20))
                self.tensors[name] = self.random.randbytes(size)

    def save(self, epoch):
        self.train()
        path = self.folder / f"{self.name}.safetensors"
        state_file.write(path, self.tensors)
        digests = state_file.digests(path)
        process = self.ctl.start("save", self.name, path, "--epoch", epoch, "--metric", f"loss={1 / epoch}")
        if self.random.random() < 0.1:
            time.sleep(self.random.random() * 0.2)
            process.kill()
        out, err = process.communicate(timeout=120)
        if process.returncode == 0:
            saved = json.loads(out)
            self.committed[epoch, saved["version"]] = digests
        elif process.returncode < 0:
            self.unknown[epoch] = digests
        else:
            raise AssertionError(f"the save of {self.name}@{epoch} failed: exit {process.returncode}\n{err}")


def check(ctl, client, folder):
    """The store holds of the client's run what it must, byte for byte, and nothing else."""
    listed = {(entry["epoch"], entry["version"]) for entry in ctl("list", client.name)}
    lost = set(client.committed) - listed
    assert not lost, f"{client.name}: acknowledged and gone: {sorted(lost)}"
    path = Path(folder, "restored.safetensors")
    for epoch, version in sorted(listed):
        wanted = client.committed.get((epoch, version)) or client.unknown.get(epoch)
        assert wanted is not None, f"{client.name}@{epoch}#{version} is visible, and nobody saved it"
        ctl("restore", f"{client.name}@{epoch}#{version}", path, "--force")
        assert state_file.digests(path) == wanted, f"{client.name}@{epoch}#{version} is not what was saved"
    return len(listed)


def torture(args, folder):
    rng = random.Random(args.seed)
    with Server(args.bin / "ckptd", Path(folder, "store"), Path(folder, "ckptd.log")) as server:
        ctl = Ctl(args.bin / "ckptctl", server.address)
        clients = [Client(f"run-{i}", ctl, folder, args.seed * 1000 + i) for i in range(2)]
        for client in clients:
            client.start()
        kills, end = 0, time.monotonic() + args.minutes * 60
        try:
            while (time.monotonic() < end if args.minutes else kills < args.kills) and not any(c.error for c in clients):
                time.sleep(rng.random() * 1.5)
                server.kill()
                kills += 1
                server.start()
        finally:
            for client in clients:
                client.stopping.set()
            for client in clients:
                client.join()
        for client in clients:
            if client.error:
                raise client.error
        saved = sum(len(client.committed) for client in clients)
        assert saved >= 2, "the clients saved next to nothing: the test shows nothing"
        kept = sum(check(ctl, client, folder) for client in clients)
        assert server.stop() == 0, "ckptd did not end well"
        server.start()
        assert kept == sum(check(ctl, client, folder) for client in clients)
    print(f"{kills} kills, {saved} saves acknowledged, {sum(len(c.unknown) for c in clients)} clients killed, "
          f"{kept} checkpoints there and whole")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=0)
    parser.add_argument("--kills", type=int, default=8)
    parser.add_argument("--seed", type=int, default=int(os.environ.get("CKPT_SEED", 0)) or random.SystemRandom().randrange(1 << 30))
    args = parser.parse_args()
    print(f"CKPT_SEED={args.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        try:
            torture(args, folder)
        except BaseException:
            log = Path(folder, "ckptd.log")
            print(log.read_text(errors="replace")[-4000:] if log.exists() else "", file=sys.stderr)
            raise


if __name__ == "__main__":
    main()
