"""The process group that torch.distributed.checkpoint wants, of this process alone."""

import contextlib

import torch.distributed as dist


@contextlib.contextmanager
def one_process(folder):
    store = dist.FileStore(str(folder / "rendezvous"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()
