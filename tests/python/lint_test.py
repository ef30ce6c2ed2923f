"""The package is typed and tidy: mypy --strict and ruff, as pyproject.toml sets them."""

import subprocess
import sys
import unittest
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "client/python"


class Lint(unittest.TestCase):
    def passes(self, *words):
        done = subprocess.run([sys.executable, "-m", *words], cwd=PACKAGE, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_types(self):
        self.passes("mypy", "--cache-dir=/dev/null", "ckptd")

    def test_rules(self):
        self.passes("ruff", "check", "--no-cache", "--quiet", ".")

    def test_layout(self):
        self.passes("ruff", "format", "--no-cache", "--check", ".")


if __name__ == "__main__":
    unittest.main()
