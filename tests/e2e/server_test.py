"""ckptd as a process: how it starts, how it ends, and that no client, however odd, costs the others more than its share.

usage: server_test.py BIN-DIR
"""

import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "harness"))
import state_file  # noqa: E402
from server import Ctl, Server  # noqa: E402

BIN = Path(sys.argv.pop(1))
MIB = 1 << 20


def ckptd(*words):
    return subprocess.run([BIN / "ckptd", *map(str, words)], capture_output=True, text=True, timeout=30)


def peak_mib(pid):
    """The most memory the process had, what it has mapped included."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmHWM")


class Fixture(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="ckpt-server-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.server = Server(BIN / "ckptd", self.folder / "store", self.folder / "ckptd.log")
        self.addCleanup(self.end)
        self.file = self.folder / "state.safetensors"

    def end(self):
        if self.server.process and self.server.process.poll() is None:
            self.server.kill()

    def ctl(self):
        return Ctl(BIN / "ckptctl", self.server.address)


class Start(Fixture):
    def test_what_is_stored_is_the_servers_alone(self):
        self.server.start()
        modes = {path: path.stat().st_mode & 0o077 for path in [self.server.data, *self.server.data.rglob("*")]}
        self.assertEqual(set(modes.values()), {0}, modes)
        self.assertEqual(self.server.log.with_suffix(".address").stat().st_mode & 0o777, 0o644)
        self.assertEqual(self.server.stop(), 0)

    def test_the_address_file_is_whole_and_says_where(self):
        seen, address = [], self.server.log.with_suffix(".address")
        stop = threading.Event()

        def watch():
            while not stop.is_set():
                if address.exists():
                    seen.append(address.read_text())

        watcher = threading.Thread(target=watch)
        watcher.start()
        self.server.start()
        stop.set()
        watcher.join()
        host, port = self.server.address.rsplit(":", 1)
        self.assertEqual(host, "127.0.0.1")
        self.assertEqual(set(seen) - {f"{self.server.address}\n"}, set())
        with socket.create_connection((host, int(port)), timeout=5):
            pass
        self.assertEqual(self.ctl()("runs"), [])
        self.assertEqual(list(self.folder.glob("*.tmp")), [])

    def test_a_second_server_is_kept_off_the_folder_and_the_port(self):
        self.server.start()
        second = ckptd("--data", self.server.data, "--listen", "127.0.0.1:0")
        self.assertEqual((second.returncode, second.stdout), (1, ""))
        self.assertIn("in use by another ckptd", second.stderr)
        second = ckptd("--data", self.folder / "other", "--listen", self.server.address)
        self.assertEqual(second.returncode, 1)
        self.assertIn(f"cannot listen on {self.server.address}", second.stderr)
        self.assertEqual(self.ctl()("runs"), [])

    def test_what_cannot_be_is_said(self):
        for host in ("0.0.0.0", "[::]", "128.0.0.1", "127.example.com", "127.0.0.1.example.com"):
            outside = ckptd("--data", self.folder / "a", "--listen", f"{host}:0")
            self.assertEqual(outside.returncode, 1)
            self.assertIn("--insecure", outside.stderr)
        for address in ("nonsense", ":0", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:99999", "127.0.0.1:-1", "127.0.0.1:7x"):
            refused = ckptd("--data", self.folder / "a", "--listen", address)
            self.assertEqual(refused.returncode, 1)
            self.assertIn(f"'{address}' is no HOST:PORT", refused.stderr)
        for words in ([], ["--data"], ["--data", ""], ["--data", self.folder / "a", "--lease-s", "0"], ["--data", self.folder / "a", "extra"]):
            self.assertEqual(ckptd(*words).returncode, 2, words)
        (self.folder / "a-file").write_text("")
        self.assertEqual(ckptd("--data", self.folder / "a-file", "--listen", "127.0.0.1:0").returncode, 1)
        told = ckptd("--data", self.folder / "b", "--listen", "127.0.0.1:0", "--address-file", self.folder / "no/such/file")
        self.assertEqual(told.returncode, 1)
        self.assertIn("address file", told.stderr)
        (self.folder / "a-folder").mkdir()
        told = ckptd("--data", self.folder / "b", "--listen", "127.0.0.1:0", "--address-file", self.folder / "a-folder")
        self.assertEqual(told.returncode, 1)
        self.assertIn("a-folder: Is a directory", told.stderr)
        self.assertEqual(list(self.folder.glob("*.tmp")), [])

    def test_loopback_needs_no_leave(self):
        for host in ("127.0.0.1", "127.1.2.3", "localhost"):
            with Server(BIN / "ckptd", self.folder / host, self.folder / "ckptd.log", f"{host}:0") as server:
                self.assertEqual(server.address.rsplit(":", 1)[0], host)

    def test_help_has_an_example(self):
        shown = ckptd("--help")
        self.assertEqual((shown.returncode, shown.stderr), (0, ""))
        self.assertIn("Example:\n  ckptd --data", shown.stdout)
        self.assertRegex(ckptd("--version").stdout, r"^ckptd \d+\.\d+\.\d+\n$")


class Stop(Fixture):
    def saving(self):
        """Starts a server and a save, and returns when some of the save is on disk."""
        self.server.start()
        state_file.write_random(self.file, 32, 8 * MIB)
        saving = self.ctl().start("save", "run", self.file, "--epoch", 1)
        packs = self.server.data / "packs"
        while sum(p.stat().st_size for p in packs.glob("*/*.pack")) < 16 * MIB:
            self.assertIsNone(saving.poll(), "the save ended before it was looked at")
            time.sleep(0.002)
        return saving

    def restored(self):
        self.ctl()("restore", "run@1", self.folder / "restored.safetensors")
        self.assertEqual(state_file.digests(self.folder / "restored.safetensors"), state_file.digests(self.file))

    def test_sigterm_lets_a_running_save_finish(self):
        saving = self.saving()
        self.assertEqual(self.server.stop(), 0)
        _, err = saving.communicate(timeout=60)
        self.assertEqual(saving.returncode, 0, err)
        self.server.start()
        self.restored()

    def test_a_save_that_is_cut_off_by_the_end_of_the_grace_goes_on_with_the_next_server(self):
        self.server.words = ("--grace-s", "0")
        saving = self.saving()
        saving.send_signal(signal.SIGSTOP)
        self.assertEqual(self.server.stop(), 0)
        saving.send_signal(signal.SIGCONT)
        self.server.start()
        _, err = saving.communicate(timeout=60)
        self.assertEqual(saving.returncode, 0, err)
        self.restored()

    def test_an_idle_server_ends_at_once_and_starts_again(self):
        for signal_number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            self.server.start()
            self.assertEqual(self.server.stop(timeout=10, with_signal=signal_number), 0)
            self.assertFalse(self.server.address_file.exists())


    def test_a_hangup_that_is_ignored_is(self):
        self.server.start(preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
        self.server.process.send_signal(signal.SIGHUP)
        time.sleep(0.3)
        self.assertEqual(self.ctl()("runs"), [])
        self.assertEqual(self.server.stop(), 0)

    def test_a_catalog_that_is_gone_is_no_empty_store(self):
        self.server.start()
        state_file.write_random(self.file, 1, MIB)
        self.ctl()("save", "run", self.file, "--epoch", 1)
        self.assertEqual(self.server.stop(), 0)
        shutil.rmtree(self.server.data / "catalog")
        refused = ckptd("--data", self.server.data, "--listen", "127.0.0.1:0")
        self.assertEqual(refused.returncode, 1)
        self.assertIn("lacks what was on disk before", refused.stderr)
        self.server.words = ("--accept-loss",)
        self.server.start()
        self.assertEqual(self.ctl()("runs"), [])
        self.assertIn(": accepted", self.server.log_tail())
        self.ctl()("save", "run", self.file, "--epoch", 1)
        self.assertEqual(self.server.stop(), 0)
        self.server.words = ()
        self.server.start()
        self.assertEqual([run["run"] for run in self.ctl()("runs")], ["run"])


class Load(Fixture):
    def test_memory_is_bounded_whatever_the_size_of_a_save(self):
        self.server.start()
        state_file.write_random(self.file, 128, 8 * MIB)
        ctl = self.ctl()
        ctl("save", "run", self.file, "--epoch", 1)
        ctl("restore", "run@1", self.folder / "restored.safetensors")
        client_mib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        server_mib = peak_mib(self.server.process.pid)
        print(f"1 GiB saved and restored: ckptd {server_mib:.0f} MiB, ckptctl {client_mib:.0f} MiB", file=sys.stderr)
        self.assertLess(server_mib, 512)
        self.assertLess(client_mib, 256)

    def test_a_client_that_stalls_holds_nobody_up(self):
        self.server.start()
        state_file.write_random(self.file, 16, 8 * MIB)
        ctl = self.ctl()
        ctl("save", "run", self.file, "--epoch", 1)
        stalled = [ctl.start("restore", "run@1", self.folder / f"stalled-{i}.safetensors") for i in range(4)]
        stalled += [ctl.start("save", f"stalled-{i}", self.file, "--epoch", 1) for i in range(4)]
        for process in stalled:
            process.send_signal(signal.SIGSTOP)
        state_file.write_random(self.file, 8, 8 * MIB)
        for epoch in (2, 3):
            ctl("save", "run", self.file, "--epoch", epoch)
        ctl("restore", "run@2", self.folder / "restored.safetensors")
        self.assertLess(peak_mib(self.server.process.pid), 512)
        for process in stalled:  # dead peers
            process.kill()
            process.communicate()
        self.assertEqual(self.server.stop(), 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
