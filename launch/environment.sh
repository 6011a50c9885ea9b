# shellcheck shell=bash
# Sourced by the launch scripts, which set `root`: environment FILE... makes what they need and sets `python`.
#   EVQGAN_VENV     DIR: keep the environment there instead of .venv; none: use the current one and install nothing
#   EVQGAN_JAX      cpu, cuda12, cuda13 or tpu: the build of JAX; without it, what nvidia-smi says the machine has
#   JAX_PLATFORMS   what JAX takes; without it, the device of that build, without which the program ends with a line
#   EVQGAN_PACKAGES what pip is to install besides, such as "gcsfs", which is there anyway where a flag names gs://
#   EVQGAN_DRY_RUN  1, or the flag --dry_run of every script: print the commands instead of running them
#   EVQGAN_WAIT     seconds: how long the scripts for clusters wait wherever they wait (by default 10 s to an hour)

say() { printf 'evqgan: %s\n' "$*" >&2; }

fail() {
  printf 'error: %s\n' "$*" >&2
  exit 2
}

# Runs a command, or prints it when EVQGAN_DRY_RUN is set.
run() {
  if [ -n "${EVQGAN_DRY_RUN:-}" ]; then
    printf '+'
    printf ' %q' "$@"
    printf '\n'
  else
    "$@"
  fi
}

# take NAMES ARGUMENTS...: of the arguments, --NAME=value (NAMES has "NAME=") and --NAME (NAMES has "NAME") become
# variables of these names, which are empty otherwise; the others become the array `rest`, as they are. One dash or two,
# and --NAME=true or false, are as in the flags of Python: a billed machine must not begin by a flag that was overlooked.
take() {
  local names=" $1 " argument key value
  for key in $1; do printf -v "${key%=}" %s ""; done
  rest=()
  shift
  for argument in "$@"; do
    key=${argument%%=*}
    key=${key#-}
    key=${key#-}
    value=${argument#*=}
    case $argument in
      -*=*)
        case $names in
          *" $key= "*) printf -v "$key" %s "$value" && continue ;;
          *" $key "*)
            case $value in
              true | yes | 1) printf -v "$key" yes ;;
              false | no | 0) printf -v "$key" %s "" ;;
              *) fail "expected --$key or --$key=true or false, got --$key=$value" ;;
            esac
            continue
            ;;
        esac
        ;;
      -*)
        case $names in
          *" $key "*) printf -v "$key" yes && continue ;;
          *" $key= "*) fail "expected --$key=VALUE, got --$key" ;;
        esac
        ;;
    esac
    rest+=("$argument")
  done
  [ -z "${dry_run:-}" ] || export EVQGAN_DRY_RUN=1
}

# needs PROGRAM WHERE: fails unless the program is there, or nothing is run.
needs() {
  [ -n "${EVQGAN_DRY_RUN:-}" ] || command -v "$1" >/dev/null || fail "expected $1 on the PATH, found none: $2"
}

# value_of NAME ARGUMENTS...: prints the value of --NAME=value or --NAME value, with one dash or two, if it is among the
# arguments; of several the last one, as the program takes it.
value_of() {
  local name=$1 argument next="" found=""
  shift
  for argument in "$@"; do
    if [ -n "$next" ]; then
      found=$argument next=""
      continue
    fi
    case $argument in
      "--$name="* | "-$name="*) found=${argument#*=} ;;
      "--$name" | "-$name") next=yes ;;
    esac
  done
  printf %s "$found"
}

