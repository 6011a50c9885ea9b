"""The scripts for Cloud TPUs, on a cloud that is a folder.

gcloud is a script: a worker is a home folder, a TPU's state a file, a bucket a folder. What runs on
a worker is the real launch/tpu_worker.sh and launch/local.sh, with a stand-in for Python.
"""

import math
import os
import shlex
import signal
import subprocess
import time

import pytest
from launch_machine import PYTHON, ROOT, Machine, commands, one_error

from evqgan.core import chips

GCLOUD = r"""#!/usr/bin/env bash
printf '%q ' "$@" >>"$CLOUD/calls"
echo >>"$CLOUD/calls"
missing() { echo "ERROR: (gcloud) NOT_FOUND: Resource '$1' was not found" >&2; exit 1; }
words=() worker=0 format= command= labels=
for word in "$@"; do
  case $word in
    --worker=*) worker=${word#*=} ;;
    --format=*) format=${word#*=} ;;
    --command=*) command=${word#*=} ;;
    --labels=*) labels=${word#*=} ;;
    --*) ;;
    *) words+=("$word") ;;
  esac
done
[ "$worker" != all ] || worker=$(cd "$CLOUD" && echo worker_* | sed 's/worker_//g')
case "${words[*]}" in
  "compute tpus tpu-vm describe "*)
    [ -s "$CLOUD/vm" ] || missing "${words[4]}"
    case $format in *len*) cd "$CLOUD" && ls -d worker_* | wc -l ;; *) cat "$CLOUD/vm" ;; esac ;;
  "compute tpus tpu-vm create "*) echo READY >"$CLOUD/vm" ;;
  "compute tpus tpu-vm scp "*)
    [ -z "${SCP_FAILS:-}" ] || { echo "scp: no route" >&2; exit 1; }
    for number in $worker; do
      case ${words[4]} in
        *:*) cp -r "$CLOUD/worker_$number/${words[4]#*:}" "${words[5]}" ;;
        *) cp "${words[4]}" "${words[5]}" "$CLOUD/worker_$number" ;;
      esac
    done ;;
  "compute tpus tpu-vm ssh "*)
    status=0
    for number in $worker; do
      export HOME=$CLOUD/worker_$number WORKER=$number
      cd "$HOME" && bash -c "$command" || status=$?
      if [ -e "$CLOUD/cut_$number" ]; then rm "$CLOUD/cut_$number"; fi
    done
    exit "$status" ;;
  "compute tpus queued-resources describe "*)
    [ -s "$CLOUD/resource" ] || missing "${words[4]}"
    case $format in
      *labels*) cat "$CLOUD/labels" ;;
      *failedData*) cat "$CLOUD/reason" 2>/dev/null || echo ;;
      *) head -n 1 "$CLOUD/resource"
         # A state lasts for one look, but for the last of them.
         if [ "$(wc -l <"$CLOUD/resource")" -gt 1 ]; then
           tail -n +2 "$CLOUD/resource" >"$CLOUD/next" && mv "$CLOUD/next" "$CLOUD/resource"
           case $(cat "$CLOUD/resource") in ACTIVE) echo READY >"$CLOUD/vm" ;; esac
         fi ;;
    esac ;;
  "compute tpus queued-resources create "*)
    echo "$labels" >"$CLOUD/labels"
    cp "$CLOUD/states" "$CLOUD/resource"
    rm -rf "$CLOUD"/worker_*/.[!.]* "$CLOUD"/worker_*/* ;;
  "compute tpus queued-resources delete "*) rm "$CLOUD/resource" ;;
  "storage ls "*) ls "$CLOUD/bucket" 2>/dev/null ;;
  *) echo "ERROR: (gcloud) Invalid choice: ${words[*]}" >&2; exit 2 ;;
esac
"""
# What a worker does in the place of `python -m evqgan.main`: the file `program`.
WORKER_PYTHON = PYTHON.replace('  *"${FAILS', '  *evqgan.main*) . "$CLOUD/program" ;;\n  *"${FAILS')
NAME, ZONE = "pod", "us-east5-a"
FLAGS = ["--config=c.py", "--workdir=gs://bucket/a run", "--config.name=it's"]
DELETE = "gcloud compute tpus tpu-vm delete pod --zone=us-east5-a"


