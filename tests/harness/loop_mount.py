"""A small ext4 file system of its own, for tests that fill it or cut its power. Needs root and loop devices."""

import fcntl
import os
import subprocess
import tempfile
from pathlib import Path

# linux/ext4: _IOR('X', 125, __u32); no flush of the journal, as when the power goes.
EXT4_IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = 2


def run(*command):
    return subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout


class LoopMount:
    def __init__(self, folder, size_mib):
        self.image, self.path = Path(folder, "disk.img"), Path(folder, "mnt")
        self.path.mkdir()
        with open(self.image, "wb") as image:
            image.truncate(size_mib << 20)
        run("mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", self.image)
        self.mounted = False

    def mount(self):
        run("mount", "-o", "loop", self.image, self.path)
        self.mounted = True

    def unmount(self):
        run("umount", self.path)
        self.mounted = False

    def cut_power(self):
        """From now on nothing reaches the disk, and what has not been synced is gone."""
        folder = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(folder, EXT4_IOC_SHUTDOWN, NO_LOG_FLUSH.to_bytes(4, "little"))
        finally:
            os.close(folder)

    def __enter__(self):
        self.mount()
        return self

    def __exit__(self, *_):
        if self.mounted:
            self.unmount()


def why_not():
    """Why this machine cannot do it; None if it can."""
    if os.geteuid() != 0:
        return "a file system can be mounted by root only"
    try:
        with tempfile.TemporaryDirectory() as folder, LoopMount(folder, 16):
            return None
    except (OSError, subprocess.CalledProcessError) as error:
        return f"this machine mounts no loop device: {error} {getattr(error, 'stderr', '')}"
