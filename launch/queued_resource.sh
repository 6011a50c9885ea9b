#!/usr/bin/env bash
# Trains on spot capacity: asks for a queued resource, waits for it, runs evqgan.main on all of its workers, and when the
# machines are taken away asks again and goes on from the last checkpoint, which lies in a bucket. So it does, on the same
# machines, after an exit code 1 (the bucket did not answer, a process was lost) if there are new checkpoints. It ends with
# the program's exit code. Ctrl-C leaves the resource and the program as they are; the same command goes on watching.
#   bash launch/queued_resource.sh NAME ZONE --accelerator=v5litepod-16 [flags below]
#       --config=FILE --workdir=gs://BUCKET/DIR [flags of evqgan.main]
# Flags
#   --on_demand                  not spot: dearer, and not taken away
#   --recreate=5                 how often to ask again without a new checkpoint in between, with longer and longer waits
#   --delete                     delete the resource when the program has ended
#   --runtime=VERSION  --network=NAME  --subnetwork=NAME  --service_account=NAME     what it is created with
#   --logs=DIR                   where the logs of all workers go (workdirs/logs/NAME)
#   --attempts=5                 how often to reach for workers that are out of reach
#   --dry_run                    print the commands
# Only a resource that this script has created, which its label says, is ever deleted.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/environment.sh
. "$root/launch/environment.sh"
# shellcheck source=launch/tpu.sh
. "$root/launch/tpu.sh"

