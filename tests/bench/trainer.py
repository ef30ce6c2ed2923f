"""A PyTorch trainer, its state, and what is done with such a state without ckptd."""

import os

import torch
from torch import nn


class Trainer:
    """A model of linear layers and Adam's moments, so many GiB in all."""

    def __init__(self, gib, width=1024):  # a layer has 4 MiB of weights
        torch.manual_seed(0)
        layers = max(1, round(gib * (1 << 30) / (3 * 4 * width * width)))  # weights and two moments
        self.model = nn.Sequential(*(nn.Linear(width, width, bias=False) for _ in range(layers)))
        self.optimizer = torch.optim.Adam(self.model.parameters())
        for parameter in self.model.parameters():
            parameter.grad = torch.randn_like(parameter)
        self.optimizer.step()

    @torch.no_grad()
    def train(self):
        """Changes every tensor."""
        for parameter in self.model.parameters():
            parameter.grad.mul_(1.01)
        self.optimizer.step()

    def tensors(self):
        """Those of the state but for the counts of steps."""
        moments = [state[name] for state in self.optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
        return [*self.model.state_dict().values(), *moments]

    @torch.no_grad()
    def change_tenth(self):
        """Changes every tenth of them."""
        for tensor in self.tensors()[::10]:
            tensor.mul_(1.001)

    def state(self):
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load(self, state):
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])


def save_file(state, path):
    """torch.save, durably, over what the file has, if there is one."""
    with open(path, "r+b" if path.exists() else "wb") as stream:
        torch.save(state, stream)
        stream.truncate()
        stream.flush()
        os.fsync(stream.fileno())


def load_file(path, **options):
    return torch.load(path, weights_only=True, **options)


def load_file_into(training, path, **options):
    """What a trainer does to go on from a file."""
    training.load(load_file(path, **options))


def copy_of(value):
    """A clone of a state."""
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: copy_of(member) for key, member in value.items()}
    return value
