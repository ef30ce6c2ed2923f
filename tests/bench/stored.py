"""Bytes stored after 20 epochs, of states of --size / 16: ckptd, files, restic, borg, zstd's long-range mode."""

import ckptd
import torch

import archives
import trainer
from measure import Result
from programs import Ckptd, missing, run

EPOCHS = 20
WIDTH = 256  # of layers, and of an embedding's rows
ROWS = 8  # of an embedding, that change in an epoch
MIB = 1 << 20


# Each yields, for every epoch, the states that are saved then, by name.


def trained(mib):
    training = trainer.Trainer(mib / 1024, WIDTH)
    for _ in range(EPOCHS):
        training.train()
        yield {"last": training.state()}


def frozen(mib):
    """A sixteenth of the model is trained."""
    backbone = {f"backbone.{i}": torch.randn(MIB // 4) for i in range(mib * 15 // 16)}
    head = trainer.Trainer(mib / 16 / 1024, WIDTH)
    for _ in range(EPOCHS):
        head.train()
        yield {"last": {"backbone": backbone, **head.state()}}


def few_rows(mib):
    embedding = torch.randn((mib << 20) // (WIDTH * 4), WIDTH)
    for _ in range(EPOCHS):
        embedding[torch.randperm(len(embedding))[:ROWS]] += 1
        yield {"last": {"embedding": embedding}}


def last_and_best(mib):
    for states in trained(mib):
        yield {**states, "best": states["last"]}


SCENES = {
    "all is trained": trained,
    "a frozen backbone, a sixteenth is trained": frozen,
    f"an embedding, {ROWS} rows change": few_rows,
    "last and best, of the same weights": last_and_best,
}


class Zstd:
    """Each file as the difference to the one before of its name."""

    name = "zstd --long=27 --patch-from the last"

    def __init__(self, folder):
        self.folder, self.stored = folder, 0

    def new(self):
        self.stored = 0
        for before in self.folder.glob("*.before"):
            before.unlink()

    def backup(self, path):
        before, out = path.with_suffix(".before"), path.with_suffix(".zst")
        base = [f"--patch-from={before}"] if before.exists() else []
        run("zstd", "--quiet", "--force", "--threads=0", "--long=27", *base, path, "-o", out)
        self.stored += out.stat().st_size
        path.replace(before)  # the last to use the file

    def size_bytes(self):
        return self.stored


class Ckpt:
    """ckptd, from Python."""

    name = "ckptd"

    def __init__(self, server):
        self.server, self.client = server, ckptd.Client(server.address)

    def save(self, scene, name, epoch, state):
        self.client.save(f"{scene}/{name}".replace(" ", "-").replace(",", ""), state, epoch=epoch)

    def size_bytes(self):
        files = (file for part in ("packs", "catalog") for file in (self.server.store / part).rglob("*"))
        return sum(file.stat().st_size for file in files if file.is_file())


def measure(setting):
    result = Result(f"Bytes stored after {EPOCHS} epochs")
    mib = max(4, setting.mib // 16)
    result.note(f"states of {mib} MiB; the same in every round, so measured once")
    tools = archives.installed(result, setting.folder)
    if not missing(result, "zstd", "zstd"):
        tools.append(Zstd(setting.folder))
    for scene, states in SCENES.items():
        for tool in tools:
            tool.new()
        plain = 0
        with Ckptd(setting.folder) as server:
            mine = Ckpt(server)
            for epoch, by_name in enumerate(states(mib)):
                for name, state in by_name.items():
                    mine.save(scene, name, epoch, state)
                    file = setting.folder / f"{name}.pth"
                    trainer.save_file(state, file)
                    plain += file.stat().st_size
                    for tool in tools:
                        tool.backup(file)
            result.add(f"{scene}: files", plain / MIB, "MiB")
            for tool in (mine, *tools):
                result.add(f"{scene}: {tool.name}", tool.size_bytes() / MIB, "MiB")
            del mine.client
        result.ratio(f"{scene}: ckptd / files", f"{scene}: ckptd", f"{scene}: files")
    return result
