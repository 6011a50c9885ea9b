"""Every command of the README and docs/ is one that the code understands, and every link leads.

Commands are parsed as the command line parses them, with their configs and all keys, and not run;
those that need a workdir of the reader's are given the model that ships.
"""

import json
import pathlib
import re
import shlex
import subprocess
import tomllib

import pytest
import yaml

import evqgan
from evqgan import main
from evqgan.benchmark import __main__ as benchmark
from evqgan.convert import __main__ as convert
from evqgan.convert import named, public
from evqgan.core import cli, config_files
from evqgan.data import from_folder, from_tfrecord
from evqgan.doctor import __main__ as doctor
from evqgan.export import __main__ as export

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
FILES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`((?:python -m|bash|pip install) [^`]+)`(?!`)")
LINK = re.compile(r"\]\(([^)\s]+)\)")
ASSIGNED = re.compile(r"[A-Z_]+=")  # a variable, before a command
PROGRAMS = {"python", "bash", "pip", "source", "evqgan", "gcloud", ".ci/versions"}
MODEL = "--workdir=drawings"  # in the place of a workdir that the reader has trained
# Words of prose that stand for what a reader has, or for one of several names.
STANDS_FOR = re.compile(r"[A-Z]{3,}|\.\.\.|\[|\$")


def commands(text):
    """The command lines of the blocks of shell, without comments, and of the prose.

    Of a loop its body.
    """
    lines = [line for block in BLOCK.findall(text) for line in joined(block).splitlines()]
    prose = BLOCK.sub("", text)
    lines += [" ".join(found.split()) for found in INLINE.findall(prose)]
    for line in lines:
        for part in re.split(r"(?:^| )#", line)[0].split(";"):
            words = shlex.split(part)
            while words and (words[0] == "do" or ASSIGNED.match(words[0])):
                words = words[1:]
            if words and words[0] not in ("for", "done"):
                yield words


def joined(block):
    """A block of shell, in which no command goes on in the next line."""
    return block.replace("\\\n", " ")


ALL = sorted({(file.name, *words) for file in FILES for words in commands(file.read_text())})


def of(*start):
    """The arguments of the commands that begin so, each with the file that has it."""
    n = len(start) + 1
    return [
        pytest.param(list(words[n:]), id=f"{words[0]} {number}")
        for number, words in enumerate(ALL)
        if words[1:n] == start
    ]


def fitted(words):
    """The arguments as a reader has them, who has the model that ships."""
    words = [word.replace("$network", "vgg16") for word in words]
    words = [word for word in words if not word.startswith(("--tokenizer=", "--preset="))]
    if not any(word.startswith("--config=") for word in words):
        words = [MODEL if word.startswith("--workdir=") else word for word in words]
    return words


def test_there_are_commands_and_all_are_of_a_known_kind():
    assert len(ALL) > 60
    assert {words[1] for words in ALL} <= PROGRAMS
    modules = {words[3] for words in ALL if words[1:3] == ("python", "-m")} - {"pip", "pytest"}
    files = {name: (ROOT / name.replace(".", "/")).with_suffix(".py") for name in modules}
    missing = [
        name
        for name, file in files.items()
        if not (file.is_file() or (file.with_suffix("") / "__main__.py").is_file())
    ]
    assert not missing


