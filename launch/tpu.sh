# shellcheck shell=bash
# Sourced by launch/tpu_vm.sh and launch/queued_resource.sh, behind launch/environment.sh: what both do with a Cloud TPU;
# and by launch/xpk.sh for `check_accelerator` and `check_folders`. They set `root`, `name`, `zone`, `scratch`, and the
# variables of FLAGS by `take`, and use what is set here.
# shellcheck disable=SC2034,SC2154
FLAGS="accelerator= runtime= network= subnetwork= service_account= spot logs= collect= attempts= dry_run"
LABEL=launched-by=evqgan # what these scripts create
vm=(gcloud compute tpus tpu-vm)

check_place() {
  [[ $name =~ ^[a-z]([-a-z0-9]*[a-z0-9])?$ ]] || fail "expected NAME of small letters, digits and -, got $name"
  [[ $zone =~ ^[a-z]+-[a-z]+[0-9]+-[a-z]$ ]] || fail "expected ZONE such as us-east5-a, got $zone"
  [ -z "$attempts" ] || [[ $attempts =~ ^[0-9]+$ ]] || fail "expected --attempts=NUMBER, got $attempts"
  logs=${logs:-workdirs/logs/$name}
  needs gcloud "install the Google Cloud CLI and log in"
}

# sizes_of KIND: the numbers that a kind of TPU comes in, as names have them (Cloud TPU's pages of each version). Of v4
# and v5p there are, from 128 on, any number of cubes of 64 chips. What can be compiled for: evqgan/core/chips.py.
sizes_of() {
  local cubes most=64
  [ "$1" = v4 ] || most=96
  case $1 in
    v5litepod | v6e) echo 1 4 8 16 32 64 128 256 ;;
    v2) echo 8 32 128 256 512 ;;
    v3) echo 8 32 64 128 256 512 1024 2048 ;;
    v4 | v5p)
      echo 8 16 32 64
      for ((cubes = 1; cubes <= most; cubes++)); do echo $((128 * cubes)); done
      ;;
  esac
}

# Sets `accelerator` and `runtime` as gcloud knows them, `devices` as JAX counts them, and says in `machines` and `hosts`
# what that is.
check_accelerator() {
  local kind number size chips below="" above=""
  accelerator=${accelerator/#v5e-/v5litepod-}
  [[ $accelerator =~ ^(v5litepod|v6e|v5p|v4|v3|v2)-([1-9][0-9]*)$ ]] ||
    fail "expected --accelerator=v5litepod-16 or another one of v2, v3, v4, v5p, v5e and v6e, got $accelerator"
  kind=${BASH_REMATCH[1]} number=${BASH_REMATCH[2]}
  for size in $(sizes_of "$kind"); do
    [ "$size" -gt "$number" ] || below=$size
    if [ "$size" -ge "$number" ]; then above=$size && break; fi
  done
  [ "$below" = "$number" ] ||
    fail "there is no $accelerator: give --accelerator=${below:+$kind-$below}${below:+${above:+ or }}${above:+$kind-$above}"
  case $kind in
    v5litepod | v6e) # counts chips, up to 8 of them on a host, of more hosts 4 each
      chips=$number hosts=$((number > 8 ? number / 4 : 1)) ;;
    *) # counts cores, 2 a chip, 4 chips a host
      chips=$((number / 2)) hosts=$((number > 8 ? number / 8 : 1)) ;;
  esac
  case $kind in v2 | v3) devices=$number ;; *) devices=$chips ;; esac # of the first two each core is one
  case $kind in
    v5litepod) runtime=${runtime:-v2-alpha-tpuv5-lite} ;;
    v6e) runtime=${runtime:-v2-alpha-tpuv6e} ;;
    v5p) runtime=${runtime:-v2-alpha-tpuv5} ;;
    *) runtime=${runtime:-tpu-ubuntu2204-base} ;;
  esac
  machines="$accelerator: $chips chips on $hosts host$([ "$hosts" = 1 ] || echo s), billed by the second until it is deleted"
}

# What a TPU is created with, beside its kind, as an array.
settings() {
  set_by=(--labels="$LABEL")
  [ -z "$spot" ] || set_by+=(--spot)
  [ -z "$network" ] || set_by+=(--network="$network")
  [ -z "$subnetwork" ] || set_by+=(--subnetwork="$subnetwork")
  [ -z "$service_account" ] || set_by+=(--service-account="$service_account")
}

# check_workdir FLAGS...: workers must share the workdir: a relative path is another folder on each.
check_workdir() {
  local workdir
  check_folders "$@"
  workdir=$(value_of workdir "$@")
  case $workdir in gs://?* | /*) return ;; esac
  [ "${hosts:-1}" -le 1 ] ||
    fail "$hosts hosts must share the workdir: give --workdir=gs://BUCKET/..., or a mounted path, got ${workdir:-none}"
}

# check_folders FLAGS...: data by a relative path are on this machine: not on several workers, nor where `fresh` says that
# there is nothing yet; on one worker they may be in ~/evqgan_tpu_vm.
check_folders() {
  local key folder
  for key in folder data_dir codes; do
    folder=$(value_of "config.dataset.$key" "$@")
    case $folder in gs://?* | /* | "~"* | "") continue ;; esac
    [ "${hosts:-1}" -le 1 ] && [ -z "${fresh:-}" ] ||
      fail "no worker has $folder, a folder of this machine: put its images into a bucket by launch/prepare_data.sh, or give --config.dataset.$key=/PATH that all workers have"
  done
}

