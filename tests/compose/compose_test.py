"""docker-compose.yml as a user runs it: built, started, saved into and restored from, restarted, made anew.

Needs a container engine (docker info answers) and docker-compose or docker's own compose.
usage: compose_test.py CKPTCTL
"""

import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/harness"))
import state_file  # noqa: E402
from server import Ctl  # noqa: E402


def output(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Compose:
    """One project of docker-compose.yml, under a name of its own."""

    def __init__(self, port):
        program = ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]
        self.base = [*program, "--project-name", f"ckptd-test-{os.getpid()}", "--file", str(ROOT / "docker-compose.yml")]
        self.environment = {**os.environ, "CKPT_PORT": str(port)}

    def __call__(self, *words):
        done = subprocess.run([*self.base, *words], check=True, env=self.environment, stdout=subprocess.PIPE, text=True)
        return done.stdout.strip()

    def inspect(self, what):
        return output("docker", "inspect", "--format", what, self("ps", "-a", "-q", "ckptd"))

    def wait_healthy(self):
        deadline = time.monotonic() + 90
        while (health := self.inspect("{{.State.Health.Status}}")) != "healthy":
            if time.monotonic() > deadline:
                raise AssertionError(f"the container is {health}:\n{self('logs', 'ckptd')}")
            time.sleep(0.5)


def check(compose, ctl, folder):
    file, restored = Path(folder, "state.safetensors"), Path(folder, "restored.safetensors")
    rng = random.Random(1)
    state_file.write(file, {f"model.{i}": rng.randbytes(1 << 20) for i in range(8)})

    def step(*words):
        print("docker-compose", *words, flush=True)
        compose(*words)

    def assert_restores():
        ctl("restore", "demo/run:latest", restored, "--force")
        assert state_file.digests(restored) == state_file.digests(file), "what came back is not what was saved"

    step("up", "-d", "--build")
    compose.wait_healthy()
    assert ctl("runs") == []
    ctl("save", "demo/run", file, "--epoch", 1, "--metric", "val_loss=0.5")
    assert_restores()

    container = compose("ps", "-a", "-q", "ckptd")
    assert output("docker", "exec", container, "id", "-u") == "7070", "it runs as root"
    published = output("docker", "port", container, "7070")
    assert published.startswith("127.0.0.1:") and "\n" not in published, f"it is published on {published}"
    image = compose.inspect("{{.Image}}")
    print("image:", int(output("docker", "image", "inspect", "--format", "{{.Size}}", image)) >> 20, "MiB", flush=True)

    step("restart")
    compose.wait_healthy()
    assert_restores()

    step("kill")  # SIGKILL
    step("up", "-d")
    compose.wait_healthy()
    assert_restores()

    step("stop")
    assert compose.inspect("{{.State.ExitCode}}") == "0", "it did not end well on SIGTERM"
    step("down")  # the container is gone, the volume is not
    step("up", "-d")
    compose.wait_healthy()
    assert [run["run"] for run in ctl("runs")] == ["demo/run"]
    assert_restores()


def main():
    if not shutil.which("docker") or subprocess.run(["docker", "info"], capture_output=True).returncode != 0:
        print("skipped: no container engine answers (docker info)")
        return 77
    port = free_port()
    compose = Compose(port)
    with tempfile.TemporaryDirectory() as folder:
        try:
            check(compose, Ctl(sys.argv[1], f"127.0.0.1:{port}"), folder)
        except BaseException:
            subprocess.run([*compose.base, "logs", "--no-color"], env=compose.environment, check=False)
            raise
        finally:
            compose("down", "--volumes", "--remove-orphans")
    return 0


if __name__ == "__main__":
    sys.exit(main())
