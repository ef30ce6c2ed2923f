"""The power goes, at random moments of saves and right after an OK: what was acknowledged must be there and whole.

ckptd's store is on an ext4 of its own whose power is cut (EXT4_IOC_SHUTDOWN without a flush): whatever was not synced is
gone. The bytes of a file that is deliberately not synced prove that each cut was one; its name may come to the disk
with what ckptd syncs of its own at the same time.

usage: power_loss_test.py BIN-DIR   (CKPT_SEED: to repeat one)
"""

import os
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "harness"))
import state_file  # noqa: E402
from loop_mount import LoopMount, why_not  # noqa: E402
from server import Ctl, Server  # noqa: E402

CUTS = 6


def make_file(path, rng):
    state_file.write(path, {f"model.{i}": rng.randbytes(rng.choice((10, 5000, 700_000, 2 << 20))) for i in range(6)})
    return state_file.digests(path)


def lose_power(server, disk, durable_is_synced):
    if durable_is_synced:  # the kernel may come round to it, with or without the log: it must never say too much
        with open(disk.path / "store/durable", "rb") as durable:
            os.fsync(durable.fileno())
    not_synced = disk.path / "not-synced"
    not_synced.unlink(missing_ok=True)
    not_synced.write_bytes(b"gone" * 1000)
    disk.cut_power()
    server.kill()
    disk.unmount()
    disk.mount()
    left = not_synced.read_bytes() if not_synced.exists() else b""
    assert b"gone" not in left, "the power was not really cut: the test shows nothing"


def check(ctl, acknowledged, cut_short, folder):
    restored = Path(folder, "restored.safetensors")
    listed = {entry["epoch"] for entry in ctl("list", "run")} if acknowledged else set()
    assert set(acknowledged) <= listed <= set(acknowledged) | set(cut_short), (sorted(acknowledged), sorted(listed))
    for epoch in listed:
        ctl("restore", f"run@{epoch}", restored, "--force")
        wanted = acknowledged.get(epoch) or cut_short[epoch]
        assert state_file.digests(restored) == wanted, f"run@{epoch} is not what was saved"


def main():
    reason = why_not()
    if reason:
        print("skipped:", reason)
        return 77
    binaries = Path(sys.argv[1])
    seed = int(os.environ.get("CKPT_SEED", 0)) or random.SystemRandom().randrange(1 << 30)
    print(f"CKPT_SEED={seed}", flush=True)
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder, LoopMount(folder, 1024) as disk, \
            Server(binaries / "ckptd", disk.path / "store", Path(folder, "ckptd.log")) as server:
        ctl = Ctl(binaries / "ckptctl", server.address)
        acknowledged, cut_short, epoch = {}, {}, 0
        path = Path(folder, "state.safetensors")
        try:
            for cut in range(CUTS):
                epoch += 1
                digests = make_file(path, rng)
                ctl("save", "run", path, "--epoch", epoch)
                acknowledged[epoch] = digests
                if cut % 2:  # in the middle of the next save, else right after this one's OK
                    epoch += 1
                    cut_short[epoch] = make_file(path, rng)
                    saving = ctl.start("save", "run", path, "--epoch", epoch)
                    time.sleep(rng.random() * 0.15)
                    lose_power(server, disk, cut % 3 == 0)
                    saving.kill()
                    saving.communicate()
                else:
                    lose_power(server, disk, cut % 3 == 0)
                server.start()
                check(ctl, acknowledged, cut_short, folder)
        except BaseException:
            print(server.log_tail(), file=sys.stderr)
            raise
        finally:
            if server.process.poll() is None:
                server.kill()
    print(f"{CUTS} cuts, {len(acknowledged)} saves acknowledged, all there and whole")
    return 0


if __name__ == "__main__":
    sys.exit(main())
