"""Write the list of all keys of a config, from the constructors that take and check them.

python -m docs.make.config_keys docs/config_keys.md
"""

import argparse
import inspect
import pathlib
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from evqgan import models
from evqgan.core import build, kinds, mesh, schema
from evqgan.data.dataset import Dataset
from evqgan.tokenizers import tokenizer
from evqgan.training import adversarial, optim, stage1, stage2

HEAD = """# All keys of a config

Made by `python -m docs.make.config_keys docs/config_keys.md` from the constructors that take these
keys and check them; a test compares it with the code. Each key is a flag, too:
`--config.optimizer.learning_rate=3e-4` ([how](training.md#any-key-from-the-command-line)). Numbers
are finite and not negative where nothing else stands. A name in backquotes, such as
`masking.corrupt`, is a function or module of the code which says more. Where a section has a key
`name`, that is the module which the other keys are for.
"""
LONG = 25  # ours: characters of a comment that says all by itself; a shorter one is a source
ENTRY = re.compile(r"^( *)((?:\w+, )*\w+): (.+)$")


class Section(NamedTuple):
    """Keys that one constructor takes."""

    key: str  # such as "config.dataset"
    function: Callable[..., Any]
    given: tuple[str, ...] = ()  # its arguments that are no keys
    name: str = ""  # the value of the key `name`
    without: tuple[str, ...] = ()  # keys that another section has already
    like: Callable[..., Any] | None = None  # what has arguments of the same names, and says more


class Package(NamedTuple):
    """Modules among which a section's key `name` chooses."""

    key: str
    package: str
    entry: str
    given: tuple[str, ...] = ("dtype",)


PACKAGES_OF_TOKENIZERS = (
    Package("config.tokenizer.encoder", "tokenizers", "Encoder"),
    Package("config.tokenizer.decoder", "tokenizers", "Decoder"),
    Package("config.tokenizer.quantizer", "tokenizers.quantizers", "Quantizer", ()),
    Package("config.perceptual.distance", "losses", "Distance"),
    Package("config.adversarial.critic", "losses", "Critic"),
)
# What these keys mean wherever no docstring says more of them.
COMMON = {
    "activation": "the function of the layers",
    "attention_bias": "whether the linear layers of attention have biases",
    "attention_dropout": "of attention weights",
    "patch": "side of a patch, in pixels",
    "blocks": "residual blocks of each level",
    "code_width": "channels of the codes' embedding",
    "codes": "V, the number of codes",
    "commitment": "weight of the commitment loss",
    "depths": "blocks of each stage",
    "dropout": "of the residual branches",
    "embedding_dropout": "of the tokens' embeddings",
    "expand": "see `cout`",
    "head_dim": "channels of a head of attention",
    "heads": "heads of attention",
    "layers": "layers, one after the other",
    "mlp_bias": "whether the linear layers of the MLP have biases",
    "mlp_ratio": "channels within the MLP, as a multiple of `width`",
    "mlp_width": "channels within the MLP",
    "multipliers": "channels of each level, as multiples of `width`",
    "remat": "compute again in the backward pass what layers make: less memory",
    "temperature": "of the logits that codes are drawn from",
    "top_k": "draw from the k likeliest codes; 0: from all",
    "top_p": "draw from the likeliest codes that have this share of the probability",
    "weight": "of this term of the loss",
    "width": "channels of layers; where stages differ, those of which the others are multiples",
}
OF_GENERATORS = ("codes", "latent", "dtype", "depth", "codebook_width", "factor")
PACKAGES_OF_GENERATORS = (
    Package("config.generator", "generators", "Model", OF_GENERATORS),
    Package("config.loss", "generators", "loss", models.GIVEN_TO_LOSS),
    Package("config.sample", "generators", "Settings", ()),
)
EVALUATORS = Package("config.evals", "evals", "Evaluator", schema.OF_EVALUATOR)


