#!/usr/bin/env bash
# Copies the commit at HEAD to every worker of a Cloud TPU VM and runs launch/local.sh there, one process a worker.
# Needs gcloud with a project set; the TPU VM exists already. Where it has no Python 3.11, uv brings one. The copy, its
# .venv and workdirs without a leading / lie in ~/evqgan_tpu_vm of each worker; nothing else there is touched.
#   bash launch/tpu_vm.sh NAME ZONE --config=FILE --workdir=DIR [flags of evqgan.main]      EVQGAN_DRY_RUN=1 prints
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/environment.sh
. "$root/launch/environment.sh"

[ $# -ge 3 ] || fail "expected: bash launch/tpu_vm.sh NAME ZONE --config=FILE --workdir=DIR ..., got $# arguments"
name=$1 zone=$2
shift 2
tpu=(gcloud compute tpus tpu-vm)
package=$(mktemp -d)/evqgan_tpu_vm.tar.gz
trap 'rm -r "$(dirname "$package")"' EXIT

recent='python3 -c "import sys; sys.exit(sys.version_info < (3, 11))"'
# shellcheck disable=SC2016 # $HOME and $PATH are the worker's
remote='export PATH=$HOME/.local/bin:$PATH && mkdir -p evqgan_tpu_vm && cd evqgan_tpu_vm && rm -rf evqgan configs'
remote+=' && tar -xzf ../evqgan_tpu_vm.tar.gz && rm ../evqgan_tpu_vm.tar.gz'
remote+=" && { $recent || command -v python3.12 || { python3 -m pip install --user uv && uv python install 3.12; }; }"
remote+=" && EVQGAN_JAX=tpu EVQGAN_DISTRIBUTED=1 bash launch/local.sh$(printf ' %q' "$@")"

run git -C "$root" archive --format=tar.gz --output="$package" HEAD
run "${tpu[@]}" scp "$package" "$name": --zone="$zone" --worker=all
run "${tpu[@]}" ssh "$name" --zone="$zone" --worker=all --command="$remote"
