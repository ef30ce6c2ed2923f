"""Saves of a state that the store has, as a whole, but for a tenth, or but for a few rows of an embedding."""

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


def measure(setting):
    result = Result("A save of what the store has already")
    training = trainer.Trainer(setting.gib)
    embedding = torch.randn(max(ROWS, (setting.mib << 20) // (ROW * 4)), ROW)
    file = setting.folder / "state.pth"
    epochs = itertools.count(1)

    def save(what, client, state):
        seconds, saved = timed_value(lambda: client.save("bench", state, epoch=next(epochs)))
        result.add(f"{what}: sent", saved.sent_bytes / 2**20, "MiB")
        return seconds

    with Ckptd(setting.folder) as server:
        client, embedding_client = ckptd.Client(server.address), ckptd.Client(server.address)

        def tenth():
            training.change_tenth()
            return save(TENTH, client, training.state())

        def rows():
            embedding[torch.randperm(len(embedding))[:ROWS]] += 1
            return save(SOME_ROWS, embedding_client, {"embedding": embedding})

        sides = {
            "torch.save + fsync": lambda: timed(lambda: trainer.save_file(training.state(), file)),
            "unchanged": lambda: save("unchanged", client, training.state()),
            NEW_CLIENT: lambda: save(NEW_CLIENT, ckptd.Client(server.address), training.state()),
            TENTH: tenth,
            SOME_ROWS: rows,
        }
        client.save("bench", training.state(), epoch=next(epochs))
        embedding_client.save("bench", {"embedding": embedding}, epoch=next(epochs))
        alternate(result, setting, sides)
    result.ratio("time: unchanged / torch.save + fsync", "unchanged", "torch.save + fsync", at_most(0.1))
    result.ratio(f"time: {TENTH} / torch.save + fsync", TENTH, "torch.save + fsync", at_most(0.2))
    return result