@pytest.mark.parametrize("words", of("python", "-m", "evqgan.main") + of("evqgan"))
def test_a_command_of_main_is_understood(words, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    words = [word for word in fitted(words) if not STANDS_FOR.search(word)]
    if not any(word.startswith(("--mode=", "--config=")) for word in words):
        # A training goes on, in a workdir of the reader's.
        config = config_files.read_file("configs/quickstart.py:tiny").tokenizer
        (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
        words = [word for word in words if word != MODEL] + [f"--workdir={tmp_path}"]
    # Compilers of accelerators are extras; what is said for the CPU is read in the same way.
    main.parse([re.sub(r"^(--compile_only)=[vh].*", r"\1=cpu", word) for word in words])


@pytest.mark.parametrize("words", of("python", "-m", "evqgan.benchmark"))
def test_a_command_of_benchmark_is_understood(words):
    if STANDS_FOR.search(words[0]):
        return
    module = benchmark.named(words[0])
    flags = (*module.FLAGS, benchmark.JSON, cli.DEBUG)
    words = [word for word in words[1:] if not re.fullmatch(STANDS_FOR, word)]
    if not module_needs(module, words):
        cli.parse(flags, words, words=True)


def module_needs(module, words):
    """Whether the prose leaves out a flag that the benchmark needs."""
    given = {word.lstrip("-").split("=")[0] for word in words}
    return bool({flag.name for flag in module.FLAGS if flag.required} - given)


@pytest.mark.parametrize("words", of("python", "-m", "evqgan.convert"))
def test_a_command_of_convert_is_understood(words):
    words = fitted(words)
    if words[0] in ("--help", "--list") or STANDS_FOR.fullmatch(words[0]):
        return
    known = (*convert.OF_NETWORK, *convert.OF_MODEL, *named.FLAGS)
    cli.parse(tuple({flag.name: flag for flag in known}.values()), words, words=True)
    assert words[0] in {*convert.SYSTEMS, *convert.LICENCES, *public.TABLE}


@pytest.mark.parametrize("words", of("python", "-m", "evqgan.export"))
def test_a_command_of_export_is_understood(words):
    if words:  # else the prose names the program
        export.parse(words)


@pytest.mark.parametrize("words", of("python", "-m", "evqgan.doctor"))
def test_a_command_of_the_doctor_is_understood(words):
    values, rest = cli.parse(doctor.FLAGS, words)
    if values.config:
        config_files.override(config_files.read_file(values.config), rest)


@pytest.mark.parametrize("module", [from_folder, from_tfrecord])
def test_a_command_of_a_converter_of_data_is_understood(module):
    found = [words.values[0] for words in of("python", "-m", module.__name__)]
    assert found
    for words in found:
        if words:  # else the prose names the program
            assert len(cli.parse(module.FLAGS, words, words=True)[1]) == 2


@pytest.mark.parametrize("words", of("bash"))
def test_a_script_is_there_and_can_be_read_by_a_shell(words):
    assert (ROOT / words[0]).is_file()
    subprocess.run(["bash", "-n", ROOT / words[0]], check=True)


@pytest.mark.parametrize("words", of("pip", "install"))
def test_an_extra_is_one_of_the_package(words):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for word in words:
        if found := re.fullmatch(r"\.\[(.+)\]", word):
            assert set(found[1].split(",")) <= set(extras["optional-dependencies"])
        if word.endswith(".txt"):
            assert (ROOT / word).is_file()


def slug(heading):
    """The anchor of a heading, as GitHub makes it."""
    words = re.sub(r"[^\w\- ]", "", heading.replace("`", "").strip().lower())
    return words.replace(" ", "-")


def anchors(file):
    """The anchors of a document."""
    text = re.sub(r"^```.*?^```", "", file.read_text(), flags=re.MULTILINE | re.DOTALL)
    return {slug(found) for found in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


@pytest.mark.parametrize("file", FILES, ids=[file.name for file in FILES])
def test_every_link_leads_somewhere(file):
    wrong = []
    for link in LINK.findall(file.read_text()):
        path, _, anchor = link.partition("#")
        if path.startswith(("http:", "https:", "mailto:")):
            continue
        there = (file.parent / path).resolve() if path else file
        if not there.exists() or (anchor and anchor not in anchors(there)):
            wrong.append(link)
    assert not wrong


def test_every_document_is_reached_from_the_readme():
    reached, todo = set(), [ROOT / "README.md"]
    while todo:
        file = todo.pop()
        reached.add(file)
        links = [link.partition("#")[0] for link in LINK.findall(file.read_text())]
        found = {(file.parent / link).resolve() for link in links if link.endswith(".md")}
        todo += [file for file in found - reached - set(todo) if file.is_file()]
    assert not set(FILES) - reached


def test_the_citation_is_that_of_the_package():
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert cited["version"] == project["version"] == evqgan.__version__
    assert cited["license"] == project["license"]["text"]
    paper = cited["preferred-citation"]
    assert all(author["family-names"] in README for author in paper["authors"])
    assert str(paper["year"]) in README
