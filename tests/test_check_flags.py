"""What is refused before machines are asked for; how the scripts call it is in test_launch_tpu."""

import pytest

from launch import check_flags

DATA = "--config.dataset.data_dir=gs://b/data"
PERCEPTUAL, CRITIC = (f"--config.{x}.weights=gs://b/weights" for x in ("perceptual", "adversarial"))
TOKENIZER = "--config.tokenizer.weights="
VQGAN = "vqgan-imagenet-f16-1024"


def said(capsys, own, *flags):
    """The exit code and what was said of a command line."""
    code = check_flags.main([*own, "--", "--workdir=gs://b/run", *flags])
    return code, capsys.readouterr().err


@pytest.mark.parametrize(
    "flags, message",
    [
        (["imagenet_stage1"], "has the data set imagenet2012, and imagenet_stage1 names no place"),
        (["imagenet_stage1", DATA], "the weights of vgg16 and lpips"),
        (
            ["imagenet_stage1", DATA, PERCEPTUAL],
            "the weights of efficientnet_lite0, and imagenet_stage1 names no place for that: put "
            "it into a bucket, and give --config.adversarial.weights=gs://BUCKET/weights",
        ),
        (
            ["imagenet_stage2", DATA, TOKENIZER],
            "has its tokenizer, and imagenet_stage2",
        ),
        (["imagenet_stage2", DATA, TOKENIZER + VQGAN], f"has the tokenizer {VQGAN}, and"),
    ],
)
def test_what_new_machines_have_not_has_to_be_named(capsys, flags, message):
    code, error = said(capsys, ["--elsewhere", "--fresh"], f"--config={flags[0]}", *flags[1:])
    assert code == 2 and message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    "flags, message",
    [
        (
            ["imagenet_stage2", DATA],
            "no worker has workdirs/imagenet_stage1, which is config.tokenizer.weights of imagenet",
        ),
        (["imagenet_stage1", DATA, CRITIC, "--config.perceptual.weights=w"], "no worker has w, "),
        (["imagenet_stage1:tiny", "--config.init=workdirs/a"], "which is config.init of"),
        (["quickstart", "--config.tokenizer.init=a"], "which is config.tokenizer.init of"),
    ],
)
def test_what_is_by_a_relative_path_is_on_no_other_machine(capsys, flags, message):
    flags = [f"--config={flags[0]}", *flags[1:]]
    code, error = said(capsys, ["--elsewhere"], *flags)
    assert code == 2 and message in error and error.count("\n") == 1
    assert said(capsys, [], *flags)[0] == 0


EDIT, BOX = "--mode=edit", "--box=1,2,3,4"


@pytest.mark.parametrize(
    "name, flags",
    [
        ("image", [EDIT, "--image=in.png", BOX]),
        ("mask", [EDIT, "--image=/in.png", "--mask=in.png"]),
        ("image", ["--mode=reconstruct", "--image=in.png"]),
        ("preset", ["--mode=sample", "--preset=in.png"]),
        ("classifier_weights", ["--mode=sample", "--classifier_weights=in.png"]),
    ],
)
def test_files_of_flags_are_on_other_machines_where_the_commit_has_them(
    capsys, tmp_path, monkeypatch, name, flags
):
    monkeypatch.chdir(tmp_path)
    code, error = said(capsys, ["--elsewhere"], *flags)
    assert code == 2 and error.count("\n") == 1
    assert "no worker has in.png, which is relative" in error and f"give --{name}=/PATH" in error
    assert said(capsys, [], *flags) == (0, "")
    (tmp_path / "in.png").touch()
    assert said(capsys, ["--elsewhere"], *flags) == (0, "")


@pytest.mark.parametrize(
    "flags",
    [
        [EDIT, "--image=/in.png", "--preset=~/preset.json", BOX],
        ["--mode=sample", "--acceptance=0.5", "--classifier_weights=random"],
        ["--mode=train", "--compile_only=cpu", "--json=out.json"],
    ],
)
def test_flags_of_what_machines_may_have_or_write_pass(capsys, flags):
    assert said(capsys, ["--elsewhere"], *flags) == (0, "")


@pytest.mark.parametrize(
    "flags",
    [
        ["imagenet_stage1", DATA, PERCEPTUAL, CRITIC],
        ["imagenet_stage1", DATA, "--config.perceptual.weights=random", CRITIC],
        ["imagenet_stage1", "--config.dataset.codes=/ids", PERCEPTUAL, CRITIC],
        ["imagenet_stage2", DATA, f"{TOKENIZER}gs://b/stage1"],
        ["imagenet_stage2", DATA, f"{TOKENIZER}~/stage1"],
        ["imagenet_stage2", DATA, f"{TOKENIZER}drawings"],
        ["imagenet_stage2", DATA, f"{TOKENIZER}hf://user/model"],
        ["imagenet_stage1:tiny"],
        ["imagenet_stage2:tiny"],
        ["quickstart"],
        ["folder", "--config.dataset.folder=/images"],
        ["drawings_stage1", PERCEPTUAL, CRITIC],
        ["imagenet_stage1", "--mode=evaluate"],
    ],
)
def test_what_can_begin_on_new_machines_passes(capsys, flags):
    assert said(capsys, ["--elsewhere", "--fresh"], f"--config={flags[0]}", *flags[1:]) == (0, "")


def test_a_public_model_may_be_on_machines_that_are_there(capsys):
    flags = ["--config=imagenet_stage2", DATA, TOKENIZER + VQGAN]
    assert said(capsys, ["--elsewhere"], *flags) == (0, "")
