"""The commands of the README and docs/ run, on small models and data in a folder of their own.

RUN has what is run and with which more flags, which make it small; the last of a flag counts. With
":tiny" among them a config is its variant of that name, on generated images. What cannot be run
here stands in NOT_RUN, each with its reason. A new command in a document asks for a line in one of
the two, and a line that fits no command any more has to go.
"""

import re
import shutil

import pytest
import test_documents as documents
import workdirs

from evqgan import main
from evqgan.benchmark import __main__ as benchmark
from evqgan.convert import __main__ as convert
from evqgan.core import pictures
from evqgan.data import generated
from evqgan.demo import __main__ as demo
from evqgan.doctor import __main__ as doctor
from evqgan.export import __main__ as export
from evqgan.plot import __main__ as plot

ROOT = documents.ROOT
PROGRAMS = {
    "evqgan.main": lambda given: main.main(["main", *given]),
    "evqgan.benchmark": benchmark.main,
    "evqgan.convert": convert.main,
    "evqgan.demo": demo.main,
    "evqgan.doctor": doctor.main,
    "evqgan.export": export.main,
    "evqgan.plot": plot.main,
}
TINY = "--config.duration=2 steps"
DRAWINGS = ["--workdir=drawings", "--num=4"]
ONE_SYSTEM = ["--only=efficient_vqgan"]
OWN = [TINY, "--config.dataset.size=32", "--config.batch_size=4"]
VARIANT = [":tiny", "--only=base", "--seeds=1", "--samples=8", "--config.duration=2 steps"]
FAST, SLOW = False, True
# (what a command is, whether it is slow, more flags); the first that fits counts.
RUN = [
    (r"main --workdir=drawings --mode=sample$", FAST, ["--num=2"]),
    (r"main --workdir=drawings --mode=sample --image=image_002.png", SLOW, []),
    (r"main --workdir=drawings --mode=reconstruct .*--tiles", SLOW, []),
    (r"main --workdir=workdirs/quickstart --mode=edit .*--box", FAST, ["--num=1"]),
    (r"main --workdir=workdirs/quickstart --mode=edit .*--outpaint", FAST, ["--num=1"]),
    (r"main --workdir=workdirs/quickstart --mode=evaluate", SLOW, []),
    (r"main --workdir=workdirs/quickstart --mode=reconstruct", FAST, []),
    (r"main --workdir=workdirs/quickstart --mode=sample .*--steps_strip", FAST, []),
    (r"main --workdir=workdirs/quickstart --mode=sample .*--labels=3,5", FAST, ["--num=4"]),
    (r"main --mode=sample --workdir=workdirs/quickstart --preset", FAST, ["--num=2"]),
    (r"main --workdir=workdirs/folder --mode=edit", SLOW, ["--num=1"]),
    (r"main --workdir=workdirs/folder --mode=reconstruct", FAST, []),
    (r"main --workdir=workdirs/folder --mode=sample", FAST, ["--num=4"]),
    (r"main --workdir=workdirs/trial_stage2 --mode=sample", FAST, ["--num=4"]),
    (r"main --mode=encode --workdir=workdirs/quickstart", SLOW, []),
    (r"main --config=configs/ffhq_stage1.py:tiny", SLOW, ["--workdir=workdirs/tiny", TINY]),
    (
        r"main --workdir=workdirs/mine --config.duration=40 epochs",
        SLOW,
        ["--config.duration=8 steps"],
    ),
    (r"export workdirs/quickstart exported/digits", SLOW, []),
    (r"export workdirs/folder exported/cats", SLOW, ["--noprograms"]),
    (r"export workdirs/folder_stage1 exported/cats", SLOW, []),
    (r"export$", FAST, ["--help"]),
    (r"demo$", FAST, ["--help"]),
    (r"plot workdirs/quickstart", FAST, []),
    (r"plot workdirs/a workdirs/b", FAST, []),
    (r"plot attention", FAST, []),
    (r"convert --(help|list)$", FAST, []),
    (r"doctor$", FAST, []),
    (r"doctor --config=configs/folder.py .*--all$", FAST, []),
    (r"benchmark compare ", FAST, []),
    (r"benchmark NAME$", FAST, ["--help"]),
    (r"benchmark (samplers|comparison|variants|reconstruction)$", FAST, ["--help"]),
    (r"benchmark reference --folder=pictures", FAST, ["--features=pixels", "--out=reference.npz"]),
    (r"benchmark distribution --samples=theirs/", FAST, ["--features=pixels"]),
    (r"benchmark reconstruction --workdir=workdirs/a", SLOW, []),
    (
        r"benchmark samplers --workdir=workdirs/quickstart .*--scan",
        SLOW,
        ["--num=4", "--seeds=2", "--budget=2"],
    ),
    (
        r"benchmark samplers --workdir=workdirs/quickstart",
        SLOW,
        ["--num=4", "--seeds=2", "--budget=2"],
    ),
    (r"benchmark sampling$", SLOW, ["--layers=1", "--width=128", "--latent=16", "--rounds=1"]),
    (r"benchmark step --config=configs/ffhq", SLOW, [":tiny"]),
    (r"benchmark comparison --config=\S+:digits", SLOW, [":tiny", "--seeds=1", *ONE_SYSTEM]),
    (r"benchmark variants --config=configs/quickstart.py --config.tok\S+ --out", SLOW, VARIANT),
    (r"main --workdir=workdirs/drawings_stage2 --mode=sample", SLOW, DRAWINGS),
    (
        r"main --config=configs/\S+_stage2\S* .*--compile_only",
        SLOW,
        [":tiny", "--compile_only=cpu", "--config.mesh.fsdp=1"],
    ),
    (r"main --config=configs/(imagenet|drawings)_stage2\.py --workdir", SLOW, [":tiny", TINY]),
    (r"main --config=configs/folder(_stage1)?\.py .*folder=pictures", SLOW, OWN),
    (r"main --config=configs/(?!folder)\S+_stage1", SLOW, [":tiny", TINY]),
    (r"main --config=configs/digits_quantizers.py", SLOW, [":tiny", TINY]),
]
DATA = "needs data that are not here, or what was trained on them for days"
HOURS = "trains and measures for minutes to days: test_{} runs the same program, small"
NETWORK = (
    "downloads or installs: test_convert, test_public, test_packages, test_install have a stand-in"
)
ACCELERATOR = (
    "needs an accelerator, or a TPU's compiler: test_aot, test_device, test_launch have a stand-in"
)
NOT_RUN = [
    (r"^(pip|python -m pip) install", NETWORK),
    (r"^bash launch/test.sh|^\.ci/versions|-m pytest", "runs these tests themselves"),
    (
        r"^bash launch/local.sh",
        "makes an environment and trains: test_launch, test_quickstart, test_own_images",
    ),
    (r"^bash launch/tpu_vm.sh|doctor --device=gpu", ACCELERATOR),
    (r"prepare_data|data.from_", "needs data that are not here: test_tfrecord makes small ones"),
    (
        r"benchmark distribution --samples=theirs.npz",
        "needs the weights of Inception: test_foreign_samples takes such files",
    ),
    (
        r"docs.make.(config_keys|fits_table|front_picture)",
        "writes into the repository: test_config_keys and test_fits_table compare",
    ),
    (r"\[.*\]|\.\.\.|\$network|(FILE|TOKENIZER)\b", "words of prose stand for what a reader has"),
    (r"gs://", "needs a bucket: test_buckets has one on loopback"),
    (r"benchmark faults", HOURS.format("faults")),
    (r"convert .*--(download|package)", NETWORK),
    (r"convert ", "needs a published file: test_convert_models has files of the same form"),
    (r"maskgit-imagenet256|vqgan-imagenet-f16-16384", NETWORK),
    (r"hf://USER|FOLDER DEST", "needs the Hub: test_hub has one on loopback; test_programs copies"),
    (r"export workdirs/drawings_stage2", DATA),
    (r"demo --workdir", "serves until it is stopped: test_demo starts the page"),
    (r"compile_only=(v5e|h100)|benchmark (device|fits)", ACCELERATOR),
    (r"features=inception|reference --(name|config)=", NETWORK),
    (r"drawings_stage|=drawings|imagenet|ffhq|photos|num=50000", DATA),
    (r"benchmark (table\d|fig\d)", HOURS.format("paper")),
    (r"benchmark comparison", HOURS.format("comparison")),
    (r"benchmark variants", HOURS.format("variants")),
    (r"benchmark step", HOURS.format("step")),
    (r"benchmark (samplers|reconstruction)", HOURS.format("samplers")),
    (r"main --config=configs/(folder|digits)", HOURS.format("own_images")),
    (r"main --config=quickstart$", HOURS.format("quickstart")),
    (
        r"main --workdir=workdirs/folder$",
        "goes on with a stopped run: test_own_images, test_going_on",
    ),
]