def main() -> None:
    """Write the list into the file that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=pathlib.Path)
    parser.parse_args().out.write_text(listing())


def listing() -> str:
    """Return the whole list as Markdown."""
    both = tuple(build.keys_of(schema.Experiment))
    parts = {
        "Both stages": [
            Section("config", schema.Experiment),
            Section("config.dataset", Dataset),
            Section("config.optimizer", optim.optimizer, ("run",)),
            Section("config.mesh", mesh.make, ("devices",)),
        ],
        "Tokenizers, stage 1": [
            Section("config", schema.TokenizerExperiment, without=both),
            Section("config.tokenizer", tokenizer.assemble, ("dtype",)),
            Section("config.loss", stage1.pixel_losses),
            Section("config.perceptual", stage1.perceptual, ("dtype",)),
            Section("config.adversarial", adversarial.Settings),
            *sections(PACKAGES_OF_TOKENIZERS),
        ],
        "Generators, stage 2": [
            Section("config", schema.GeneratorExperiment, without=both),
            Section("config.tokenizer", stage2.tokenizer_section),
            *sections(PACKAGES_OF_GENERATORS),
        ],
        "Evaluation": list(sections([EVALUATORS])),
    }
    pieces = [HEAD]
    for title, found in parts.items():
        pieces += [f"## {title}\n", *map(table, found)]
    return "\n".join(pieces)


def sections(packages: Iterable[Package]) -> Iterator[Section]:
    """Yield a section for each module of each package that has keys."""
    for key, package, entry, given in packages:
        for name in build.having(package, [entry]):
            found = build.module(package, name, key, entry)
            if package == "generators" and not hasattr(found, "TRAITS"):
                continue  # a network, which its generator has, too
            function, like = getattr(found, entry), getattr(found, "Encoder", None)
            if entry == "Evaluator":
                yield Section(f"{key}.{name}", function, given)
            else:
                yield Section(key, function, given, name, like=like)


def table(section: Section) -> str:
    """Return the heading of a section, and a table with a row for each of its keys."""
    of = f", of `{section.name}`" if section.name else ""
    known = build.keys_of(section.function, (*section.given, *section.without))
    rows = [f"### `{section.key}`{of}\n"]
    if not known:
        return "\n".join([*rows, "No other keys.\n"])
    said = COMMON | meanings(section.function, section.like)
    rows += ["| key | default | values | meaning |", "|---|---|---|---|"]
    for name, parameter in known.items():
        default = "needed" if parameter.default is parameter.empty else shown(parameter)
        values = kinds.describe(kinds.of(parameter))
        cells = (f"`{name}`", default, values, said.get(name, ""))
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([*rows, ""])


def shown(parameter: inspect.Parameter) -> str:
    """Return the default of a parameter, as one would write it."""
    default = parameter.default
    if callable(getattr(default, "default_factory", None)):
        default = default.default_factory()
    if str(default) == "<factory>":  # of a data class, as its signature shows it
        default = {}
    return f"`{default!r}`"


def meanings(
    function: Callable[..., Any], like: Callable[..., Any] | None = None
) -> dict[str, str]:
    """Return {key: what it means} of a class or function, and of one that is `like` it.

    From "key: meaning" of its docstring, or the comment at its line or above it; for fields that a
    class inherits, of the class that has them.
    """
    said: dict[str, str] = {} if like in (None, function) else meanings(like)
    classes = inspect.getmro(function) if inspect.isclass(function) else (function,)
    for one in reversed(classes):
        if one.__module__.startswith("evqgan"):
            said |= commented(inspect.getsource(one)) | documented(inspect.getdoc(one) or "")
    return said


def documented(text: str) -> dict[str, str]:
    """Return {key: meaning} of the entries of a docstring: "key, other: meaning"."""
    said: dict[str, str] = {}
    names: list[str] = []
    depth = 0
    for line in text.splitlines():
        found = ENTRY.match(line)
        if found and (not names or len(found[1]) <= depth):
            names, depth = found[2].split(", "), len(found[1])
            said |= dict.fromkeys(names, found[3])
        elif names and len(line) - len(line.lstrip()) > depth:
            for name in names:
                said[name] += f" {line.strip()}"
        else:
            names = []
    return said


def commented(source: str) -> dict[str, str]:
    """Return {key: the comment at its line, beside `COMMON`, or the lines of comment above it}."""
    said: dict[str, str] = {}
    above: list[str] = []
    for line in textwrap.dedent(source).splitlines():
        if line.strip().startswith("#"):
            above.append(line.strip().lstrip("# "))
            continue
        found = re.match(r"^    (\w+): [^#]*(?:# (.+))?$", line)
        if found and (found[2] or above):
            usual = COMMON.get(found[1]) if len(found[2] or "") < LONG else None
            said[found[1]] = "; ".join(filter(None, [usual, found[2] or " ".join(above)]))
        above = []
    return said


if __name__ == "__main__":
    main()
