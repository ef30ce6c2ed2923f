"""Other ways to keep a state: torch, safetensors, DCP, restic, borg."""

import os
import shutil

import ckptd
import safetensors.torch
import torch.distributed.checkpoint as dcp

import archives
import trainer
from measure import Result, alternate, timed
from process_group import one_process
from programs import Ckptd


def flat(training):
    """{name: tensor}: all that a .safetensors file can hold of the state."""
    return {str(number): tensor.detach() for number, tensor in enumerate(training.tensors())}


def save_safetensors(training, path):
    safetensors.torch.save_file(flat(training), path)
    with open(path, "rb") as stream:
        os.fsync(stream.fileno())


def load_safetensors(training, path):
    loaded = safetensors.torch.load_file(path)
    for name, tensor in flat(training).items():
        tensor.copy_(loaded[name])


def measure(setting):
    result = Result("Other ways to keep a state")
    result.note(
        "restic and borg keep a .pth file that is there already, in a new repository, and give it back as a file"
    )
    result.note(
        "the others save from, and load into, a trainer's tensors; nothing is compressed; restic always encrypts"
    )
    training = trainer.Trainer(setting.gib)
    folder = setting.folder
    file, tensors, shards, out = (folder / name for name in ("state.pth", "state.safetensors", "dcp", "out"))
    tools = archives.installed(result, folder)

    def save():
        with Ckptd(folder) as server:
            client = ckptd.Client(server.address)
            return timed(lambda: client.save("bench", training.state(), epoch=1))

    def save_shards():
        shutil.rmtree(shards, ignore_errors=True)
        return timed(lambda: dcp.save(training.state(), checkpoint_id=shards))

    def back_up(tool):
        tool.new()
        return timed(lambda: (tool.backup(file), os.sync()))

    def give_back(tool):
        shutil.rmtree(out, ignore_errors=True)
        return timed(lambda: (tool.restore(out), os.sync()))

    trainer.save_file(training.state(), file)
    with one_process(folder):
        saves = {
            "save: client.save": save,
            "save: torch.save + fsync": lambda: timed(lambda: trainer.save_file(training.state(), file)),
            "save: safetensors save_file + fsync": lambda: timed(lambda: save_safetensors(training, tensors)),
            "save: dcp.save": save_shards,
        }
        saves |= {f"save: {tool.name}, file": lambda tool=tool: back_up(tool) for tool in tools}
        alternate(result, setting, saves, training.train)
        with Ckptd(folder) as server:
            client = ckptd.Client(server.address)
            client.save("bench", training.state(), epoch=1)

            def restore_file():
                (folder / "out.pth").unlink(missing_ok=True)
                return timed(lambda: server.ctl("restore", "bench:latest", folder / "out.pth"))

            def load(into):
                training.train()  # all has to be restored, whoever came before
                return timed(into)

            loads = {
                "restore: restore_into": lambda: load(lambda: client.restore_into("bench:latest", training.state())),
                "restore: torch.load + load_state_dict": lambda: load(lambda: trainer.load_file_into(training, file)),
                "restore: safetensors load_file + copy_": lambda: load(lambda: load_safetensors(training, tensors)),
                "restore: dcp.load": lambda: load(lambda: dcp.load(training.state(), checkpoint_id=shards)),
                "restore: ckptctl restore, file": restore_file,
            }
            loads |= {f"restore: {tool.name}, file": lambda tool=tool: give_back(tool) for tool in tools}
            alternate(result, setting, loads)
    for other in list(saves)[1:]:
        result.ratio(f"time: client.save / {other.removeprefix('save: ')}", "save: client.save", other)
    for other in list(loads)[1:]:
        mine = "ckptctl restore, file" if other.endswith("file") else "restore_into"
        if other != "restore: ckptctl restore, file":
            result.ratio(f"time: {mine} / {other.removeprefix('restore: ')}", f"restore: {mine}", other)
    return result
