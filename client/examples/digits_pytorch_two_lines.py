"""A PyTorch trainer whose torch.save and torch.load became ckptd.save and ckptd.load: two lines.

usage: digits_pytorch_two_lines.py [EPOCHS]; the server is in CKPT_SERVER
"""

import sys
from pathlib import Path

import ckptd
import torch
from torch import nn

EPOCHS = int(sys.argv[1]) if len(sys.argv) > 1 else 5

lines = (Path(__file__).parent / "digits/digits.csv").read_text().splitlines()
rows = torch.tensor([[float(x) for x in line.split(",")] for line in lines])
images, labels = rows[:, :64] / 16, rows[:, 64].long()
held_out = torch.arange(len(rows)) % 5 == 4

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10))
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
start = 0

try:
    state = ckptd.load("digits-two-lines:latest")  # was: torch.load("digits.pth")
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    start = state["epoch"] + 1
except ckptd.NotFound:
    print("a new run")

for epoch in range(start, EPOCHS):
    model.train()
    for batch in torch.randperm(int((~held_out).sum())).split(64):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[~held_out][batch]), labels[~held_out][batch]).backward()
        optimizer.step()
    model.eval()
    accuracy = float((model(images[held_out]).argmax(1) == labels[held_out]).float().mean())
    print(f"epoch {epoch}: val_acc {accuracy:.4f}")
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}
    ckptd.save(state, "digits-two-lines", metrics={"val_acc": accuracy})  # was: torch.save(state, "digits.pth")