class Cloud(Machine):
    """A machine with gcloud, and a TPU VM of two workers."""

    def __init__(self, place, workers=2):
        super().__init__(place)
        self.cloud = place / "cloud"
        for number in range(workers):
            (self.cloud / f"worker_{number}").mkdir(parents=True)
        (self.cloud / "calls").touch()
        self.started = []
        self.state("vm", "READY")
        self.program("echo step 1; echo done")
        self.add("gcloud", GCLOUD)
        for name in ("python3", "python3.11", "python3.12"):
            self.add(name, WORKER_PYTHON)
        self.git("init", "-q")
        self.commit()

    def git(self, *words):
        subprocess.run(["git", "-C", self.repository, *words], check=True, capture_output=True)

    def commit(self):
        self.git("add", ".")
        self.git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "all")

    def state(self, name, *lines):
        (self.cloud / name).write_text("".join(f"{line}\n" for line in lines))

    def program(self, text):
        """What runs on each worker: bash, which knows the number WORKER."""
        (self.cloud / "program").write_text(text)

    def settings(self):
        return {"CLOUD": str(self.cloud), "EVQGAN_WAIT": "0.05", "EVQGAN_JAX": ""}

    def launch(self, *flags, script="tpu_vm", **settings):
        return self.run(f"launch/{script}.sh", *flags, **self.settings(), **settings)

    def start(self, *flags, script="tpu_vm"):
        """Start a script as a process that can get signals."""
        self.calls_file.write_text("")
        process = subprocess.Popen(
            ["bash", self.repository / "launch" / f"{script}.sh", *flags],
            cwd=self.place / "user",
            env=self.environment() | self.settings(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def end(self):
        """Leave nothing that still runs: neither scripts nor what they began on workers."""
        for process in self.started:
            process.kill()
        subprocess.run(["pkill", "-9", "-f", str(self.place)])

    def asked(self, words):
        """The calls of gcloud that hold these words."""
        return [
            shlex.split(line)
            for line in (self.cloud / "calls").read_text().splitlines()
            if words in line
        ]

    def runs(self):
        """The flags of each start of the program, of all workers."""
        return [line.split("evqgan.main ")[1] for line in self.calls() if "-m evqgan.main" in line]

    def log(self, number):
        """What a worker has said so far: nothing, until a script has begun its log anew."""
        try:
            return (self.place / "user/workdirs/logs" / NAME / f"worker_{number}.log").read_text()
        except FileNotFoundError:
            return ""


@pytest.fixture
def cloud(tmp_path, foreground):
    made = Cloud(tmp_path)
    yield made
    made.end()


def until(condition):
    for _ in range(400):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it did not come to that within 20 s")


def test_a_dry_run_prints_what_would_be_done_and_does_nothing(cloud):
    done = cloud.launch(NAME, ZONE, "--accelerator=v5e-16", "--spot", "--dry_run", *FLAGS)
    look, create, archive, copy, *runs = commands(done)
    assert look[3:6] == ["tpu-vm", "describe", NAME] and create[3:6] == ["tpu-vm", "create", NAME]
    assert {"--accelerator-type=v5litepod-16", "--version=v2-alpha-tpuv5-lite", "--spot"} < {
        *create
    }
    assert archive[-1] == "HEAD" and copy[4] == "scp" and copy[7] == f"{NAME}:"
    assert "--worker=all" in copy and [f"--worker={i}" for i in range(4)] == [x[-2] for x in runs]
    for run in runs:
        remote = shlex.split(run[-1].removeprefix("--command="))
        assert remote[:3] == ["bash", "evqgan_tpu_worker.sh", "run"] and remote[-3:] == FLAGS
    assert "16 chips on 4 hosts, billed by the second" in done.stderr and DELETE in done.stderr
    assert cloud.asked("") == [] and os.listdir(cloud.place / "user") == []


def test_the_scripts_know_every_accelerator_that_python_knows():
    """launch/tpu.sh has a table of its own, as it runs before there is Python."""
    known = {
        f"{tpu.cloud or kind}-{number}": math.prod(map(int, shape.split("x")))
        for kind, tpu in chips.TPUS.items()
        for number, shape in tpu.shapes.items()
    }
    script = (
        "set -eu; . launch/environment.sh; . launch/tpu.sh; runtime=; "
        'for accelerator; do check_accelerator; echo "$accelerator $devices"; done'
    )
    made = subprocess.run(
        ["bash", "-c", script, "bash", *known], cwd=ROOT, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    found = dict(line.split() for line in made.stdout.splitlines())
    assert {name: int(number) for name, number in found.items()} == known


@pytest.mark.parametrize("more", [[], ["--dry_run"]])
@pytest.mark.parametrize("script", ["tpu_vm", "queued_resource"])
def test_a_config_that_is_not_in_the_commit_begins_nothing(cloud, script, more):
    (cloud.cloud / "vm").unlink()
    flags = [NAME, ZONE, "--accelerator=v5e-16", "--workdir=gs://bucket/run", *more]
    (cloud.place / "user" / "mine.py").touch()
    for name in ("none", "mine.py:tiny"):
        message = one_error(cloud.launch(*flags, f"--config={name}", script=script))
        assert f"there is no config {name.split(':')[0]} in the commit at HEAD" in message
    assert cloud.asked("") == []


@pytest.mark.parametrize("config", ["d", "e:512", "d.py", "configs/d.py:x", "./configs/d.py", "/a"])
def test_a_config_is_found_as_the_program_finds_it(cloud, config):
    done = cloud.launch(NAME, ZONE, "--dry_run", f"--config={config}", FLAGS[1])
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "script, more",
    [
        ("tpu_vm", []),
        ("queued_resource", ["--dry_run"]),
        pytest.param("tpu_vm", ["--dry_run"], marks=pytest.mark.slow),
        pytest.param("queued_resource", [], marks=pytest.mark.slow),
    ],
)
def test_flags_that_the_program_in_the_commit_has_not_begin_nothing(cloud, script, more):
    (cloud.cloud / "vm").unlink()
    cloud.add_program()
    cloud.commit()
    (cloud.repository / "evqgan" / "flags.py").unlink()  # what is not committed is not asked
    flags = [NAME, ZONE, "--accelerator=v5e-16", "--workdir=gs://bucket/run", *more]
    for wrong, message in {
        ("--config=quickstart", "--wrokdir=x"): "there is no flag --wrokdir: did you mean",
        ("--config=quickstart", "--mode=banana"): "--mode=banana: value should be one of <train|",
        ("--config=imagenet_stage1", "--config.sed=1"): "config has no key 'sed': did you mean",
        ("--config.smaples=1",): "config has no key 'smaples': did you mean 'samples'",
        ("--config=imagenet_stage1", "--config.batch_size=17"): "= 17 cannot be split in 16 ways",
        (
            "--config=imagenet_stage1",
            "--config.optimizer.accumulate=32",
        ): "config.batch_size / config.optimizer.accumulate = ",
        (
            "--config=quickstart",
            "--config.tokenizer.mesh.fsdp=3",
        ): "a multiple of 3 devices, not 16",
    }.items():
        assert message in one_error(cloud.launch(*flags, *wrong, script=script))
    assert cloud.asked("") == [] and cloud.temporary() == []
    good = [*flags, "--config=quickstart", "--config.samples=1", "--dry_run"]
    done = cloud.launch(*good, script=script)
    assert done.returncode == 0 and "checked" not in done.stderr, done.stderr


@pytest.mark.slow
def test_each_kind_of_tpu_has_its_devices(cloud):
    """JAX takes a core of v2 and v3 for a device, and a chip of all others."""
    cloud.add_program()
    cloud.commit()
    asked = [NAME, ZONE, "--dry_run", "--config=imagenet_stage1:tiny", "--workdir=gs://bucket/run"]
    for kind, devices, hosts in (("v3-32", 32, 4), ("v4-32", 16, 4), ("v5e-8", 8, 1)):
        flags = [*asked, f"--accelerator={kind}"]
        done = cloud.launch(*flags, f"--config.batch_size={devices}")
        assert f" on {hosts} host" in done.stderr and done.returncode == 0, done.stderr
        message = one_error(cloud.launch(*flags, f"--config.batch_size={devices // 2}"))
        assert f"cannot be split in {devices} ways" in message


@pytest.mark.parametrize("kind, state", [("v5e-16", "READY"), ("v5e-8", "")])
def test_data_that_only_a_config_names_are_refused_where_no_worker_has_them(cloud, kind, state):
    """On several workers, and on one that is not made yet; where it is, they may be there."""
    cloud.add_program()
    cloud.commit()
    flags = ["--config=ffhq_stage1", "--workdir=gs://bucket/run", f"--accelerator={kind}"]
    if not state:
        (cloud.cloud / "vm").unlink()
    message = one_error(cloud.launch(NAME, ZONE, *flags))
    assert "no worker has data/ffhq, which is config.dataset.folder of ffhq_stage1" in message
    assert not cloud.asked("create") and not cloud.asked("scp")
    weights = [f"--config.{x}.weights=gs://bucket/weights" for x in ("perceptual", "adversarial")]
    celebahq = ["--config.dataset.name=celeb_a_hq", "--config.dataset.data_dir=gs://bucket/data"]
    for named in (["--config.dataset.folder=/mnt/ffhq"], celebahq):
        done = cloud.launch(NAME, ZONE, *flags, *weights, *named, "--dry_run")
        assert done.returncode == 0, done.stderr
    message = one_error(cloud.launch(NAME, ZONE, *flags, script="queued_resource"))
    assert "no worker has data/ffhq" in message


def test_a_run_that_lacks_data_or_weights_creates_no_machine(cloud):
    cloud.add_program()
    cloud.commit()
    (cloud.cloud / "vm").unlink()
    flags = ["--config=imagenet_stage1", "--workdir=gs://bucket/run", "--accelerator=v5e-8"]
    message = one_error(cloud.launch(NAME, ZONE, *flags))
    assert "no new machine has the data set imagenet2012, and imagenet_stage1 names no" in message
    assert not cloud.asked("create") and not cloud.asked("scp")


@pytest.mark.parametrize(
    "fails, line",
    [
        (
            "find_spec",
            "are not checked here, for its environment is not: a run of launch/local.sh makes",
        ),
        ("check_flags", "cannot be checked here, by "),
    ],
)
def test_flags_that_cannot_be_checked_are_told(cloud, fails, line):
    done = cloud.launch(NAME, ZONE, "--dry_run", *FLAGS, FAILS=fails)
    assert done.returncode == 0 and f"the flags of the program {line}" in done.stderr


@pytest.mark.parametrize("flag", ["--dry_run=true", "-dry_run", "-dry_run=1", "--dry_run=yes"])
def test_a_dry_run_in_any_spelling_of_a_flag_bills_nothing(cloud, flag):
    (cloud.cloud / "vm").unlink()
    done = cloud.launch(NAME, ZONE, "--accelerator=v5e-16", "--spot=false", flag, *FLAGS)
    assert "create" in done.stdout and "--spot" not in done.stdout and cloud.asked("") == []


def test_a_switch_with_another_value_is_refused(cloud):
    done = cloud.launch(NAME, ZONE, "--accelerator=v5e-16", "--dry_run=maybe", *FLAGS)
    assert "expected --dry_run or --dry_run=true or false, got" in one_error(done)
    assert cloud.asked("") == []


def test_the_program_runs_on_all_workers_and_all_logs_come_back(cloud):
    cloud.program('echo "error: no" >&2; echo "worker $WORKER in $PWD: $*"; printf "%q " "$@"')
    done = cloud.launch(NAME, ZONE, *FLAGS)
    assert done.returncode == 0, done.stderr
    for number in range(2):
        place = cloud.cloud / f"worker_{number}" / "evqgan_tpu_vm"
        assert f"worker {number} in {place}: -P -m evqgan.main" in cloud.log(number)
        last = cloud.log(number).splitlines()[-1].partition("evqgan: worker ended")[0]
        assert shlex.split(last)[-3:] == FLAGS
        assert sorted(x.name for x in cloud.cloud.glob(f"worker_{number}/*")) == [
            "evqgan_tpu_vm",
            "evqgan_tpu_worker.sh",
        ]
    assert "worker 0 in" in done.stdout and "worker 1 in" not in done.stdout
    assert DELETE in done.stderr and not cloud.asked("delete") and not cloud.asked("create")
    cloud.launch(NAME, ZONE, *FLAGS)  # again: the environment is there
    assert len(cloud.runs()) == 2 and not cloud.installs()


def test_the_worker_that_failed_first_is_named_and_its_code_returned(cloud):
    cloud.program(
        'if [ $WORKER = 1 ]; then echo "error: the disk is full"; exit 3; fi\n'
        "sleep 1.5; echo error: another process has ended; exit 1"
    )
    done = cloud.launch(NAME, ZONE, *FLAGS)
    assert done.returncode == 3
    assert "worker 1 failed first, with exit code 3: error: the disk is full" in done.stderr
    assert "another process has ended" in cloud.log(0)


def test_a_connection_that_is_lost_is_taken_up_again(cloud):
    """The first connection to worker 1 breaks: the program goes on, and is not started again."""
    (cloud.cloud / "cut").touch()
    cloud.add(
        "gcloud",
        GCLOUD.replace(
            'cd "$HOME" && bash -c',
            'if [ "$number" = 1 ] && [ -e "$CLOUD/cut" ]; then rm "$CLOUD/cut"; cd "$HOME"; '
            'bash -c "$command" & sleep 0.7; kill $!; exit 255; fi\n      cd "$HOME" && bash -c',
        ),
    )
    cloud.program("echo begins; sleep 2; echo ends")
    done = cloud.launch(NAME, ZONE, *FLAGS)
    assert done.returncode == 0, done.stderr
    assert "worker 1 was out of reach" in done.stderr and "attempt 2 of 5" in done.stderr
    assert len(cloud.runs()) == 2 and "ends" in cloud.log(1) and "ends" in cloud.log(0)


def test_workers_that_stay_out_of_reach_end_it_after_some_attempts(cloud):
    done = cloud.launch(NAME, ZONE, "--attempts=3", *FLAGS, SCP_FAILS="1")
    assert done.returncode == 255 and "attempt 3 of 3" in done.stderr and not cloud.runs()


def test_ctrl_c_leaves_the_program_and_the_same_command_follows_it(cloud):
    cloud.program('echo begins; until [ -e "$CLOUD/end" ]; do sleep 0.1; done; echo ends')
    process = cloud.start(NAME, ZONE, *FLAGS)
    until(lambda: len(cloud.runs()) == 2)
    until(lambda: "begins" in cloud.log(0))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 130 and "the same command follows it" in err and DELETE in err
    assert not cloud.temporary()
    other = cloud.launch(NAME, ZONE, "--config=other.py", FLAGS[1])
    assert other.returncode == 2 and "another command runs here: --config=c.py" in other.stderr
    process = cloud.start(NAME, ZONE, *FLAGS)
    until(lambda: "its log from the beginning" in cloud.log(1))
    cloud.state("end")
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0 and "begins\nends" in out and not cloud.runs()


def test_stop_asks_the_program_to_save(cloud):
    cloud.program('trap "echo saved; exit 143" TERM; echo begins; while :; do sleep 0.1; done')
    process = cloud.start(NAME, ZONE, *FLAGS)
    until(lambda: len(cloud.runs()) == 2)
    until(lambda: "begins" in cloud.log(0) and "begins" in cloud.log(1))
    assert "asked to save" in cloud.launch(NAME, ZONE, "--stop").stdout
    process.communicate(timeout=20)
    assert process.returncode == 143 and "saved" in cloud.log(0) and "saved" in cloud.log(1)
    assert "nothing runs here" in cloud.launch(NAME, ZONE, "--stop").stdout


def test_a_program_that_is_killed_is_told_from_one_that_ends(cloud):
    cloud.program('[ $WORKER = 0 ] || kill -9 -- -"$(cat "$HOME/evqgan_tpu_vm/run/pid")"; exit 0')
    done = cloud.launch(NAME, ZONE, *FLAGS)
    assert done.returncode == 137 and "worker 1 failed first, with exit code 137" in done.stderr
    assert "was killed; out of memory" in done.stderr


def test_a_tpu_vm_is_created_once_and_only_when_asked_for(cloud):
    (cloud.cloud / "vm").unlink()
    assert "--accelerator=v5litepod-8 creates one" in one_error(cloud.launch(NAME, ZONE, *FLAGS))
    for _ in range(2):
        asked = ("--accelerator=v4-16", "--network=mine", *FLAGS)
        done = cloud.launch(NAME, ZONE, *asked)
        assert done.returncode == 0, done.stderr
    (create,) = cloud.asked("tpu-vm create")
    assert {"--version=tpu-ubuntu2204-base", "--network=mine", "--labels=launched-by=evqgan"} < {
        *create
    }
    cloud.state("vm", "PREEMPTED")
    assert f"pod is PREEMPTED, expected READY: wait, or delete it by: {DELETE}" in one_error(
        cloud.launch(NAME, ZONE, *FLAGS)
    )


def test_a_workdir_of_one_worker_is_collected(tmp_path):
    cloud = Cloud(tmp_path, workers=1)
    cloud.program("mkdir -p workdirs/run && echo 1 >workdirs/run/metrics.jsonl")
    done = cloud.launch(NAME, ZONE, "--collect=here", "--config=c.py", "--workdir=workdirs/run")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "user/here/run/metrics.jsonl").read_text() == "1\n"
    assert cloud.runs() == ["--config=c.py --workdir=workdirs/run"]


def test_on_a_tpu_vm_a_clone_in_the_home_folder_is_left_alone(cloud):
    home = cloud.cloud / "worker_0"
    for file in ("evqgan/evqgan/mine.py", "evqgan/configs/mine.py", "evqgan_tpu_vm/evqgan/old.py"):
        (home / file).parent.mkdir(parents=True)
        (home / file).write_text("")
    (home / "evqgan_tpu_vm/workdirs").mkdir()
    assert cloud.launch(NAME, ZONE, *FLAGS).returncode == 0
    assert (home / "evqgan/evqgan/mine.py").exists() and (home / "evqgan/configs/mine.py").exists()
    there = {".venv", "launch", "workdirs", "run"}
    assert there < {*os.listdir(home / "evqgan_tpu_vm")}
    assert not (home / "evqgan_tpu_vm/evqgan/old.py").exists()


def test_what_is_not_committed_is_told(cloud):
    (cloud.repository / "requirements.txt").write_text("")
    assert "changes that are not committed stay here" in cloud.launch(NAME, ZONE, *FLAGS).stderr


@pytest.mark.parametrize(
    "flags, message",
    [
        ([NAME], "expected: bash launch/tpu_vm.sh NAME ZONE"),
        (["-rf", ZONE, *FLAGS], "expected NAME of small letters"),
        ([NAME, "zone;", *FLAGS], "expected ZONE such as"),
        ([NAME, ZONE, "--accelerator=v7-8", *FLAGS], "expected --accelerator=v5litepod-16 or"),
        (
            [NAME, ZONE, "--accelerator=v5litepod-17", *FLAGS],
            "there is no v5litepod-17: give --accelerator=v5litepod-16 or v5litepod-32",
        ),
        ([NAME, ZONE, "--accelerator=v4-12", *FLAGS], "give --accelerator=v4-8 or v4-16"),
        ([NAME, ZONE, "--accelerator=v5p-200", *FLAGS], "give --accelerator=v5p-128 or v5p-256"),
        ([NAME, ZONE, "--accelerator=v2-4", *FLAGS], "there is no v2-4: give --accelerator=v2-8"),
        ([NAME, ZONE, "--accelerator=v6e-512", *FLAGS], "give --accelerator=v6e-256"),
        ([NAME, ZONE, *FLAGS, "--config.dataset.folder=pics"], "no worker has pics, a folder of"),
        (
            [NAME, ZONE, "--accelerator=v5e-16", *FLAGS, "--config.dataset.data_dir", "data"],
            "no worker has data, a folder of this machine: put its images into a bucket",
        ),
        ([NAME, ZONE, "--accelerator", "v4-8", *FLAGS], "expected --accelerator=VALUE"),
        ([NAME, ZONE, "--attempts=x", *FLAGS], "expected --attempts=NUMBER"),
        ([NAME, ZONE, "--dry_run", "--config", "launch:tiny", FLAGS[1]], "no config launch in the"),
        ([NAME, ZONE, "--config=c.py", "--workdir=here"], "2 hosts must share the workdir"),
        ([NAME, ZONE, "--config=c.py", "--mode=train"], "give --workdir=gs://BUCKET/..., or"),
        (
            [NAME, ZONE, "--accelerator=v5e-256", "--config=c.py", "--workdir=here"],
            "64 hosts must share the workdir",
        ),
    ],
)
def test_a_wrong_command_of_tpu_vm_is_one_line(cloud, flags, message):
    assert message in one_error(cloud.launch(*flags))
    assert not cloud.runs() and not cloud.asked("scp") and not cloud.asked("create")


# ------------------------------------------------------------------ queued resources

QUEUED = [NAME, ZONE, "--accelerator=v5litepod-8", *FLAGS]
DELETE_QUEUED = "gcloud compute tpus queued-resources delete pod --zone=us-east5-a --force --quiet"
# The n-th run of worker 0 is preempted until the run LAST; each makes a checkpoint if PROGRESS.
PREEMPTED = """
[ $WORKER = 0 ] || exit 0
runs=$(grep -c evqgan.main "$CALLS")
if [ $runs -gt LAST ]; then echo finished; exit 0; fi
[ PROGRESS = no ] || { mkdir -p "$CLOUD/bucket"; touch "$CLOUD/bucket/$runs"; }
printf 'SUSPENDING\\nSUSPENDED\\n' >"$CLOUD/resource"
rm -f "$CLOUD/vm"
exit 143
"""


@pytest.fixture
def queue(tmp_path, foreground):
    """A cloud on which a queued resource is granted after some waiting; it has one worker."""
    cloud = Cloud(tmp_path, workers=1)
    (cloud.cloud / "vm").unlink()
    cloud.state("states", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE")
    yield cloud
    cloud.end()


def preempted(last, progress="yes"):
    return PREEMPTED.replace("LAST", str(last)).replace("PROGRESS", progress)


def test_a_dry_run_of_a_queued_resource_prints_all_it_would_do(queue):
    look, create, archive, copy, run, progress, delete = commands(
        queue.launch(*QUEUED, "--dry_run", script="queued_resource")
    )
    assert look[3:5] == ["queued-resources", "describe"] and archive[-1] == "HEAD"
    assert {"--spot", "--node-id=pod", "--labels=launched-by=evqgan"} < {*create}
    assert shlex.split(run[-1])[-3:] == FLAGS and copy[4] == "scp"
    assert progress[:3] == ["gcloud", "storage", "ls"] and shlex.join(delete) == DELETE_QUEUED
    assert queue.asked("") == []


def test_a_queued_resource_is_waited_for_and_left_at_the_end(queue):
    done = queue.launch(*QUEUED, script="queued_resource")
    assert done.returncode == 0, done.stderr
    for state in ("WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"):
        assert f"pod is {state}\n" in done.stderr
    assert f"until it is deleted: {DELETE_QUEUED}" in done.stderr
    assert (
        len(queue.runs()) == 1
        and not queue.asked("delete")
        and "--spot" in queue.asked("create")[0]
    )
    done = queue.launch(*QUEUED, "--delete", "--on_demand", script="queued_resource")
    assert done.returncode == 0 and len(queue.asked("create")) == 1  # it was there
    assert len(queue.asked("queued-resources delete")) == 1


def test_a_preempted_run_is_started_again_with_the_same_flags(queue):
    queue.program(preempted(3))
    done = queue.launch(*QUEUED, "--recreate=1", script="queued_resource")
    assert done.returncode == 0, done.stderr
    assert len(queue.asked("create")) == 4 and len(queue.asked("resources delete")) == 3
    assert len(queue.runs()) == 4 and len({*queue.runs()}) == 1 and "finished" in done.stdout
    assert "pod is SUSPENDED: asking again in 60 s, try 1 of 1" in done.stderr


def test_without_progress_it_ends_after_some_tries_and_waits_longer_and_longer(queue):
    queue.program(preempted(99, "no"))
    done = queue.launch(*QUEUED, "--recreate=3", script="queued_resource")
    assert done.returncode == 1 and "was lost 4 times without a new checkpoint" in done.stderr
    assert DELETE_QUEUED in done.stderr and len(queue.asked("create")) == 4
    assert [f"in {60 * 2**i} s, try {i + 1} of 3" in done.stderr for i in range(3)] == [True] * 3


def test_a_request_that_fails_says_why(queue):
    queue.state("states", "PROVISIONING", "FAILED")
    queue.state("reason", "no quota of TPUs in us-east5")
    done = queue.launch(*QUEUED, "--recreate=1", script="queued_resource")
    assert done.returncode == 1 and not queue.runs()
    assert "FAILED (no quota of TPUs in us-east5)" in done.stderr


@pytest.mark.parametrize("code", [1, 2])
def test_an_error_of_the_program_itself_is_returned(queue, code):
    queue.program(f"echo error: a misspelt key; exit {code}")
    done = queue.launch(*QUEUED, script="queued_resource")
    assert done.returncode == code and len(queue.runs()) == 1 and not queue.asked("delete")
    assert f"worker 0 failed first, with exit code {code}: error: a misspelt key" in done.stderr


# Exit code 1 in each run until the run LAST; each makes a checkpoint if PROGRESS.
BROKEN = """
runs=$(grep -c evqgan.main "$CALLS")
[ $runs -le LAST ] || exit 0
[ PROGRESS = no ] || { mkdir -p "$CLOUD/bucket"; touch "$CLOUD/bucket/$runs"; }
echo error: the bucket does not answer
exit 1
"""


@pytest.mark.parametrize("progress, runs, code", [("yes", 3, 0), ("no", 1, 1)])
def test_a_run_that_went_wrong_goes_on_if_it_had_new_checkpoints(queue, progress, runs, code):
    queue.program(BROKEN.replace("LAST", "2").replace("PROGRESS", progress))
    done = queue.launch(*QUEUED, script="queued_resource")
    assert done.returncode == code and len(queue.runs()) == runs, done.stderr
    assert len(queue.asked("create")) == 1 and not queue.asked("delete")


def test_machines_that_vanish_under_an_active_resource_are_asked_for_again(queue):
    queue.program(
        '[ -e "$CLOUD/once" ] || { touch "$CLOUD/once"; rm "$CLOUD/vm"; exit 1; }; echo finished'
    )
    done = queue.launch(*QUEUED, script="queued_resource")
    assert done.returncode == 0, done.stderr
    assert "ACTIVE without machines" in done.stderr and len(queue.asked("create")) == 2


def test_a_resource_of_somebody_else_is_never_deleted(queue):
    queue.state("resource", "SUSPENDED")
    queue.state("labels", "launched-by=somebody")
    done = queue.launch(*QUEUED, script="queued_resource")
    assert done.returncode == 2 and "was not created by this script" in done.stderr
    assert not queue.asked("resources delete") and not queue.asked("create")


def test_ctrl_c_leaves_the_resource_and_prints_how_to_delete_it(queue):
    queue.state("states", "WAITING_FOR_RESOURCES")
    process = queue.start(*QUEUED, script="queued_resource")
    until(lambda: queue.asked("create"))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130 and DELETE_QUEUED in err and not queue.asked("delete")
    assert not queue.temporary()


@pytest.mark.parametrize(
    "flags, message",
    [
        (QUEUED[:2], "expected: bash launch/queued_resource.sh"),
        ([NAME, ZONE, *FLAGS], "expected --accelerator=TYPE"),
        ([*QUEUED[:4], "--workdir=/data/run"], "expected --workdir=gs://BUCKET/DIR"),
        ([*QUEUED[:4], "--workdir=gs://"], "expected --workdir=gs://BUCKET/DIR"),
        ([*QUEUED, "--config.dataset.folder=pics"], "no worker has pics, a folder of this"),
        ([*QUEUED, "--recreate=often"], "expected --recreate=NUMBER"),
        ([*QUEUED, "--collect=x"], "--collect is of launch/tpu_vm.sh"),
    ],
)
def test_a_wrong_command_of_queued_resource_is_one_line(queue, flags, message):
    assert message in one_error(queue.launch(*flags, script="queued_resource"))
    assert not queue.asked("create")
