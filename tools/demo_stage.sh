# For demonstrations to source: BIN-DIR in $1 on the PATH, a temporary folder to be in, a server on a temporary store. What
# they start as $trainer is killed at the end.
# shellcheck shell=bash
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

# killed_in_a_save TRAINER…: starts it, kills it in the middle of the save after "epoch 3", and shows what it printed.
killed_in_a_save() {
  "$@" >trainer.log 2>&1 &
  trainer=$!
  wait_until grep -q "epoch 3" trainer.log
  kill -STOP "$server" # the next save cannot end
  sleep 0.5
  kill -KILL "$trainer"
  wait "$trainer" 2>/dev/null || true
  trainer=
  kill -CONT "$server"
  cat trainer.log
}

say "A server on a temporary store"
echo "\$ ckptd --data /var/lib/ckptd &"
"$bin/ckptd" --data "$dir/store" --listen 127.0.0.1:0 --address-file "$dir/address" 2>"$dir/ckptd.log" &
server=$!
wait_until test -s "$dir/address"
CKPT_SERVER=$(<"$dir/address")
export CKPT_SERVER PATH="$bin:$PATH"
cd "$dir" || exit
