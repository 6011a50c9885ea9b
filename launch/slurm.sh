#!/usr/bin/env bash
# A Slurm job: a process a task, started by srun; JAX finds the other processes through Slurm. The tasks of a node share
# its GPUs: as many tasks as GPUs, or one task for all of them. The repository and the workdir lie on a file system that
# all nodes share. A minute and a half before its time is over the job is asked to save; submitted again, it goes on, and
# so it does by itself when it was preempted. It ends with the program's exit code.
#   sbatch --nodes=2 --gpus-per-node=8 --ntasks-per-node=8 --cpus-per-task=8 launch/slurm.sh --config=FILE --workdir=DIR
#   bash launch/slurm.sh --dry_run --config=FILE --workdir=DIR     prints the commands
# Each line of the job's log begins with the number of its task, and srun names the one that failed. With --logs=DIR, a
# folder that all nodes share, each task has a file of its own there, and the job's log is that of task 0.
#SBATCH --job-name=evqgan
#SBATCH --signal=TERM@90
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
root=${SLURM_SUBMIT_DIR:-$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)} # Slurm runs a copy of this file elsewhere
if [ ! -f "$root/launch/environment.sh" ]; then
  echo "error: expected sbatch to be called in the repository, not in $root" >&2
  exit 2
fi
# shellcheck source=launch/environment.sh
. "$root/launch/environment.sh"

explain "$@"
take "logs= dry_run" "$@"
set -- ${rest[@]+"${rest[@]}"}
[ $# -ge 1 ] || fail "expected: sbatch [--nodes=...] launch/slurm.sh --config=FILE --workdir=DIR ..., got no flags"
check_config tree "$@"
needs srun "this is for a cluster with Slurm"
[ -n "${SLURM_JOB_ID:-}${EVQGAN_DRY_RUN:-}" ] ||
  fail "expected to run in a job: sbatch --nodes=... launch/slurm.sh --config=FILE --workdir=DIR, or --dry_run"
case $(value_of workdir "$@") in
  gs://* | /* | "") ;;
  *) say "the workdir is below $PWD, which all nodes have to share" ;;
esac

case $* in *gs://*) export EVQGAN_PACKAGES="${EVQGAN_PACKAGES-gcsfs}" ;; esac # what reads a bucket
environment requirements.txt # once, on the first node
check_flags tree "$@"
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" EVQGAN_DISTRIBUTED=1
take_device
where="${SLURM_JOB_NODELIST:-this node}${JAX_PLATFORMS:+, JAX_PLATFORMS=$JAX_PLATFORMS}"
say "${SLURM_NTASKS:-1} tasks on $where: srun $python -m evqgan.main $*"
command=("$python" -P -m evqgan.main "$@")
# Slurm 22.05 to 23.02 have srun take the CPUs of a task from its own flags alone.
start=(srun ${SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"} --kill-on-bad-exit=1)
if [ -z "$logs" ]; then
  run exec "${start[@]}" --label "${command[@]}"
  exit
fi
run mkdir -p "$logs"
if [ -n "${EVQGAN_DRY_RUN:-}" ]; then
  run "${start[@]}" --output="$logs/task_%t.log" --open-mode=append "${command[@]}"
  exit
fi
said=$logs/srun_$SLURM_JOB_ID.log # what srun says, such as "srun: error: node7: task 3: Exited with exit code 2"
touch "$logs/task_0.log"
tail -n 0 -f "$logs/task_0.log" &
trap 'kill "$!" 2>/dev/null || true' EXIT
code=0
"${start[@]}" --output="$logs/task_%t.log" --open-mode=append "${command[@]}" 2>"$said" || code=$?
sleep 0.5 # what is left of the log
cat "$said" >&2
task=$(sed -n 's/^srun: error: .*: tasks\{0,1\} \([0-9]*\)[^:]*: Exited with exit code [0-9]*$/\1/p' "$said" | head -n 1)
[ -z "$task" ] || say "task $task failed first; its last line: $(tail -n 1 "$logs/task_$task.log")"
exit "$code"
