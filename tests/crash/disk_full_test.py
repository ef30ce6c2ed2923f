"""The disk runs full: saves say so, nothing that was stored is lost, and when there is room they succeed.

One client fills it, then several at once, then another program while nobody saves; restores go on all the time.

usage: disk_full_test.py BIN-DIR
"""

import itertools
import os
import random
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "harness"))
import state_file  # noqa: E402
from loop_mount import LoopMount, why_not  # noqa: E402
from server import CommandFailed, Ctl, Server  # noqa: E402

DISK_MIB = 768
BALLAST_MIB = 128  # each of two
STATE_MIB = 48
CLIENTS = 4
LEASE_S = 2


def make_file(path, rng, mib=STATE_MIB):
    state_file.write(path, {f"model.{i}": rng.randbytes(1 << 20) for i in range(mib)})
    return state_file.digests(path)


class Saved:
    """What was acknowledged: {epoch: digests}."""

    def __init__(self, ctl, folder):
        self.ctl, self.folder = ctl, folder
        self.epochs = {}
        self.numbers = itertools.count(1)

    def try_save(self, path, digests):
        """True if it was saved, False if the disk was full."""
        epoch = next(self.numbers)
        try:
            self.ctl("save", "run", path, "--epoch", epoch)
        except CommandFailed as error:
            assert error.exit_code == 1, error
            assert "DISK_FULL" in error.stderr, error
            return False
        self.epochs[epoch] = digests
        return True

    def check(self):
        restored = Path(self.folder, "restored.safetensors")
        assert {entry["epoch"] for entry in self.ctl("list", "run")} == set(self.epochs)
        for epoch, digests in self.epochs.items():
            self.ctl("restore", f"run@{epoch}", restored, "--force")
            assert state_file.digests(restored) == digests, f"run@{epoch} is not what was saved"


class Restoring:
    """Restores one checkpoint again and again until the block ends; every one must succeed."""

    def __init__(self, saved, epoch):
        self.saved, self.epoch = saved, epoch
        self.done, self.error = 0, None
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        path = Path(self.saved.folder, "restoring.safetensors")
        try:
            while not self.over.is_set():
                self.saved.ctl("restore", f"run@{self.epoch}", path, "--force")
                assert state_file.digests(path) == self.saved.epochs[self.epoch], "a restore gave other bytes"
                self.done += 1
        except Exception as error:  # told by __exit__, on the thread that can fail the test
            self.error = error

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, kind, *_):
        self.over.set()
        self.thread.join()
        if kind is None:
            assert self.error is None, self.error
            assert self.done > 0, "not one restore ended"


def fill_by_saves(saved, rng, clients):
    """Saves from so many clients at once until each was refused."""
    counts = [0] * clients
    errors = []
    lock = threading.Lock()

    def save_until_full(client):
        try:
            path = Path(saved.folder, f"client{client}.safetensors")
            for _ in range(DISK_MIB // STATE_MIB):
                with lock:
                    digests = make_file(path, rng)
                if not saved.try_save(path, digests):
                    return
                counts[client] += 1
            raise AssertionError("the disk never ran full")
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=save_until_full, args=(client,)) for client in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors
    return sum(counts)


def fill_to_the_last_byte(path):
    """What another program does that knows no limit."""
    block = os.urandom(1 << 20)
    with open(path, "wb", buffering=0) as file:
        try:
            while True:
                file.write(block)
        except OSError:
            pass


def leave_unfinished(ctl, path, epoch, server):
    """A save that is cut off after it began: its session ends, in the catalog, when the lease does."""
    saving = ctl.start("save", "run", path, "--epoch", epoch)
    packs = server.data / "packs"
    before = sum(pack.stat().st_size for pack in packs.rglob("*.pack"))
    while saving.poll() is None and sum(pack.stat().st_size for pack in packs.rglob("*.pack")) == before:
        time.sleep(0.001)
    saving.kill()
    saving.communicate()
    return saving.returncode != 0


def wait_for(condition, what, timeout=60):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def alive(server):
    assert server.process.poll() is None, "ckptd ended"


def filled_by_one_client(server, saved, disk, rng):
    count = fill_by_saves(saved, rng, 1)
    assert count > 0, "not even one save fitted: the test shows nothing"
    alive(server)
    saved.check()
    server.kill()  # and it must start on a full disk
    server.start()
    saved.check()
    (disk.path / "ballast0").unlink()
    path = Path(saved.folder, "client0.safetensors")
    assert saved.try_save(path, state_file.digests(path)), "there is room again"


def filled_by_many_clients(server, saved, disk, rng):
    fill_by_saves(saved, rng, CLIENTS)
    alive(server)
    saved.check()
    (disk.path / "ballast1").unlink()


def filled_by_another_program(server, saved, disk, rng):
    """A session ends and packs are sealed while the disk is full and nobody saves."""
    path = Path(saved.folder, "unfinished.safetensors")
    make_file(path, rng)
    cut = any(leave_unfinished(saved.ctl, path, 1000 + i, server) for i in range(5))
    assert cut, "no save was cut off: the test shows nothing"
    reserve = server.data / "reserve"
    assert reserve.exists()
    with Restoring(saved, 1):
        fill_to_the_last_byte(disk.path / "filler")
        wait_for(lambda: not reserve.exists(), "the reserve is not given up")
        wait_for(lambda: "was not finished: its session" in server.log_tail(), "the session did not end")
        alive(server)
        saved.check()

    # What was given up is eaten too. Then a write to the catalog may fail: ckptd ends at once, and recovers.
    for i in range(5):
        fill_to_the_last_byte(disk.path / f"filler{i}")
        if server.process.poll() is None:
            assert not saved.try_save(path, {})
    time.sleep(2)  # two rounds of its maintenance
    survived = server.process.poll() is None
    for file in disk.path.glob("filler*"):
        file.unlink()
    if not survived:
        assert server.process.returncode == 1, server.process.returncode
        assert "a write to the catalog failed" in server.log_tail()
        server.start()
    wait_for(reserve.exists, "the reserve is not taken again")
    digests = make_file(path, rng, 8)
    assert saved.try_save(path, digests), "there is room again"
    saved.check()
    return survived


def main():
    reason = why_not()
    if reason:
        print("skipped:", reason)
        return 77
    binaries = Path(sys.argv[1])
    rng = random.Random(1)
    with tempfile.TemporaryDirectory() as folder, LoopMount(folder, DISK_MIB) as disk, \
            Server(binaries / "ckptd", disk.path / "store", Path(folder, "ckptd.log"),
                   words=("--lease-s", str(LEASE_S))) as server:
        try:
            for i in range(2):
                (disk.path / f"ballast{i}").write_bytes(bytes(BALLAST_MIB << 20))
            saved = Saved(Ctl(binaries / "ckptctl", server.address), folder)
            small = Path(folder, "small.safetensors")
            assert saved.try_save(small, make_file(small, rng, 4))
            with Restoring(saved, 1) as restoring:
                filled_by_one_client(server, saved, disk, rng)
                filled_by_many_clients(server, saved, disk, rng)
            survived = filled_by_another_program(server, saved, disk, rng)
        except BaseException:
            print(server.log_tail(), file=sys.stderr)
            raise
        finally:
            if server.process.poll() is None:
                server.kill()
    print(f"{len(saved.epochs)} saves and {restoring.done} restores; saves were refused with DISK_FULL, and succeeded when "
          f"there was room again; with all eaten up ckptd {'went on' if survived else 'ended and recovered'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
