#!/usr/bin/env bash
# The Python client in a minute, on a temporary store: a PyTorch training run that saves in the background is killed and
# resumed, and its best checkpoint is as good as it was when it was saved.
# usage: demo_torch.sh BIN-DIR PYTHON EXAMPLES-DIR; PYTHON has ckptd and torch
set -euo pipefail
python=$(realpath -s "$2")
examples=$(readlink -f "$3")
# shellcheck source-path=SCRIPTDIR source=demo_stage.sh
source "$(dirname "$(readlink -f "$0")")/demo_stage.sh"
python() { "$python" "$examples/$1" "${@:2}"; }

say "torch.save and torch.load became ckptd.save and ckptd.load: two lines"
run python digits_pytorch_two_lines.py 2
run python digits_pytorch_two_lines.py 3

say "A whole trainer, killed while it saves"
echo "\$ python digits_pytorch.py --epochs 8 &"
killed_in_a_save "$python" "$examples/digits_pytorch.py" --epochs 8
echo "\$ kill -9 %1"

say "Resumed by load_into: it goes on from the last checkpoint that is whole"
run python digits_pytorch.py --epochs 8 --resume

say "What there is, and whether the best is as good as when it was saved"
run ckptctl list digits-pytorch
run python digits_pytorch.py --evaluate digits-pytorch:best
