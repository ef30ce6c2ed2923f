#!/usr/bin/env bash
# The product in a minute, on a temporary store: a training run is killed in the middle of a save and resumed, its best
# checkpoint restored into a file, and that file saved again.
# usage: demo.sh BIN-DIR
set -euo pipefail

bin=$(readlink -f "$1")
dir=$(mktemp -d)
server=
trainer=
finish() {
  [[ -z $trainer ]] || kill -KILL "$trainer" 2>/dev/null || true
  [[ -z $server ]] || { kill -CONT "$server" && kill -TERM "$server" && wait "$server"; } 2>/dev/null || true
  rm -rf "$dir"
}
trap finish EXIT

say() { printf '\n# %s\n' "$*"; }
# Shows a command as one would type it, then runs it.
run() {
  printf '$ %s\n' "$*"
  "$@"
}

# wait_until COMMAND…: it succeeds within a minute, or all ends.
wait_until() {
  local i
  for ((i = 0; i < 1200; i++)); do
    "$@" 2>/dev/null && return
    sleep 0.05
  done
  echo "demo: waited in vain for: $*" >&2
  exit 1
}

say "A server on a temporary store"
echo "\$ ckptd --data /var/lib/ckptd &"
"$bin/ckptd" --data "$dir/store" --listen 127.0.0.1:0 --address-file "$dir/address" 2>"$dir/ckptd.log" &
server=$!
wait_until test -s "$dir/address"
CKPT_SERVER=$(<"$dir/address")
export CKPT_SERVER PATH="$bin:$PATH"
cd "$dir"

say "Train, and kill the trainer in the middle of a save"
echo "\$ digits_trainer --run digits --epochs 8 &"
digits_trainer --run digits --epochs 8 >trainer.log 2>&1 &
trainer=$!
wait_until grep -q "epoch 3" trainer.log
kill -STOP "$server" # the next save cannot end
sleep 0.5
kill -KILL "$trainer"
wait "$trainer" 2>/dev/null || true
trainer=
kill -CONT "$server"
cat trainer.log
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
