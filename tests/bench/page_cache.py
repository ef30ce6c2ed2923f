"""Reads that come from the disk."""

import os
from pathlib import Path

HOW = "cold: the files were dropped from the page cache with posix_fadvise(DONTNEED) after a sync"


def file_system(folder):
    """The kind of the one that the folder is on: "ext4"."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    inside = [(path, kind) for path, kind in mounts if Path(folder).resolve().is_relative_to(path)]
    return max(inside, key=lambda mount: len(mount[0]))[1]


def is_memory(folder):
    """Whether what is in the folder is nowhere but in memory, so that nothing can be cold."""
    return file_system(folder) in ("tmpfs", "ramfs")


def files_of(path):
    return [file for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file()]


def drop(path):
    """Takes a file, or all files of a folder, out of the page cache."""
    os.sync()
    for file in files_of(path):
        with open(file, "rb") as stream:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def load(path):
    """Brings a file, or all files of a folder, into the page cache."""
    for file in files_of(path):
        with open(file, "rb", buffering=0) as stream:
            while stream.read(1 << 20):
                pass
