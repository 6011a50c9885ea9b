"""python -m evqgan.main --config=FILE[:variant] --workdir=DIR [--mode=MODE] [--config.key=value]

The modes:

train     stage 1 or 2 as the config says, or the quickstart; if it was stopped, the same command
          resumes
          --profile=5
                    profile/: what devices and host do in so many steps, for a browser
encode    --workdir=TOKENIZER --views=1 --seed=0 --out=DIR
                    stored ids of all images of config.dataset; if stopped, the same command
                    resumes; train a generator from them with --config.dataset.codes=DIR;
                    ids of single pictures: evqgan.load(WORKDIR).encode(images) in Python
sample    --num=64 --labels=3,5|cat --seed=0 --out=DIR
                    samples.npz, grid.png, images/ of PNGs; if stopped, the same command resumes;
                    finished samples of other settings are kept: give --out, or --force
          --steps_strip
                    steps.png: images being filled block by block
          --acceptance=0.5 --classifier=resnet101|module:function --classifier_weights=DIR
                    the best of more
          --image=FILE.png --out=DIR
                    the image of a PNG that sample or the web page has written, made again
edit      --image=FILE and one of --mask=FILE (white = anew), --box=left,top,right,bottom and
          --outpaint=left,top,right,bottom (pixels); --margin=TOKENS --feather=PIXELS
          --label= --num= --seed= --out=
                    edit_000.png ..., masked.png, strip.png
reconstruct  --image=FILE|FOLDER --out=DIR
                    input | reconstruction, a PNG a picture
          --tiles   pictures larger than the model's in tiles that overlap; --notiles: whole
evaluate  --metrics=reconstruction,... --out=DIR
                    evaluation.json

All modes but train take --step=N, best or last: which checkpoint of the workdir; best is by the
number config.best. evaluation.json, PNGs and stored ids say of which step they are.

--compile_only=TOPOLOGY compiles the step of training, the sampler or the prediction of evaluation
for cpu, gpu, or what need not be there: a TPU (v5e-8, v5e:2x4, v4-8, v6e-8; needs libtpu) or GPUs
(a100, h100-8, rtx4090; needs jax[cuda13]). It prints memory, FLOPs, an estimate of time, and
collectives. Nothing is run, and nothing read but configs. Exit code 1: it does not fit; of a
training step lines then say what to change, and --tries=3 compiles three such changes. --layout
prints which array of the state is split how over those devices, and compiles nothing.

--preset=FILE takes the sampler's settings from a file that `benchmark samplers` has written, in
sample, edit and evaluate; --config.sample.key=value changes single ones of them.

--force starts work of such a size that it is refused as a likely mistake, such as
--views=1000000000, and lets samples of other settings be replaced.

A key of the config that a mode does not read is refused: most are of training alone.

The config may be left out where the workdir has it: a tokenizer's, a generator's, or, unless its
config file is your own, that of a run of both stages; and in all modes but train an exported model
(python -m evqgan.export), or the name of one that ships, whose results go to workdirs/NAME. Without
--workdir it is workdirs/ and the config's name: workdirs/quickstart, workdirs/quickstart_tiny.
"""

from evqgan.core.cli import (
    CONFIG_KEYS,
    DEBUG,
    PATH,
    PLACE,
    STEP,
    SWITCH,
    TEXT,
    TEXTS,
    Flag,
    choice,
    number,
    whole,
)

MODES = ("train", "encode", "sample", "edit", "reconstruct", "evaluate")
AFTER_TRAINING = ("encode", "sample", "edit", "reconstruct", "evaluate")
SAMPLING = ("sample", "edit", "evaluate")
DRAWING = ("encode", "sample", "edit")
COMPILED = ("train", "sample", "evaluate")

