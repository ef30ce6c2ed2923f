"""A PyTorch trainer that saves in the background, resumes bit for bit, and evaluates its best checkpoint.

The server is in CKPT_SERVER.
"""

import argparse
import hashlib
from pathlib import Path

import ckptd
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(16 * 4 * 4, 10)

    def forward(self, images):
        x = torch.relu(self.norm(self.conv(images.view(-1, 1, 8, 8))))
        return self.head(self.drop(nn.functional.max_pool2d(x, 2).flatten(1)))


def read_digits():
    """Images (N, 64) in [0, 1] and labels (N,) of the UCI digits: to train with, and every fifth held out."""
    lines = (Path(__file__).parent / "digits/digits.csv").read_text().splitlines()
    rows = torch.tensor([[float(x) for x in line.split(",")] for line in lines])
    held_out = torch.arange(len(rows)) % 5 == 4
    return [(rows[which, :64] / 16, rows[which, 64].long()) for which in (~held_out, held_out)]


def train(model, optimizer, images, labels):
    model.train()
    for batch in torch.randperm(len(images)).split(64):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
        optimizer.step()


@torch.no_grad()
def accuracy(model, images, labels):
    model.eval()
    return float((model(images).argmax(1) == labels).float().mean())


def digest(model):
    """What the model's parameters and buffers are, in short."""
    sha = hashlib.sha256()
    for value in model.state_dict().values():
        sha.update(value.numpy().tobytes())
    return sha.hexdigest()[:16]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", default="digits-pytorch")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--resume", action="store_true", help="go on from the run's latest checkpoint")
    parser.add_argument("--evaluate", metavar="REF", help="evaluate a checkpoint instead, such as digits-pytorch:best")
    args = parser.parse_args()

    torch.manual_seed(0)
    client = ckptd.connect()
    training, held_out = read_digits()
    model = Net()

    if args.evaluate:
        checkpoint = client.checkpoint(args.evaluate)
        client.load_into(checkpoint.reference, model=model, match="model_only")
        now = accuracy(model, *held_out)
        print(f"{checkpoint.reference}: val_acc {now:.4f}, saved with val_acc {checkpoint.metrics['val_acc']:.4f}")
        return 0 if now == checkpoint.metrics["val_acc"] else 1

    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=3, gamma=0.5)
    best, start = 0.0, 0
    if args.resume:
        report = client.load_into(f"{args.run}:latest", model=model, optimizer=optimizer, scheduler=scheduler, rng=True)
        best, start = report.values["best_accuracy"], report.values["epoch"] + 1
        print(f"resumed {report.reference}, best val_acc {best:.4f}", flush=True)

    for epoch in range(start, args.epochs):
        train(model, optimizer, *training)
        scheduler.step()
        now = accuracy(model, *held_out)
        best = max(best, now)
        state = ckptd.torch.capture(
            model=model, optimizer=optimizer, scheduler=scheduler, epoch=epoch, best_accuracy=best
        )
        # Returns when the state is copied; the next epoch trains while it is saved.
        saving = client.save_async(args.run, state, metrics={"val_acc": now})
        print(f"epoch {epoch}: val_acc {now:.4f}", flush=True)
    if start < args.epochs:
        saving.result()  # the last one: raises what went wrong
    print(f"model {digest(model)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
