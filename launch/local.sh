#!/usr/bin/env bash
# Makes .venv on first use, then runs `python -m evqgan.main` with the flags given here. Without --config and --mode it
# is the quickstart: a tokenizer and a generator trained on bundled digits. Settings: launch/environment.sh.
# All flags: docs/command_line.md, or python -m evqgan.main --help in that environment.
#   bash launch/local.sh [--dry_run] [--config=FILE[:variant]] [--workdir=DIR] [--mode=...] [--config.key=value ...]
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/environment.sh
. "$root/launch/environment.sh"

explain "$@"
take "dry_run" "$@"
set -- ${rest[@]+"${rest[@]}"}
if is_quickstart "$@"; then set -- --config="$root/configs/quickstart.py" "$@"; fi

case $* in *gs://*) export EVQGAN_PACKAGES="${EVQGAN_PACKAGES-gcsfs}" ;; esac # what reads a bucket
environment requirements.txt
[ -z "${EVQGAN_DRY_RUN:-}" ] || check_flags tree "$@" # else the program says at once what is wrong
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" # the working directory stays the user's
# glibc asks for huge pages: a quarter less CPU time a training step, measured on two cores.
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"
if [ "$(command -v python || true)" != "$python" ]; then # what is proposed at the end begins with python
  say "to type python -m evqgan... yourself: export PATH=$(dirname "$python"):\$PATH PYTHONPATH=$root"
fi
take_device
say "${JAX_PLATFORMS:+JAX_PLATFORMS=$JAX_PLATFORMS }$python -m evqgan.main $*"
run exec "$python" -P -m evqgan.main "$@"
