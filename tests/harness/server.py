"""ckptd and ckptctl as processes under test."""

import json
import signal
import subprocess
import time
from pathlib import Path


class CommandFailed(Exception):
    def __init__(self, command, done):
        super().__init__(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stderr}")
        self.exit_code = done.returncode
        self.stderr = done.stderr


class Ctl:
    """Runs ckptctl against one server."""

    def __init__(self, program, address):
        self.base = [str(program), "--server", address, "--output", "json"]

    def start(self, *words):
        return subprocess.Popen([*self.base, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def __call__(self, *words, timeout=120):
        """What the command prints, read as JSON. Raises CommandFailed."""
        command = [*self.base, *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
        if done.returncode != 0:
            raise CommandFailed(command, done)
        return json.loads(done.stdout)


class Server:
    """ckptd on a folder, with `words` as further options. Its log goes to `log`, appended over restarts."""

    def __init__(self, program, data, log, listen="127.0.0.1:0", words=()):
        self.program, self.data, self.log, self.listen, self.words = program, Path(data), Path(log), listen, words
        self.address_file = self.log.with_suffix(".address")
        self.process = None
        self.address = None

    def start(self, timeout=60, preexec_fn=None):
        address_file = self.address_file
        address_file.unlink(missing_ok=True)
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen([str(self.program), "--data", str(self.data), "--listen", self.listen,
                                             "--address-file", str(address_file), *self.words],
                                            stdout=log, stderr=log, preexec_fn=preexec_fn)
        deadline = time.monotonic() + timeout
        while not address_file.exists():
            if self.process.poll() is not None:
                raise RuntimeError(f"ckptd ended with {self.process.returncode}:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise RuntimeError(f"ckptd is not ready after {timeout} s:\n{self.log_tail()}")
            time.sleep(0.01)
        self.address = address_file.read_text().strip()
        self.listen = self.address  # the same one after a restart
        return self

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self, timeout=60, with_signal=signal.SIGTERM):
        """The exit code."""
        self.process.send_signal(with_signal)
        return self.process.wait(timeout)

    def log_tail(self):
        return self.log.read_text(errors="replace")[-4000:]

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        if self.process and self.process.poll() is None:
            self.kill()
