"""A sharded PyTorch trainer (FSDP2) that saves in the background and goes on with any number of processes.

    torchrun --nproc-per-node 4 digits_fsdp.py --epochs 3
    torchrun --nproc-per-node 2 digits_fsdp.py --epochs 6 --resume

The server is in CKPT_SERVER.
"""

import argparse
import os
import sys

import ckptd
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from digits_pytorch import read_digits
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard


def sharded_net(mesh):
    torch.manual_seed(0)  # the same on all ranks, each of which keeps its shards
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
    for layer in (model[0], model[2], model):
        fully_shard(layer, mesh=mesh)
    return model


def train(model, optimizer, images, labels, epoch):
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(epoch))
    for batch in order.split(64):
        mine = batch[dist.get_rank() :: dist.get_world_size()]
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[mine]), labels[mine]).backward()
        optimizer.step()


@torch.no_grad()
def accuracy(model, images, labels):
    return float((model(images).argmax(1) == labels).float().mean())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", default="digits-fsdp")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--resume", action="store_true", help="go on from the run's latest checkpoint")
    args = parser.parse_args()

    dist.init_process_group("gloo")
    saves = dist.new_group(backend="gloo")  # saves in the background must not meet the training's collectives
    model = sharded_net(init_device_mesh("cpu", (dist.get_world_size(),)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.003)
    training, held_out = read_digits()

    def say(text):
        if dist.get_rank() == 0:
            print(text, flush=True)

    def state_at(epoch):
        model_state, optimizer_state = get_state_dict(model, optimizer)  # by parameters' names
        return {"model": model_state, "optimizer": optimizer_state, "epoch": epoch}

    start = 0
    if args.resume:
        state = state_at(-1)
        dcp.load(state, storage_reader=ckptd.dcp.StorageReader(f"{args.run}:latest"))  # each rank its shards
        set_state_dict(model, optimizer, model_state_dict=state["model"], optim_state_dict=state["optimizer"])
        start = state["epoch"] + 1
        say(f"resumed after epoch {state['epoch']}: val_acc {accuracy(model, *held_out):.4f}")

    writer = ckptd.dcp.StorageWriter(f"{args.run}@{start}")
    saving = None
    for epoch in range(start, args.epochs):
        train(model, optimizer, *training, epoch)
        now = accuracy(model, *held_out)
        if saving is not None:
            saving.result()  # raises what went wrong
        writer.reset(f"{args.run}@{epoch}", metrics={"val_acc": now})
        # Returns when the shards are copied; the next epoch trains while they are sent.
        saving = dcp.async_save(
            state_at(epoch), storage_writer=writer, planner=ckptd.dcp.SavePlanner(), process_group=saves
        )
        say(f"epoch {epoch}: val_acc {now:.4f}")
    if saving is not None:
        saving.result()
        if writer.checkpoint is not None:  # on rank 0
            print("saved", writer.checkpoint.reference, flush=True)
    dist.barrier()


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # gloo's threads may abort when the interpreter ends
