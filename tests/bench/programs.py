"""The programs that are measured, as processes."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/harness"))
from server import Server  # noqa: E402

BIN = Path(os.environ.get("CKPT_BIN", ROOT / "build/bin"))
BENCH = BIN.parent / "bench"
TENSOR_KIB = 16 << 10  # of the state that floor_client and product make


def run(*words, **options):
    """Runs a program to its end and returns what it printed; ends the suite if it fails."""
    words = [str(word) for word in words]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False, **options)
    if done.returncode != 0:
        sys.exit(f"bench: {' '.join(words)}: exit {done.returncode}")
    return done.stdout


def find(program):
    """Where a program is; None if it is not installed. Debian keeps servers where only root looks for them."""
    return shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin")


def missing(result, program, package):
    """True, and noted, if a program is not installed."""
    if find(program):
        return False
    result.note(f"{program} is not installed (Debian package {package}): not measured")
    return True


class Ckptd:
    """A ckptd on a new store in `folder`, which goes with it."""

    def __init__(self, folder):
        self.store = folder / "store"
        self.server = Server(BIN / "ckptd", self.store, folder / "ckptd.log")

    def __enter__(self):
        self.server.start()
        return self

    def __exit__(self, *_):
        if self.server.stop() != 0:
            sys.exit(f"bench: ckptd failed:\n{self.server.log_tail()}")
        shutil.rmtree(self.store)

    def restart(self):
        if self.server.stop() != 0:
            sys.exit(f"bench: ckptd failed:\n{self.server.log_tail()}")
        self.server.start()

    @property
    def address(self):
        return self.server.address

    @property
    def pid(self):
        return self.server.process.pid

    def ctl(self, *words):
        return json.loads(run(BIN / "ckptctl", "--server", self.address, "--output", "json", *words))

    def written(self):
        """Bytes that its process has passed to file systems so far, and those that it made go to a disk."""
        lines = Path(f"/proc/{self.pid}/io").read_text().splitlines()
        counts = {name: int(value) for name, value in (line.split(": ") for line in lines)}
        return counts["wchar"], counts["write_bytes"]


@contextlib.contextmanager
def floor_server(folder):
    """Its address. Its files go with it."""
    data, address = folder / "floor", folder / "floor.address"
    data.mkdir()
    server = subprocess.Popen([BENCH / "floor_server", data, address], stdin=subprocess.PIPE)
    try:
        while not address.exists():
            if server.poll() is not None:
                sys.exit(f"bench: floor_server ended with {server.returncode}")
            time.sleep(0.01)
        yield address.read_text()
    finally:
        server.stdin.close()
        server.wait()
    address.unlink()
    shutil.rmtree(data)


def floor_client(what, address, mib, streams):
    """Seconds."""
    return float(run(BENCH / "floor_client", what, address, mib, streams))


def tensors_of(mib):
    """As words for product: a state of so many MiB, a multiple of 16."""
    return mib * 1024 // TENSOR_KIB, TENSOR_KIB


class Product:
    """A process of the C++ library: `product` with these words, ready to begin."""

    def __init__(self, *words):
        self.process = subprocess.Popen(
            [BENCH / "product", *map(str, words)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        if self.process.stdout.readline() != "ready\n":
            sys.exit(f"bench: product {' '.join(map(str, words))}: exit {self.process.wait()}")

    def begin(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def outcome(self):
        """What it came to, as product.cc says. It may still be at work, and compare."""
        line = self.process.stdout.readline()
        return json.loads(line) if line else self.wait()

    def wait(self):
        if self.process.wait() != 0:
            sys.exit(f"bench: product: exit {self.process.returncode}")

    def end(self):
        outcome = self.outcome()
        self.wait()
        return outcome

    def __call__(self):
        self.begin()
        return self.end()


def reset_peak(pid):
    """From now on peak_bytes counts anew."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_bytes(pid):
    """The most memory that a process had, what it has mapped included (VmHWM)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) << 10
    return 0
