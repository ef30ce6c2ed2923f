"""The package is typed and tidy: mypy --strict and ruff, as pyproject.toml sets them."""

import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import ckptd

PACKAGE = Path(__file__).resolve().parents[2] / "client/python"


class Lint(unittest.TestCase):
    def passes(self, *words):
        done = subprocess.run([sys.executable, "-m", *words], cwd=PACKAGE, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_types(self):
        self.passes("mypy", "--cache-dir=/dev/null", "ckptd")

    def test_reference(self):
        """Every public name is in the reference, with a docstring, and what docstrings refer to is there."""
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run([sys.executable, "-m", "pdoc", "--docformat", "google", "--output-directory", folder, "ckptd", "ckptd.dcp", "ckptd.torch"],
                                  capture_output=True, text=True, check=True)  # fmt: skip
            self.assertEqual(done.stderr, "")
            page = "".join((Path(folder) / name).read_text() for name in ("ckptd.html", "ckptd/dcp.html", "ckptd/torch.html"))
        for name in (*ckptd.__all__, "Client.load_into", "Client.save_async", "capture", "LoadReport", *ckptd.dcp.__all__):
            self.assertIn(f'id="{name}"', page)

    def test_rules(self):
        self.passes("ruff", "check", "--no-cache", "--quiet", ".")

    def test_layout(self):
        self.passes("ruff", "format", "--no-cache", "--check", ".")


if __name__ == "__main__":
    unittest.main()
