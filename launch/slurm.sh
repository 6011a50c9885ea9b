#!/usr/bin/env bash
# A Slurm job: one process a GPU, started by srun; JAX finds the other processes through Slurm. The repository and the
# workdir lie on a file system that all nodes share. A minute and a half before its time is over the job is asked to
# save; submitted again, it goes on.
#   sbatch --nodes=2 --gpus-per-node=8 --ntasks-per-node=8 --cpus-per-task=8 launch/slurm.sh --config=FILE --workdir=DIR
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

environment requirements.txt # once, on the first node
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" EVQGAN_DISTRIBUTED=1
say "srun $python -m evqgan.main $*"
run exec srun --kill-on-bad-exit=1 "$python" -P -m evqgan.main "$@"