def text_of(words):
    return " ".join(words).replace("python -m evqgan.", "").replace("evqgan ", "main ")


COMMANDS = sorted({words[1:] for words in documents.ALL})


def rule(words, table):
    return next((found for found in table if re.search(found[0], text_of(words))), None)


def changed(words, more):
    """A command with more flags, and with ":tiny" among them of the variant of that name."""
    words = [*words, *(flag for flag in more if flag != ":tiny")]
    if ":tiny" not in more:
        return words
    return [re.sub(r"^(--config=[\w/.]+?\.py)(:\w+)?$", r"\1:tiny", word) for word in words]


def plan(slow):
    """The commands that are run, slow ones or the others, as they are changed."""
    found = [(words, rule(words, RUN)) for words in COMMANDS]
    return [
        pytest.param(changed(words, one[2]), id=text_of(words)[:60])
        for words, one in found
        if one and one[1] == slow
    ]


def test_every_command_is_run_or_says_why_not():
    forgotten = [
        text_of(words) for words in COMMANDS if not rule(words, RUN) and not rule(words, NOT_RUN)
    ]
    assert not forgotten
    texts = [text_of(words) for words in COMMANDS]
    stale = [x[0] for x in (*RUN, *NOT_RUN) if not any(re.search(x[0], text) for text in texts)]
    assert not stale


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with what the documents' commands find in the reader's: runs, pictures, settings."""
    home = tmp_path_factory.mktemp("home")
    runs = home / "workdirs"
    workdirs.copy(runs / "quickstart")
    for name in ("folder", "trial_stage2"):
        (runs / name).symlink_to("quickstart")
    shutil.copytree(runs / "quickstart" / "generator", runs / "mine")
    for name in ("a", "folder_stage1"):
        shutil.copytree(runs / "quickstart" / "tokenizer", runs / name)
    assert main.main(["main", f"--workdir={runs / 'a'}", "--mode=evaluate"]) == 0
    shutil.copytree(runs / "a", runs / "b")
    (home / "pictures").symlink_to(runs / "quickstart" / "images")
    (home / "path" / "to").mkdir(parents=True)
    (home / "path" / "to" / "images").symlink_to(home / "pictures" / "cat")
    for name, side in (("in.png", 32), ("my_cat.png", 64)):
        pictures.save_png(home / name, generated.draw(0, 3, (side, side)))
    for i in range(4):
        pictures.save_png(home / "theirs" / f"{i}.png", generated.draw(i, i, (16, 16)))
    (home / "docs").symlink_to(ROOT / "docs")
    (runs / "samplers").mkdir()
    (runs / "samplers" / "sample.json").write_text(
        '{"generator": "multigrained", "sample": {"steps": 2}}'
    )
    return home


def run(words, place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setenv("EVQGAN_REFERENCES", str(place / "references"))
    is_module = words[:2] == ["python", "-m"]
    name, given = (words[2], words[3:]) if is_module else ("evqgan.main", words[1:])
    assert PROGRAMS[name](given) == 0


@pytest.mark.parametrize("words", plan(slow=False))
def test_a_quick_command_runs(words, home, monkeypatch):
    run(words, home, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("words", plan(slow=True))
def test_a_slow_command_runs(words, home, tmp_path, monkeypatch):
    own = "samplers" in words or any(word.startswith("--config=") for word in words)
    if own:  # trains, or writes what is there for other commands: in a folder of its own
        (tmp_path / "workdirs").mkdir()
        for name in ("pictures", "workdirs/a", "workdirs/quickstart"):
            (tmp_path / name).symlink_to(home / name)
        home = tmp_path
    elif "evqgan.export" in words:
        (tmp_path / "workdirs").symlink_to(home / "workdirs")
        home = tmp_path
    if any("image_002" in word for word in words):
        sample = ["python", "-m", "evqgan.main", "--workdir=drawings", "--mode=sample", "--num=1"]
        run([*sample, f"--out={tmp_path}"], home, monkeypatch)
        shutil.copy(tmp_path / "images" / "00000.png", home / "image_002.png")
    run(words, home, monkeypatch)
