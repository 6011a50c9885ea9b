#!/usr/bin/env bash
# Runs a command of evqgan.main on all workers of a Cloud TPU VM: copies the commit at HEAD there, makes the environment
# and shows the log of worker 0. It ends with the program's exit code, and names the worker that failed. Ctrl-C or a lost
# connection leaves the program at work: the same command follows it again, or starts it anew once it has ended.
#   bash launch/tpu_vm.sh NAME ZONE [flags below] --config=FILE --workdir=gs://BUCKET/DIR [flags of evqgan.main]
#   bash launch/tpu_vm.sh NAME ZONE --stop       asks the program to save and to end
# Flags
#   --accelerator=v5litepod-16   create the TPU VM NAME if there is none; it is billed until you delete it
#   --spot  --runtime=VERSION  --network=NAME  --subnetwork=NAME  --service_account=NAME     what it is created with
#   --logs=DIR                   where the logs of all workers go (workdirs/logs/NAME)
#   --collect=DIR                copy the workdir here from worker 0 at the end, where it is not in a bucket
#   --attempts=5                 how often to reach for workers that are out of reach
#   --dry_run                    print the commands
# Needs gcloud with a project set. Where a worker has no Python 3.11, uv brings one. The code, .venv, and workdirs without
# a leading / lie in ~/evqgan_tpu_vm of each worker; nothing else there is touched.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/environment.sh
. "$root/launch/environment.sh"
# shellcheck source=launch/tpu.sh
. "$root/launch/tpu.sh"

explain "$@"
take "$FLAGS stop" "$@"
[ ${#rest[@]} -ge 3 ] || { [ ${#rest[@]} = 2 ] && [ -n "$stop" ]; } ||
  fail "expected: bash launch/tpu_vm.sh NAME ZONE --config=FILE --workdir=DIR ..., got ${rest[*]:-nothing}"
name=${rest[0]} zone=${rest[1]} hosts=1
check_place
set -- "${rest[@]:2}"
delete="gcloud compute tpus tpu-vm delete $name --zone=$zone"

if [ -n "$stop" ]; then
  run "${vm[@]}" ssh "$name" --zone="$zone" --worker=all --command="bash evqgan_tpu_worker.sh stop"
  exit
fi
if [ -n "$accelerator" ]; then
  check_accelerator
  check_workdir "$@"
fi
check_config commit "$@"
check_flags commit "$@"

describe=("${vm[@]}" describe "$name" --zone="$zone" --format="value(state)")
if [ -n "${EVQGAN_DRY_RUN:-}" ]; then run "${describe[@]}"; state=""; else state=$(state_of_vm) || exit 2; fi
case $state in
  READY) ;;
  "")
    [ -n "$accelerator" ] || [ -n "${EVQGAN_DRY_RUN:-}" ] ||
      fail "there is no TPU VM $name in $zone: --accelerator=v5litepod-8 creates one, which is billed until you delete it"
    if [ -n "$accelerator" ]; then
      fresh=yes check_folders "$@"
      fresh=yes check_flags commit "$@"
      say "creating $name in $zone, $machines by: $delete"
      settings
      run "${vm[@]}" create "$name" --zone="$zone" --accelerator-type="$accelerator" --version="$runtime" "${set_by[@]}"
    fi
    ;;
  *) fail "the TPU VM $name is $state, expected READY: wait, or delete it by: $delete" ;;
esac

scratch=$(mktemp -d)
trap let_go EXIT
left="the program is still at work on $name: the same command follows it, --stop in the place of its flags ends it"
trap 'say "$left; the TPU is billed until: $delete"; exit 130' INT
trap 'say "$left; the TPU is billed until: $delete"; exit 143' TERM
id=$(date +%s)-$$
for ((attempt = 1; ; attempt++)); do
  code=0
  run_everywhere "$id" "$@" || code=$?
  if [ "$code" != 255 ] || [ "$attempt" -ge "${attempts:-5}" ] || [ "$(state_of_vm)" != READY ]; then break; fi
  say "reaching for all workers again, attempt $((attempt + 1)) of ${attempts:-5}"
  sleep "${EVQGAN_WAIT:-$((10 * attempt))}"
done
[ -z "$collect" ] || collect_workdir "$(value_of workdir "$@")"
say "$name is billed until it is deleted: $delete"
exit "$code"
