"""A fresh save, durable: the floor, the C++ library, torch.save + fsync over a file and into another, client.save."""

import tempfile
from pathlib import Path

import ckptd

import trainer
from measure import Result, alternate, at_least, at_most, timed
from programs import Ckptd, Product, floor_client, floor_server, tensors_of

STREAMS = {"floor, one stream": 1, "floor, two streams": 2}


def floor(setting, streams):
    with floor_server(setting.folder) as address:
        return floor_client("save", address, setting.mib, streams)


def library(setting, result):
    with Ckptd(setting.folder) as server:
        product = Product("save", server.address, "bench", *tensors_of(setting.mib), 1)
        before = server.written()
        seconds = product()["saves"][0]["seconds"]
        payload = setting.mib << 20
        passed, to_disk = (after - earlier for after, earlier in zip(server.written(), before, strict=True))
        result.add("library: bytes written / payload", passed / payload, "", at_most(1.05))
        if to_disk:  # not where the store is memory
            result.add("library: bytes to disk / payload", to_disk / payload, "", at_most(1.05))
        return seconds


def measure(setting):
    result = Result("A fresh save, durable")
    training = trainer.Trainer(setting.gib)
    file = setting.folder / "state.pth"

    def client():
        with Ckptd(setting.folder) as server:
            saver = ckptd.Client(server.address)
            seconds = timed(lambda: saver.save("bench", training.state(), epoch=1))
            training.train()
            result.add("client.save: again, all changed", timed(lambda: saver.save("bench", training.state(), epoch=2)))
            return seconds

    def new_file():
        with tempfile.TemporaryDirectory(dir=setting.folder) as folder:
            return timed(lambda: trainer.save_file(training.state(), Path(folder) / "state.pth"))  # its name is not synced

    sides = {name: lambda streams=streams: floor(setting, streams) for name, streams in STREAMS.items()}
    sides |= {
        "library": lambda: library(setting, result),
        "torch.save + fsync": lambda: timed(lambda: trainer.save_file(training.state(), file)),
        "torch.save + fsync, a new file": new_file,
        "client.save": client,
    }
    alternate(result, setting, sides, training.train)
    result.least("floor, the faster", STREAMS)
    result.ratio("throughput: library / floor", "floor, the faster", "library", at_least(0.8))
    result.ratio("time: client.save / torch.save + fsync", "client.save", "torch.save + fsync", at_most(1.25))
    result.ratio("time: client.save / torch.save + fsync of a new file", "client.save", "torch.save + fsync, a new file")
    result.ratio(
        "time: client.save of a changed state / torch.save + fsync",
        "client.save: again, all changed",
        "torch.save + fsync",
    )
    return result
