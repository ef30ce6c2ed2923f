"""The disk runs full: the save says so, nothing that was stored is lost, and when there is room it succeeds.

usage: disk_full_test.py BIN-DIR
"""

import random
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "harness"))
import state_file  # noqa: E402
from loop_mount import LoopMount, why_not  # noqa: E402
from server import CommandFailed, Ctl, Server  # noqa: E402

DISK_MIB = 640
BALLAST_MIB = 128
STATE_MIB = 48


def make_file(path, rng):
    state_file.write(path, {f"model.{i}": rng.randbytes(1 << 20) for i in range(STATE_MIB)})
    return state_file.digests(path)


def check(ctl, saved, folder):
    restored = Path(folder, "restored.safetensors")
    assert {entry["epoch"] for entry in ctl("list", "run")} == set(saved)
    for epoch, digests in saved.items():
        ctl("restore", f"run@{epoch}", restored, "--force")
        assert state_file.digests(restored) == digests, f"run@{epoch} is not what was saved"


def fill(ctl, path, rng):
    """Saves until the disk is full: what was saved, and the epoch that was refused."""
    saved = {}
    for epoch in range(1, DISK_MIB // STATE_MIB + 1):
        digests = make_file(path, rng)
        try:
            ctl("save", "run", path, "--epoch", epoch)
        except CommandFailed as error:
            assert error.exit_code == 1, error
            assert "DISK_FULL" in error.stderr, error
            return saved, epoch
        saved[epoch] = digests
    raise AssertionError("the disk never ran full")


def main():
    reason = why_not()
    if reason:
        print("skipped:", reason)
        return 77
    binaries = Path(sys.argv[1])
    rng = random.Random(1)
    with tempfile.TemporaryDirectory() as folder, LoopMount(folder, DISK_MIB) as disk, \
            Server(binaries / "ckptd", disk.path / "store", Path(folder, "ckptd.log")) as server:
        try:
            ballast = disk.path / "ballast"
            ballast.write_bytes(bytes(BALLAST_MIB << 20))
            ctl = Ctl(binaries / "ckptctl", server.address)
            path = Path(folder, "state.safetensors")
            saved, refused = fill(ctl, path, rng)
            assert saved, "not even one save fitted: the test shows nothing"
            assert server.process.poll() is None, "ckptd ended"
            check(ctl, saved, folder)

            server.kill()  # and it must start on a full disk
            server.start()
            check(ctl, saved, folder)

            ballast.unlink()
            ctl("save", "run", path, "--epoch", refused)
            saved[refused] = state_file.digests(path)
            check(ctl, saved, folder)
        except BaseException:
            print(server.log_tail(), file=sys.stderr)
            raise
        finally:
            if server.process.poll() is None:
                server.kill()
    print(f"refused with DISK_FULL after {len(saved) - 1} saves; there was room again, and it succeeded")
    return 0


if __name__ == "__main__":
    sys.exit(main())
