"""How long a save in the background stalls a trainer: save_async, dcp.async_save, a clone of the state."""

import itertools
import shutil

import ckptd
import torch.distributed as dist
import torch.distributed.checkpoint as dcp

import trainer
from measure import Result, alternate, at_most, timed, timed_value
from process_group import one_process
from programs import Ckptd


def measure(setting):
    result = Result("The stall of a save in the background")
    training = trainer.Trainer(setting.gib)
    epochs = itertools.count(1)
    files = setting.folder / "dcp"
    with Ckptd(setting.folder) as server, one_process(setting.folder):
        client = ckptd.Client(server.address)
        group = dist.new_group(backend="gloo")

        def save_async():
            seconds, handle = timed_value(lambda: client.save_async("bench", training.state(), epoch=next(epochs)))
            handle.result()
            return seconds

        def dcp_async():
            seconds, future = timed_value(
                lambda: dcp.async_save(training.state(), checkpoint_id=files, process_group=group)
            )
            future.result()
            shutil.rmtree(files)
            return seconds

        sides = {
            "clone of the state": lambda: timed(lambda: trainer.copy_of(training.state())),
            "save_async: stall": save_async,
            "dcp.async_save: stall": dcp_async,
        }
        alternate(result, setting, sides, training.train)
    result.ratio(
        "time: stall of save_async / clone of the state", "save_async: stall", "clone of the state", at_most(1.2)
    )
    result.ratio("time: stall of save_async / stall of dcp.async_save", "save_async: stall", "dcp.async_save: stall")
    return result