explain "$@"
take "$FLAGS on_demand recreate= delete" "$@"
[ ${#rest[@]} -ge 3 ] ||
  fail "expected: bash launch/queued_resource.sh NAME ZONE --accelerator=TYPE --config=FILE --workdir=gs://..., got ${rest[*]:-nothing}"
name=${rest[0]} zone=${rest[1]} hosts=1
check_place
set -- "${rest[@]:2}"
[ -n "$accelerator" ] || fail "expected --accelerator=TYPE, such as v5litepod-16"
check_accelerator
workdir=$(value_of workdir "$@")
[[ $workdir == gs://?* ]] || fail "expected --workdir=gs://BUCKET/DIR, which outlives the machines, got ${workdir:-none}"
[[ ${recreate:=5} =~ ^[0-9]+$ ]] || fail "expected --recreate=NUMBER, got $recreate"
[ -z "$collect" ] || fail "--collect is of launch/tpu_vm.sh: here the workdir is in a bucket"
fresh=yes check_folders "$@"
check_config commit "$@"
fresh=yes check_flags commit "$@"
if [ -n "$on_demand" ]; then spot=""; else spot=yes; fi

resource=(gcloud compute tpus queued-resources)
delete_it=("${resource[@]}" delete "$name" --zone="$zone" --force --quiet)
longest=3600 # seconds to wait before asking again

state_of_resource() { ask "${resource[@]}" describe "$name" --zone="$zone" --format="value(state.state)"; }

create() {
  say "asking for $name in $zone, $machines by: ${delete_it[*]}"
  settings
  run "${resource[@]}" create "$name" --node-id="$name" --zone="$zone" --accelerator-type="$accelerator" \
    --runtime-version="$runtime" "${set_by[@]}"
}

# Deletes the resource, if it is this script's.
remove() {
  local labels
  labels=$(ask "${resource[@]}" describe "$name" --zone="$zone" --format="value(tpu.nodeSpec[0].node.labels)") || exit 2
  [[ $labels == *"$LABEL"* ]] ||
    fail "$name was not created by this script, and is left as it is; to delete it: ${delete_it[*]}"
  run "${delete_it[@]}"
}

# The file that each whole checkpoint gets last, of a stage or of both: more than before is progress.
finished=("$workdir/checkpoints/*/commit_success.txt" "$workdir/*/checkpoints/*/commit_success.txt")
checkpoints() { gcloud storage ls "${finished[@]}" 2>/dev/null || true; }

if [ -n "${EVQGAN_DRY_RUN:-}" ]; then
  scratch=evqgan_scratch
  run "${resource[@]}" describe "$name" --zone="$zone" --format="value(state.state)"
  create
  run_everywhere ID "$@"
  say "when it is SUSPENDED or FAILED, at most $recreate times without a new checkpoint:"
  run gcloud storage ls "${finished[@]}"
  run "${delete_it[@]}"
  exit
fi

scratch=$(mktemp -d)
trap let_go EXIT
left="left as it is: the same command goes on with it, and this deletes it, until when it is billed: ${delete_it[*]}"
trap 'say "$left"; exit 130' INT
trap 'say "$left"; exit 143' TERM

pause() { # in the background, so that a signal is answered at once
  sleep "${EVQGAN_WAIT:-$1}" &
  wait $!
}

# Whether there are other checkpoints than when this was last asked; not where the bucket does not answer.
progressed() {
  local now
  now=$(checkpoints)
  if [ -z "$now" ] || [ "$now" = "$before" ]; then return 1; fi
  before=$now
}

# again WHY: deletes the resource and waits, longer where there was no progress; fails after too often.
again() {
  local wait
  if progressed; then tries=0; fi
  tries=$((tries + 1))
  if [ "$tries" -gt "$recreate" ]; then
    say "error: $name was lost $tries times without a new checkpoint in $workdir, the last time as $1; --recreate=NUMBER is how often it may be"
    say "$left"
    exit 1
  fi
  wait=$((tries > 6 ? longest : 60 * 2 ** (tries - 1)))
  say "$name is $1: asking again in $((wait < longest ? wait : longest)) s, try $tries of $recreate without a new checkpoint"
  remove
  pause "$((wait < longest ? wait : longest))"
}

# Ends the script with the program's exit code.
finish() {
  if [ -n "$delete" ]; then remove; else say "$name is billed until it is deleted: ${delete_it[*]}"; fi
  exit "$1"
}

# Whether the machines were taken away, which may be known some minutes after the program has felt it.
taken_away() {
  local minute state
  say "exit code $code: looking for up to $minutes minutes whether the machines were taken away"
  for ((minute = 0; minute < minutes; minute++)); do
    pause 60
    state=$(state_of_resource) || exit 2
    if [ "$state" != ACTIVE ] || [ "$(state_of_vm)" != READY ]; then return 0; fi
    if [ "$code" = 255 ]; then return 1; fi # out of reach: not for long, maybe
  done
  return 1
}

minutes=5 gone=0
tries=0 told="" before=$(checkpoints) unreached=0 id=""
while true; do
  state=$(state_of_resource) || exit 2
  [ "$state" = "$told" ] || say "$name is ${state:-not there}"
  told=$state
  case $state in
    "")
      create || fail "gcloud cannot create $name, see above"
      id=$(date +%s)-$$
      ;;
    ACTIVE)
      if [ "$(state_of_vm)" != READY ]; then # the machines are gone, and the resource does not know it yet
        gone=$((gone + 1))
        if [ "$gone" -ge "$minutes" ]; then again "ACTIVE without machines" && gone=0; else pause 60; fi
        continue
      fi
      gone=0 code=0
      run_everywhere "${id:=$(date +%s)-$$}" "$@" || code=$?
      case $code in 0 | 2) finish "$code" ;; esac # 2: something that the user can mend
      if taken_away; then id="" && continue; fi # machines that come back by themselves run nothing
      if [ "$code" = 1 ] && progressed; then
        say "exit code 1, and new checkpoints before: starting the program again"
        id="" && continue
      fi
      [ "$code" = 255 ] || finish "$code"
      unreached=$((unreached + 1))
      [ "$unreached" -lt "${attempts:-5}" ] || finish "$code"
      ;;
    SUSPENDED | FAILED)
      reason=$(ask "${resource[@]}" describe "$name" --zone="$zone" --format="value(state.failedData.error.message)") || true
      again "$state${reason:+ ($reason)}"
      unreached=0
      ;;
    *) pause 30 ;; # ACCEPTED, WAITING_FOR_RESOURCES, PROVISIONING, CREATING, SUSPENDING, DELETING
  esac
done
