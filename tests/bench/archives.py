"""restic and borg, which keep every piece of a file once: repositories in a folder, nothing compressed."""

import os
import shutil

from programs import missing, run


class Archive:
    """A repository in the folder, and how the program is called."""

    def __init__(self, folder):
        self.folder = folder / f"{self.name}-repository"

    def new(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        self.init()

    def size_bytes(self):
        return sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())


class Restic(Archive):
    name = "restic"

    def call(self, *words, **options):
        run("restic", "--repo", self.folder, "--no-cache", "--quiet", "--compression", "off", *words,
            env=os.environ | {"RESTIC_PASSWORD": "bench"}, **options)  # fmt: skip

    def init(self):
        self.call("init")

    def backup(self, path):
        self.call("backup", path.name, cwd=path.parent)

    def restore(self, folder):
        self.call("restore", "latest", "--target", folder)


class Borg(Archive):
    name = "borg"
    count = 0

    def call(self, *words, **options):
        environment = {
            "BORG_BASE_DIR": str(self.folder.with_name("borg-home")),
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
        }
        run("borg", *words, env=os.environ | environment, **options)

    def init(self):
        self.call("init", "--encryption", "none", self.folder)
        self.count = 0

    def backup(self, path):
        self.count += 1
        self.call("create", "--compression", "none", f"{self.folder}::{self.count}", path.name, cwd=path.parent)

    def restore(self, folder):
        folder.mkdir(exist_ok=True)
        self.call("extract", f"{self.folder}::{self.count}", cwd=folder)


def installed(result, folder):
    """Those that there are; of others the result has a note."""
    return [
        kind(folder)
        for kind, package in ((Restic, "restic"), (Borg, "borgbackup"))
        if not missing(result, kind.name, package)
    ]