# The state of the TPU VM, "" where there is none. Fails where gcloud does for another reason.
state_of_vm() { ask "${vm[@]}" describe "$name" --zone="$zone" --format="value(state)"; }

ask() {
  local said
  if said=$("$@" 2>&1); then
    printf %s "$said" | tail -n 1
  elif [[ $said != *NOT_FOUND* && $said != *"not found"* ]]; then
    fail "$* says: $(printf %s "$said" | tail -n 1)"
  fi
}

# Packs the commit at HEAD and copies it to all workers, with the script that runs there.
copy_code() {
  local package=$scratch/evqgan_tpu_vm.tar.gz changed=""
  if [ -z "${EVQGAN_DRY_RUN:-}" ]; then
    changed=$(git -C "$root" status --porcelain --untracked-files=no) || fail "expected a git clone in $root, see above"
    [ -z "$changed" ] || say "the commit at HEAD is copied; changes that are not committed stay here"
    cp "$root/launch/tpu_worker.sh" "$scratch/evqgan_tpu_worker.sh"
  fi
  run git -C "$root" archive --format=tar.gz --output="$package" HEAD || fail "git cannot pack the commit at HEAD, see above"
  say "copying the code to all workers of $name"
  run "${vm[@]}" scp "$package" "$scratch/evqgan_tpu_worker.sh" "$name": --zone="$zone" --worker=all
}

# on_worker NUMBER WORDS...: runs launch/tpu_worker.sh there.
on_worker() {
  local number=$1
  shift
  run "${vm[@]}" ssh "$name" --zone="$zone" --worker="$number" --command="bash evqgan_tpu_worker.sh$(printf ' %q' "$@")"
}

# run_everywhere ID FLAGS...: runs the program on all workers and shows the log of the first. Returns the exit code of
# the one that failed first, and 255 where a worker was out of reach. With the same ID nothing is started twice.
run_everywhere() {
  local id=$1 number
  shift
  followed=()
  if [ -n "${EVQGAN_DRY_RUN:-}" ]; then
    copy_code
    for ((number = 0; number < hosts; number++)); do on_worker "$number" run "$id" "$@"; done
    return 0
  fi
  hosts=$(ask "${vm[@]}" describe "$name" --zone="$zone" --format="value(networkEndpoints.len())") || exit 2
  [[ $hosts =~ ^[1-9][0-9]*$ ]] || fail "gcloud does not say how many workers $name has: it says ${hosts:-nothing}"
  check_workdir "$@"
  copy_code || return 255
  mkdir -p "$logs" || fail "cannot make $logs: give --logs=DIR"
  say "running on $hosts workers of $name; their logs are $logs/worker_*.log, and this is that of worker 0:"
  rm -f "$logs"/worker_*.log "$logs"/worker_*.connection
  : >"$logs/worker_0.log"
  for ((number = 0; number < hosts; number++)); do
    on_worker "$number" run "$id" "$@" >"$logs/worker_$number.log" 2>"$logs/worker_$number.connection" </dev/null &
    followed+=($!)
  done
  tail -n +1 -s 0.2 -f "$logs/worker_0.log" &
  follower=$!
  wait "${followed[@]}" || true
  sleep 0.5 # what is left of the log
  kill "$follower" 2>/dev/null
  wait "$follower" 2>/dev/null
  follower=""
  judge
}

# let_go: ends what follows the workers, and removes what was packed; the program is left alone.
let_go() {
  local process
  for process in ${followed[@]+"${followed[@]}"} ${follower:-}; do kill "$process" 2>/dev/null || true; done
  rm -rf "$scratch"
}

# Says how the workers ended, by the last lines of their logs, and returns the code of the first that failed.
judge() {
  local number found first="" code=0 lost=()
  for ((number = 0; number < hosts; number++)); do
    found=$(sed -n 's/^.*evqgan: worker ended with exit code \([0-9]*\) at \([0-9]*\)$/\2 \1/p' "$logs/worker_$number.log" | tail -n 1)
    if [ -z "$found" ]; then
      lost+=("$number")
    elif [ "${found#* }" != 0 ] && { [ -z "$first" ] || [ "${found% *}" -lt "${first%% *}" ]; }; then
      first="$found $number"
    fi
  done
  if [ -n "$first" ]; then
    read -r _ code number <<<"$first"
    say "worker $number failed first, with exit code $code: $(last_line "$logs/worker_$number.log")"
  elif [ ${#lost[@]} -gt 0 ]; then
    code=255
  fi
  for number in ${lost[@]+"${lost[@]}"}; do
    say "worker $number was out of reach: $(last_line "$logs/worker_$number.connection")"
  done
  return "$code"
}

# The last line of a log that says what went wrong, or else the last line of the program.
last_line() {
  { grep -a '^error: ' "$1" || grep -av 'evqgan: worker ended' "$1" || echo "it said nothing"; } | tail -n 1
}

# collect_workdir WORKDIR: copies it from the first worker to the folder `collect`.
collect_workdir() {
  case $1 in
    gs://*) say "nothing is collected: $1 is a bucket" && return ;;
    "") fail "--collect needs --workdir=DIR" ;;
    /*) set -- "$1" "$1" ;;
    *) set -- "$1" "evqgan_tpu_vm/$1" ;;
  esac
  run mkdir -p "$collect"
  run "${vm[@]}" scp --recurse "$name:$2" "$collect" --zone="$zone" --worker=0
}
