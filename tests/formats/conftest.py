"""Runs copy_state_file on files of real PyTorch, and compares what comes out."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "harness"))  # same_state


class Copier:
    """Calls copy_state_file IN OUT; the pieces' order comes from CKPT_SEED."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.tool = os.environ["CKPT_COPY_STATE_FILE"]
        self.seed = os.environ.setdefault("CKPT_SEED", str(int.from_bytes(os.urandom(4), "little")))
        print(f"CKPT_SEED={self.seed}")
        self.peak_mib = 0  # of the last call

    def run(self, source, target, *options):
        done = subprocess.run(
            [self.tool, *options, str(source), str(target)], capture_output=True, text=True, errors="replace", timeout=100
        )
        self.peak_mib = int(done.stdout or 0)
        return done

    def __call__(self, source, target, *options):
        done = self.run(source, target, *options)
        assert done.returncode == 0, done.stderr
        return target

    def refuse(self, source, *options, target="refused.pth"):
        """Asserts that the file is refused in an orderly way, without a trace of a target, and returns why."""
        target = self.folder / target
        done = self.run(source, target, *options)
        assert done.returncode == 1, (done.returncode, done.stderr)
        assert not target.exists()
        assert not [p for p in self.folder.iterdir() if p.name.endswith(".tmp")]
        return done.stderr


@pytest.fixture
def copy(tmp_path):
    return Copier(tmp_path)
