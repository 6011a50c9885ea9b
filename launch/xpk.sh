#!/usr/bin/env bash
# Runs evqgan.main as a workload on a GKE cluster that xpk manages: sends the commit at HEAD in a container image, shows
# the log of the first worker, and ends with the program's exit code, naming the worker that failed. When machines are
# taken away, GKE starts all workers again and the program goes on from the last checkpoint, which lies in a bucket.
# Ctrl-C leaves the workload at work; the same command follows it again.
#   bash launch/xpk.sh NAME CLUSTER ZONE --accelerator=v5litepod-16 [flags below]
#       --config=FILE --workdir=gs://BUCKET/DIR [flags of evqgan.main]
# Flags
#   --project=ID                 of the cluster (default: gcloud's)
#   --image=python:3.12          what the image is built on; docker builds it
#   --restarts=20                how often GKE may start all workers again
#   --priority=medium            as xpk has it: very-low, low, medium, high, very-high
#   --logs=DIR                   where the logs of all workers go (workdirs/logs/NAME)
#   --dry_run                    print the commands
# Needs xpk, gcloud, kubectl and docker. Nothing is deleted; the cluster and its machines are its owner's.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/environment.sh
. "$root/launch/environment.sh"
# shellcheck source=launch/tpu.sh
. "$root/launch/tpu.sh"

