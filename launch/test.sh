#!/usr/bin/env bash
# Makes the environment of launch/local.sh with the test tools, then runs lint and the tests; arguments go to pytest.
# Tests marked slow run only when asked for:   bash launch/test.sh -m slow
# Most tests compile without XLA's optimizations, to be quick, see tests/conftest.py. With them, as users compile:
#   JAX_DISABLE_MOST_OPTIMIZATIONS=0 bash launch/test.sh
# Other processors round otherwise. As on one without AVX-512, and on one without FMA:
#   XLA_FLAGS=--xla_cpu_max_isa=AVX2 bash launch/test.sh
#   XLA_FLAGS=--xla_cpu_max_isa=AVX bash launch/test.sh
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=launch/environment.sh
. "$root/launch/environment.sh"

explain "$@"
take "dry_run" "$@"
set -- ${rest[@]+"${rest[@]}"}
marked=no
for argument in "$@"; do
  case $argument in -m | -m?*) marked=yes ;; esac
done
[ "$marked" = yes ] || set -- -m "not slow" "$@"

environment requirements.txt requirements-test.txt
cd "$root"
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
say "$python: ruff, then pytest $* with mypy beside it"
status=0
run "$python" -m ruff check || status=1
run "$python" -m ruff format --check --quiet || status=1
types=$(mktemp) # what mypy says, shown behind the tests
trap 'rm -f "$types"' EXIT
run "$python" -m mypy >"$types" 2>&1 &
checker=$!
# In the order of their names: by the number of their tests the files of one test, which take minutes, would come last.
run "$python" -m pytest -n 2 --dist loadfile --no-loadscope-reorder "$@" || status=$?
wait "$checker" || [ "$status" != 0 ] || status=1
cat "$types"
exit "$status"
