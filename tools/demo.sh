#!/usr/bin/env bash
# The product in a minute, on a temporary store: a training run is killed in the middle of a save and resumed, its best
# checkpoint restored into a file, and that file saved again.
# usage: demo.sh BIN-DIR
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=demo_stage.sh
source "$(dirname "$(readlink -f "$0")")/demo_stage.sh"

say "Train, and kill the trainer in the middle of a save"
echo "\$ digits_trainer --run digits --epochs 8 &"
killed_in_a_save digits_trainer --run digits --epochs 8
echo "\$ kill -9 %2"

say "Resume it: it goes on from the last checkpoint that is whole"
run digits_trainer --run digits --epochs 8 --resume

say "What there is"
run ckptctl runs
run ckptctl list digits

say "The best checkpoint, as a file that PyTorch opens"
run ckptctl restore digits:best best.pth
ls -l best.pth

say "What is stored already costs next to nothing: the same file as another run"
run ckptctl save digits-best best.pth --label from=digits