# What each mode but train reads of a config, in dotted keys or the sections that hold them.
MODEL = ("dtype", "generator", "tokenizer", "dataset.size", "class_names")
READ = {
    "encode": ("dataset", "tokenizer.weights", "tokenizer.dtype"),
    "sample": ("sample", *MODEL),
    "edit": ("sample", *MODEL),
    "reconstruct": MODEL,
    "evaluate": (
        *("evals", "sample", "dataset", "eval_batch_size", "batch_size", "perceptual.weights"),
        *MODEL,
    ),
}
# Keys of sections in MODEL that training alone reads.
TRAINED = ("tokenizer.weights", "tokenizer.soft")
# Keys that these flags stand for in other modes than train, beside those of the same name.
STANDS_FOR = {"eval_batch_size": "batch_size", "samples": "num"}

# Flags of sample that a PNG which is repeated answers.
IN_RECORD = ("num", "labels", "seed", "preset", "steps_strip", "acceptance", "classifier", "force")

# name, kind, modes that take it (none: all), help, default; without one it is that of the mode.
FLAGS = (
    Flag("config", TEXT, (), "FILE[:variant] of an experiment, or its name in configs/"),
    CONFIG_KEYS,
    Flag("workdir", PLACE, (), "where a run keeps everything it makes"),
    Flag("mode", choice(*MODES), (), f"what to do: {', '.join(MODES)}", "train"),
    Flag("num", whole(1), ("sample", "edit"), "how many images (64) or results (4)"),
    Flag("profile", whole(1), ("train",), "how many steps to trace (none)"),
    Flag("views", whole(1), ("encode",), "how many random crops and flips of each image (1)"),
    Flag("labels", TEXTS, ("sample",), "classes by number or name, in turn (default: all)"),
    Flag("label", TEXT, ("edit",), "the class by number or name"),
    Flag("seed", whole(0, 2**63 - 1), DRAWING, "the random seed (0)"),
    Flag("batch_size", whole(1), AFTER_TRAINING, "images a device at a time"),
    Flag("step", STEP, AFTER_TRAINING, "which checkpoint: its step, best or last (last)"),
    Flag("preset", PATH, SAMPLING, "a file of the sampler's settings (default: config.sample)"),
    Flag("steps_strip", SWITCH, ("sample",), "also draw how images are filled"),
    Flag("acceptance", number(0.0, 1.0), ("sample",), "the share of candidates to keep (1)"),
    Flag(
        "classifier",
        TEXT,
        ("sample",),
        "what rates candidates: resnet101 (default), resnet50 or package.module:function",
    ),
    Flag(
        "classifier_weights",
        PATH,
        ("sample",),
        "where its weights lie (default: ~/.cache/evqgan/weights), or random",
    ),
    Flag("out", PLACE, AFTER_TRAINING, "where results go (default: inside the workdir)"),
    Flag(
        "image",
        PATH,
        ("sample", "edit", "reconstruct"),
        "a picture; reconstruct: or a folder of them; sample: a PNG whose image is made again",
    ),
    Flag("tiles", SWITCH, ("reconstruct",), "larger pictures in tiles (if need be); --notiles: no"),
    Flag("mask", PATH, ("edit",), "a picture, white where the image is made anew"),
    Flag("box", TEXTS, ("edit",), "left,top,right,bottom of what is made anew"),
    Flag("outpaint", TEXTS, ("edit",), "how far it grows at the left,top,right,bottom"),
    Flag(
        "margin",
        whole(0),
        ("edit",),
        "tokens made anew around the hidden ones (1; on small grids 0)",
    ),
    Flag("feather", whole(0), ("edit",), "known pixels a result fades in over (half a token)"),
    Flag(
        "metrics",
        TEXTS,
        ("evaluate",),
        "which evaluators (default: all of the config's, and samples if there are any)",
    ),
    Flag("force", SWITCH, DRAWING, "begin what may take weeks; sample: replace other samples"),
    Flag("compile_only", TEXT, COMPILED, "only compile for these devices: v5e-8, h100-8, cpu"),
    Flag("layout", SWITCH, ("train",), "with --compile_only: only how the state is split"),
    Flag("tries", whole(0), ("train",), "changes to compile, of a step that does not fit (0)"),
    Flag("json", PATH, COMPILED, "a file for what --compile_only finds"),
    DEBUG,
)
