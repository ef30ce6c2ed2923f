"""Restores into live tensors: the floor, the C++ library, torch.load (also cold), the Python client."""

import os

import ckptd
import torch

import page_cache
import trainer
from measure import Result, alternate, at_least, at_most, timed
from programs import Ckptd, Product, floor_client, floor_server, peak_bytes, reset_peak, tensors_of

STREAMS = {"floor, one stream": 1, "floor, two streams": 2}
LAYOUT = "restore_into, another layout"


def transposed(value):
    """The same tree, all zeros, its matrices with their columns together in memory."""
    if isinstance(value, dict):
        return {key: transposed(member) for key, member in value.items()}
    return torch.zeros(value.T.shape).T.fill_(0) if torch.is_tensor(value) and value.dim() == 2 else value


def measure(setting):
    result = Result("A restore into live tensors")
    training = trainer.Trainer(setting.gib)
    file = setting.folder / "state.pth"
    on_disk = not page_cache.is_memory(setting.folder)
    trainer.save_file(training.state(), file)
    with Ckptd(setting.folder) as server:
        client = ckptd.Client(server.address)
        client.save("bench", training.state(), epoch=1)
        Product("save", server.address, "library", *tensors_of(setting.mib), 1)()
        page_cache.load(server.store)

        def floor(name):
            streams = STREAMS[name]
            with floor_server(setting.folder) as address:
                floor_client("save", address, setting.mib, streams)
                first = floor_client("restore", address, setting.mib, streams)
                if on_disk:
                    result.add(f"{name}: from the disk", first)
                page_cache.load(setting.folder / "floor")
                return floor_client("restore", address, setting.mib, streams)

        def load(**options):
            training.train()
            return timed(lambda: trainer.load_file_into(training, file, **options))

        def restore():
            training.train()
            return timed(lambda: client.restore_into("bench:latest", training.state()))

        def layout():
            live = transposed(training.state())
            reset_peak(os.getpid())
            before = peak_bytes(os.getpid())
            seconds = timed(lambda: client.restore_into("bench:latest", live))
            beyond = peak_bytes(os.getpid()) - before
            result.add(f"{LAYOUT}: memory beyond the state", beyond / 2**20, "MiB", at_most(256))
            return seconds

        def same():
            client.restore_into("bench:latest", training.state())
            return timed(lambda: client.restore_into("bench:latest", training.state()))

        def tenth():
            client.restore_into("bench:latest", training.state())
            training.change_tenth()
            return timed(lambda: client.restore_into("bench:latest", training.state()))

        def cold(side, path):
            page_cache.drop(path)
            seconds = side()
            page_cache.load(path)  # for the others
            return seconds

        sides = {name: lambda name=name: floor(name) for name in STREAMS}
        sides |= {
            "library": lambda: Product("restore", server.address, "library", *tensors_of(setting.mib))()["seconds"],
            "torch.load + load_state_dict": load,
            "torch.load(mmap) + load_state_dict": lambda: load(mmap=True),
            "restore_into": restore,
            LAYOUT: layout,
            "restore_into, nothing differs": same,
            "restore_into, 10 % of the tensors differ": tenth,
        }
        result.note("what is restored is in the page cache, but for what is cold")
        result.note("after torch.load(mmap) the optimizer's moments lie in the file and are read when they are used")
        if on_disk:
            result.note(page_cache.HOW)
            sides |= {
                "torch.load + load_state_dict, cold": lambda: cold(load, file),
                "restore_into, cold": lambda: cold(restore, server.store),
            }
        else:
            result.note("the folder is memory: nothing can be read from a cold cache")
        alternate(result, setting, sides)
    result.least("floor, the faster", STREAMS)
    if on_disk:
        result.least("floor, the faster: from the disk", [f"{name}: from the disk" for name in STREAMS])
    result.ratio("throughput: library / floor", "floor, the faster", "library", at_least(0.8))
    result.ratio("throughput: restore_into / floor", "floor, the faster", "restore_into", at_least(0.8))
    result.ratio(
        "throughput: restore_into, cold / floor, from the disk", "floor, the faster: from the disk", "restore_into, cold"
    )
    result.ratio("time: restore_into / torch.load + load_state_dict", "restore_into", "torch.load + load_state_dict")
    result.ratio("time: restore_into / the same, cold", "restore_into, cold", "torch.load + load_state_dict, cold")
    return result