# check_config commit|tree ARGUMENTS...: fails unless the config of --config is in what will run: the commit at HEAD, or
# this clone and the present folder. A path from / on may be of another machine, and is left to the program.
# shellcheck disable=SC2154 # root is of the script that sources this
check_config() {
  local where=$1 name path
  shift
  name=$(value_of config "$@")
  name=${name%%:*}
  case $name in "" | /* | "~"*) return ;; esac
  git -C "$root" rev-parse --verify --quiet HEAD >/dev/null 2>&1 || where=tree
  for path in "$name" {,configs/,configs/baselines/}"${name%.py}.py"; do
    [[ $path == *.py ]] || continue
    if [ "$where" = commit ]; then
      if git -C "$root" cat-file -e "HEAD:./$path" 2>/dev/null; then return; fi
    elif [ -f "$path" ] || [ -f "$root/$path" ]; then
      return
    fi
  done
  [ "$where" = commit ] || fail "there is no config $name: give a file of configs/ by --config=FILE"
  fail "there is no config $name in the commit at HEAD, which is what runs: commit it, or give a file of configs/"
}

# explain ARGUMENTS...: where one of them asks for help, prints the head of the script and ends.
explain() {
  local argument
  for argument in "$@"; do
    case $argument in
      -h | -help | --help | -helpfull | --helpfull)
        sed -n '2,/^[^#]/s/^# //p' "$0"
        exit
        ;;
    esac
  done
}

# is_quickstart ARGUMENTS...: whether they name neither a config nor a mode, as then launch/local.sh runs the quickstart.
is_quickstart() {
  local argument
  for argument in "$@"; do
    case $argument in --config | --config=* | -config | -config=* | --mode | --mode=* | -mode | -mode=*) return 1 ;; esac
  done
}

# check_flags commit|tree ARGUMENTS...: fails unless these are flags of the program in what will run, see `check_config`,
# and keys of its config, whose batch can be split over `devices`, if that is set, whose data and weights are by no
# relative path where there are several `hosts`, or `fresh` says that nothing is there, and are then named at all; nor
# are files of flags then by one that is not in the commit: launch/check_flags.py. It needs the environment of
# launch/local.sh, and without it says so.
check_flags() {
  local where=$1 code=$root place=$PWD python=${EVQGAN_VENV:-$root/.venv}/bin/python said status=0 about=()
  shift
  case $python in /*) ;; *) python=$PWD/$python ;; esac
  [ -x "$python" ] || python=$(current_environment requirements.txt 2>/dev/null && printf %s "$python") || {
    say "the flags of the program are not checked here, for its environment is not: a run of launch/local.sh makes one"
    return
  }
  if [ "$where" = commit ] && git -C "$root" rev-parse --verify --quiet HEAD >/dev/null 2>&1; then
    code=$(mktemp -d)
    place=$code
    git -C "$root" archive HEAD | tar -xf - -C "$code" || fail "git cannot pack the commit at HEAD, see above"
    if is_quickstart "$@"; then set -- --config=quickstart "$@"; fi
  fi
  [ "$where" = commit ] || about+=(--here)
  [ "${hosts:-1}" -le 1 ] && [ -z "${fresh:-}" ] || about+=(--elsewhere) # as `check_folders` of launch/tpu.sh
  [ -z "${fresh:-}" ] || about+=(--fresh)
  [ -z "${devices:-}" ] || about+=(--devices="$devices")
  said=$(cd "$place" && PYTHONPATH=$code "$python" -P "$code/launch/check_flags.py" ${about[@]+"${about[@]}"} -- "$@" 2>&1 >/dev/null) || status=$?
  [ "$code" = "$root" ] || rm -rf "$code"
  said=${said##*$'\n'}
  case $status in
    0) ;;
    2) fail "${said#error: }" ;;
    *) say "the flags of the program cannot be checked here, by $python: ${said:-exit code $status}" ;;
  esac
}

recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
  local name
  for name in python3.11 python3.12 python3.13 python3 python; do
    if command -v "$name" >/dev/null && recent "$name"; then
      echo "$name"
      return
    fi
  done
  fail "expected Python 3.11 or later on the PATH, found $(python3 --version 2>/dev/null || echo none): install it"
}

# The build of JAX for this machine. CUDA 13 wants driver 580 and compute capability 7.5, CUDA 12 driver 525 (JAX's
# installation page).
jax_build() {
  local gpu driver capability
  case ${EVQGAN_JAX:-} in
    cpu | cuda12 | cuda13 | tpu) echo "$EVQGAN_JAX" && return ;;
    ?*) fail "expected EVQGAN_JAX to be cpu, cuda12, cuda13 or tpu, got $EVQGAN_JAX" ;;
  esac
  gpu=$(nvidia-smi --query-gpu=driver_version,compute_cap --format=csv,noheader 2>/dev/null) || gpu=
  gpu=${gpu%%$'\n'*} # such as "580.65.06, 9.0"
  driver=${gpu%%.*}
  capability=${gpu##*, }
  if [ -z "$gpu" ]; then
    echo cpu
  elif [ "$driver" -ge 580 ] && [ "${capability/./}" -ge 75 ]; then
    echo cuda13
  elif [ "$driver" -ge 525 ]; then
    echo cuda12
  else
    fail "expected an NVIDIA driver 525 or later, found ${gpu%%,*}: update it, or set EVQGAN_JAX=cpu"
  fi
}

# environment FILE...: sets `python`, in an environment that has the packages of these requirement files.
environment() {
  local venv=${EVQGAN_VENV:-$root/.venv} jax file stamp base want="" packages=() more
  platforms=
  if [ "$venv" = none ]; then
    current_environment "$@"
    return
  fi
  case $venv in /*) ;; *) venv=$PWD/$venv ;; esac
  jax=$(jax_build) || exit 2
  case $jax in
    cuda*) platforms=cuda,cpu ;;
    tpu) platforms=tpu,cpu ;;
  esac
  for file in "$@"; do
    want+="${want:+$'\n'}$file $(cksum <"$root/$file") $jax"
    packages+=(-r "$root/$file")
  done
  if [ -n "${EVQGAN_PACKAGES:-}" ]; then
    want+=$'\n'"packages $EVQGAN_PACKAGES"
    read -r -a more <<<"$EVQGAN_PACKAGES"
    packages+=("${more[@]}")
  fi
  [ "$jax" = cpu ] || packages+=("jax[$jax]==$(sed -n 's/^jax==//p' "$root/requirements.txt")")
  python=$venv/bin/python
  stamp=$venv/.evqgan # a line for every file that is installed; "incomplete" while that changes
  if installed; then
    return
  fi
  if [ -e "$venv" ] && [ ! -e "$stamp" ] && [ -n "$(ls -A "$venv")" ]; then
    fail "$venv was not made by this script: activate it and set EVQGAN_VENV=none, or set EVQGAN_VENV to another folder"
  fi
  base=$(find_python) || exit 2
  say "installing $* into $venv ($("$base" --version), $jax build of JAX); about a minute, more with CUDA"
  if [ -n "${EVQGAN_DRY_RUN:-}" ]; then
    install
    return
  fi
  if ! mkdir -p "$venv" || ! : >>"$stamp"; then
    fail "cannot write $venv: set EVQGAN_VENV to another folder"
  fi
  exec 9>>"$stamp"
  if command -v flock >/dev/null; then flock 9; fi # of two starts at once the second waits, and finds it done
  if ! installed; then
    if grep -qx incomplete "$stamp" || ! recent "$python"; then
      find "$venv" -mindepth 1 ! -path "$stamp" -delete # cut short, or its Python has gone: from the start
    fi
    echo incomplete >"$stamp"
    install 9>&- || fail "the installation failed, see above; the same command starts it again"
    echo "$want" >"$stamp"
  fi
  exec 9>&-
}

# take_device: has JAX take the device of the build that `environment` chose, if any, unless the user has set another one:
# a program that does not find it ends with a line, and does not begin on the CPU.
take_device() { [ -z "$platforms" ] || export JAX_PLATFORMS="${JAX_PLATFORMS-$platforms}"; }

# The three below are steps of `environment` and read its variables.
installed() { [ "$(grep -cxF -e "$want" "$stamp" 2>/dev/null)" = "$(wc -l <<<"$want" | tr -d ' ')" ] && recent "$python"; }

install() {
  local pip=("$python" -m pip) without=()
  if ! "$base" -c 'import ensurepip' 2>/dev/null; then # Debian's Python without python3-venv
    pip=("$base" -m pip --python "$python")
    without=(--without-pip)
  fi
  [ -x "$python" ] || run "$base" -m venv ${without[@]+"${without[@]}"} "$venv" || return
  run "${pip[@]}" install --quiet --no-input --disable-pip-version-check "${packages[@]}"
}

current_environment() {
  python=$(command -v python || command -v python3) || fail "EVQGAN_VENV=none, but there is no python on the PATH"
  recent "$python" || fail "expected Python 3.11 or later, found $("$python" --version 2>&1) ($python)"
  local file modules=()
  for file in "$@"; do
    case $file in requirements.txt) modules+=(jax flax grain tensorboardX) ;; *) modules+=(pytest xdist ruff mypy) ;; esac
  done
  "$python" -c 'import importlib.util, sys; sys.exit(not all(map(importlib.util.find_spec, sys.argv[1:])))' \
    "${modules[@]}" || fail "expected ${modules[*]} in the current environment ($python): pip install ${*/#/-r }"
}