explain "$@"
take "accelerator= project= image= restarts= priority= logs= dry_run" "$@"
[ ${#rest[@]} -ge 4 ] ||
  fail "expected: bash launch/xpk.sh NAME CLUSTER ZONE --accelerator=TYPE --config=FILE --workdir=gs://..., got ${rest[*]:-nothing}"
name=${rest[0]} cluster=${rest[1]} zone=${rest[2]}
set -- "${rest[@]:3}"
[[ $name =~ ^[a-z]([-a-z0-9]*[a-z0-9])?$ ]] || fail "expected NAME of small letters, digits and -, got $name"
[[ $zone =~ ^[a-z]+-[a-z]+[0-9]+(-[a-z])?$ ]] || fail "expected ZONE such as us-east5-a, got $zone"
[ -n "$accelerator" ] || fail "expected --accelerator=TYPE, such as v5litepod-16"
runtime=""
accelerator=${accelerator/#v5e-/v5litepod-}
case $accelerator in v[2-6]*) check_accelerator ;; esac # others, such as tpu7x-8, are left to xpk
[[ ${restarts:=20} =~ ^[0-9]+$ ]] || fail "expected --restarts=NUMBER, got $restarts"
workdir=$(value_of workdir "$@")
[[ $workdir == gs://?* ]] || fail "expected --workdir=gs://BUCKET/DIR, which outlives the machines, got ${workdir:-none}"
needs xpk "pip install xpk"
needs gcloud "install the Google Cloud CLI and log in"
needs kubectl "gcloud components install kubectl gke-gcloud-auth-plugin"
needs git "install git"
fresh=yes check_folders "$@" # a container has nothing of this machine
check_config commit "$@"
fresh=yes check_flags commit "$@"
logs=${logs:-workdirs/logs/$name}

credentials=(gcloud container clusters get-credentials "$cluster" --location="${zone%-[a-z]}" ${project:+--project="$project"})
pods=(kubectl get pods --selector="jobset.sigs.k8s.io/jobset-name=$name")
delete="xpk workload delete --workload=$name --cluster=$cluster --zone=$zone${project:+ --project=$project}"
# What a worker does. Its environment is made anew in each container.
command="EVQGAN_VENV=/tmp/evqgan_venv EVQGAN_JAX=tpu EVQGAN_DISTRIBUTED=1 bash launch/local.sh$(printf ' %q' "$@")"

exists() { kubectl get jobset "$name" --ignore-not-found --output=name; }

# The condition that a workload ended by: Completed, Failed, or nothing yet.
condition() {
  kubectl get jobset "$name" --output=jsonpath='{.status.conditions[?(@.status=="True")].type}'
}

submit() {
  local source=$scratch/source
  run mkdir -p "$source"
  run git -C "$root" archive --format=tar --output="$scratch/source.tar" HEAD
  run tar -xf "$scratch/source.tar" -C "$source"
  run xpk workload create --workload="$name" --cluster="$cluster" --zone="$zone" ${project:+--project="$project"} \
    --tpu-type="$accelerator" --num-slices=1 --priority="${priority:-medium}" --max-restarts="$restarts" \
    --base-docker-image="${image:-python:3.12}" --script-dir="$source" --command="$command"
}

# collect: the log of every worker as it is now, and a line "POD CODE" for each that has ended, in the file `ended`.
collect() {
  local pod
  mkdir -p "$logs"
  "${pods[@]}" --output=jsonpath='{range .items[*]}{.metadata.name}{"\n"}{end}' 2>/dev/null | sort >"$scratch/pods" || true
  while read -r pod; do
    kubectl logs "$pod" --all-containers --tail=-1 >"$logs/$pod.log" 2>/dev/null || true
  done <"$scratch/pods"
  "${pods[@]}" --sort-by='.status.containerStatuses[0].state.terminated.finishedAt' --output=jsonpath='{range .items[*]}{.metadata.name}{" "}{.status.containerStatuses[0].state.terminated.exitCode}{"\n"}{end}' \
    2>/dev/null >"$scratch/ended" || true
}

# Follows the log of the first worker, whichever pod it is at the moment, until the workload has ended.
follow() {
  local pod reason told="" failures=0
  while true; do
    if ! reason=$(condition); then # the connection, maybe
      failures=$((failures + 1))
      [ "$failures" -lt 10 ] || fail "the workload $name cannot be asked for, see above; its logs until now are in $logs"
      sleep "${EVQGAN_WAIT:-20}"
      continue
    fi
    failures=0
    case " $reason " in *" Completed "* | *" Failed "*) break ;; esac
    pod=$("${pods[@]}" --field-selector=status.phase=Running --output=jsonpath='{range .items[*]}{.metadata.name}{"\n"}{end}' 2>/dev/null | sort | head -n 1) || pod=""
    if [ -n "$pod" ]; then
      [ "$pod" = "$told" ] || say "the log of $pod:"
      told=$pod
      kubectl logs --follow "$pod" ${seen:+--since-time="$seen"} 2>/dev/null || true # ends with the pod
      seen=$(date -u +%Y-%m-%dT%H:%M:%SZ)
      collect
    else
      [ "$told" = waiting ] || say "waiting for machines: no worker of $name runs"
      told=waiting
    fi
    sleep "${EVQGAN_WAIT:-20}"
  done
}

if [ -n "${EVQGAN_DRY_RUN:-}" ]; then
  scratch=evqgan_scratch
  run "${credentials[@]}"
  run kubectl get jobset "$name" --ignore-not-found --output=name
  submit
  run "${pods[@]}"
  run kubectl logs --follow "POD"
  exit
fi

scratch=$(mktemp -d)
seen=""
trap 'rm -rf "$scratch"' EXIT
trap 'say "the workload goes on: the same command follows it, and this ends it: $delete"; exit 130' INT
trap 'say "the workload goes on: the same command follows it, and this ends it: $delete"; exit 143' TERM
export KUBECONFIG=$scratch/kubeconfig # the user's own goes on to point to where it does
"${credentials[@]}" || fail "gcloud knows no cluster $cluster near $zone, see above"
there=$(exists) || fail "kubectl cannot reach the cluster $cluster, see above"
if [ -n "$there" ]; then
  case " $(condition) " in
    *" Completed "* | *" Failed "*) fail "the workload $name has ended before; to run it anew: $delete" ;;
    *) say "the workload $name is there already, and is followed" ;;
  esac
else
  git -C "$root" rev-parse --verify --quiet HEAD >/dev/null || fail "expected a git clone in $root"
  [ -z "$(git -C "$root" status --porcelain --untracked-files=no)" ] ||
    say "the commit at HEAD is sent; changes that are not committed stay here"
  say "running $name on $accelerator of the cluster $cluster, which is billed as its machines are"
  submit || fail "xpk cannot create the workload, see above"
fi
follow
collect
say "the logs of all workers are in $logs"
case " $(condition) " in *" Completed "*) exit 0 ;; esac
# The first that ended with an error; those that GKE ended with it got a signal.
first=$(awk 'NF == 2 && $2 != 0 && $2 != 143 && $2 != 137' "$scratch/ended" | head -n 1)
[ -n "$first" ] || first=$(awk 'NF == 2 && $2 != 0' "$scratch/ended" | head -n 1)
[ -n "$first" ] || { say "error: the workload failed, and no worker says why: kubectl describe jobset $name" && exit 1; }
say "worker ${first% *} failed first, with exit code ${first##* }: $(tail -n 1 "$logs/${first% *}.log")"
exit "${first##* }"
