"""The files of the project, as git tracks them."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def files(*patterns):
    """Paths, relative to ROOT, of tracked files that match git's patterns and are there."""
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--",
                             *patterns], capture_output=True, check=True, text=True).stdout
    return sorted({path for path in listed.split("\0") if path and (ROOT / path).is_file()})


def read(path):
    return (ROOT / path).read_text(encoding="utf-8", errors="replace")
