#!/usr/bin/env bash
# Runs on each worker of a TPU VM, where launch/tpu_vm.sh has copied it and the code to. The program it starts does not
# end with the connection; called again with the same ID it follows that program, and ends with its exit code.
#   bash evqgan_tpu_worker.sh run ID [flags of evqgan.main]     start the program, or follow the one that runs
#   bash evqgan_tpu_worker.sh stop                              ask it to save and to end
set -euo pipefail
place=$HOME/evqgan_tpu_vm # the code, .venv and workdirs without a leading /
package=$HOME/evqgan_tpu_vm.tar.gz
at=$place/run             # of the last run: id, flags, pid, log and exit; the lock is held while it runs

say() { printf 'evqgan: %s\n' "$*"; }

# The last line says it, too: a connection may end with a code of its own.
ended() {
  say "worker ended with exit code $1 at $(date +%s)"
  exit "$1"
}

is_running() { ! (flock --nonblock 7) 7>>"$at/lock"; }

# Puts the copied code in the place of the earlier one. What else lies there stays.
unpack() {
  if [ ! -f "$package" ]; then
    say "error: there is no $package: launch/tpu_vm.sh copies it"
    ended 2
  fi
  rm -rf "$place/evqgan" "$place/configs"
  tar -xzf "$package" -C "$place"
}

has_python() { python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || command -v python3.12 >/dev/null; }

# In a session of its own. bash itself outlives a SIGTERM to all of it, to note the program's exit code.
program() {
  trap : TERM
  local code=0
  export PATH=$HOME/.local/bin:$PATH EVQGAN_JAX=tpu EVQGAN_DISTRIBUTED=1
  cd "$place"
  { has_python || { python3 -m pip install --user uv && uv python install 3.12; }; } &&
    bash launch/local.sh "$@" || code=$?
  echo "$code" >"$at/exit.part"
  mv "$at/exit.part" "$at/exit"
}

start() {
  rm -f "$at/exit" "$at/pid" "$at/id"
  printf '%q ' "$@" >"$at/flags"
  unpack
  [ ! -f "$at/log" ] || mv "$at/log" "$at/log.before"
  : >"$at/log"
  setsid bash "$0" program "$@" >>"$at/log" 2>&1 </dev/null &
  echo $! >"$at/pid"
  printf '%s\n' "$id" >"$at/id"
}

run() {
  set -E
  trap 'ended 1' ERR # what it was stands above
  id=$1
  shift
  mkdir -p "$at"
  exec 8>>"$at/lock"
  if flock --nonblock 8; then
    [ "$(cat "$at/id" 2>/dev/null)" = "$id" ] || start "$@" # the same ID: it has ended meanwhile
  elif [ "$(cat "$at/flags" 2>/dev/null)" != "$(printf '%q ' "$@")" ]; then
    say "error: another command runs here: $(cat "$at/flags"); stop it by --stop, or wait"
    ended 2
  else
    say "the program runs already; its log from the beginning:"
  fi
  rm -f "$package"
  exec 8>&- # the program holds the lock from here on
  until [ -s "$at/pid" ]; do sleep 0.2; done
  tail -n +1 -s 0.2 -f --pid="$(cat "$at/pid")" "$at/log"
  while is_running; do sleep 0.2; done
  if [ ! -f "$at/exit" ]; then
    say "error: the program was killed; out of memory, or the machine was taken away"
    ended 137
  fi
  ended "$(cat "$at/exit")"
}

stop() {
  if [ ! -d "$at" ] || ! is_running; then
    say "nothing runs here"
    return
  fi
  kill -TERM -- "-$(cat "$at/pid")"
  say "asked to save and to end"
}

action=${1:-}
case $action in
  run) shift && run "$@" ;;
  program) shift && program "$@" ;;
  stop) stop ;;
  *) echo "error: expected run ID FLAGS, or stop" >&2 && exit 2 ;;
esac
exit # bash reads a script as it goes: nothing behind this is read when a new copy takes its place
