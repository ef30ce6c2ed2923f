"""The installed client library, found by find_package(ckpt) and used by a project outside the tree."""

import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "harness"))
from server import Server  # noqa: E402

CMAKE, BUILD, CKPTD, *OPTIONS = sys.argv[1:]
del sys.argv[1:]


class Installed(unittest.TestCase):
    def test_a_project_outside_the_tree_saves_and_restores(self):
        with tempfile.TemporaryDirectory(prefix="ckpt-install-") as name:
            folder = Path(name)
            prefix, build, file = folder / "prefix", folder / "build", folder / "model.pth"
            run(CMAKE, "--install", BUILD, "--component", "client", "--prefix", prefix)
            for header in ("client.h", "formats.h", "state.h", "status.h", "v1/state.pb.h", "v1/checkpoint.pb.h"):
                self.assertTrue((prefix / "include/ckpt" / header).exists(), header)
            run(CMAKE, "-S", HERE / "consumer", "-B", build, f"-DCMAKE_PREFIX_PATH={prefix}", *OPTIONS)
            run(CMAKE, "--build", build)
            server = Server(CKPTD, folder / "data", folder / "log").start()
            try:
                run(build / "consumer", server.address, file)
            finally:
                server.kill()
            self.assertGreater(file.stat().st_size, 20000)


def run(*command):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))}: exit {done.returncode}\n{done.stdout}{done.stderr}")


if __name__ == "__main__":
    unittest.main()
