"""Saves of a state that the store has, as a whole, but for a tenth, or but for a few rows of an embedding; of many tensors."""

import itertools

import ckptd
import torch

import trainer
from measure import Result, alternate, at_most, timed, timed_value
from programs import Ckptd

ROW = 256  # elements of an embedding's row
ROWS = 32
SOME_ROWS = f"{ROWS} rows of an embedding changed"
NEW_CLIENT = "unchanged, by a client that knows nothing of it"
TENTH = "10 % of the tensors changed"
SMALL = 1536  # elements of a tensor of 6 KiB, a chunk of its own


def measure(setting):
    result = Result("A save of what the store has already")
    training = trainer.Trainer(setting.gib)
    embedding = torch.randn(max(ROWS, (setting.mib << 20) // (ROW * 4)), ROW)
    file = setting.folder / "state.pth"
    small = {f"layer.{i}.weight": torch.randn(SMALL) for i in range(max(1, int(20_000 * setting.gib)))}
    many = f"{len(small)} tensors of 6 KiB"
    epochs = itertools.count(1)

    def save(what, client, state):
        seconds, saved = timed_value(lambda: client.save("bench", state, epoch=next(epochs)))
        result.add(f"{what}: sent", saved.sent_bytes / 2**20, "MiB")
        return seconds

    with Ckptd(setting.folder) as server:
        client, embedding_client, small_client = (ckptd.Client(server.address) for _ in range(3))

        def tenth():
            training.change_tenth()
            return save(TENTH, client, training.state())

        def rows():
            embedding[torch.randperm(len(embedding))[:ROWS]] += 1
            return save(SOME_ROWS, embedding_client, {"embedding": embedding})

        def all_small():
            for tensor in small.values():
                tensor.mul_(1.001)
            return save(f"{many}, all changed", small_client, small)

        sides = {
            "torch.save + fsync": lambda: timed(lambda: trainer.save_file(training.state(), file)),
            "unchanged": lambda: save("unchanged", client, training.state()),
            NEW_CLIENT: lambda: save(NEW_CLIENT, ckptd.Client(server.address), training.state()),
            TENTH: tenth,
            SOME_ROWS: rows,
            f"{many}: torch.save + fsync": lambda: timed(lambda: trainer.save_file(small, setting.folder / "small.pth")),
            f"{many}, all changed": all_small,
            f"{many}, unchanged": lambda: save(f"{many}, unchanged", small_client, small),
        }
        client.save("bench", training.state(), epoch=next(epochs))
        embedding_client.save("bench", {"embedding": embedding}, epoch=next(epochs))
        small_client.save("bench", small, epoch=next(epochs))
        alternate(result, setting, sides)
    result.ratio("time: unchanged / torch.save + fsync", "unchanged", "torch.save + fsync", at_most(0.1))
    result.ratio(f"time: {TENTH} / torch.save + fsync", TENTH, "torch.save + fsync", at_most(0.2))
    for what in ("all changed", "unchanged"):
        result.ratio(f"time: {many}, {what} / torch.save + fsync", f"{many}, {what}", f"{many}: torch.save + fsync")
    return result
