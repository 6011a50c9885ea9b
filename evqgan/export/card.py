"""The model card: README.md of an exported model, of its configs, its numbers and its data."""

import dataclasses
import json
import math
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import yaml

from evqgan.core import exported_weights
from evqgan.core.progress import counted
from evqgan.export import check
from evqgan.export.gathered import Gathered
from evqgan.export.sources import Source

# Hugging Face's names of what a model does. It has no task of generating by class (the last is no
# pipeline_tag): what it calls unconditional has "no condition in any context".
RECONSTRUCTS = "image-to-image"
GENERATES = "unconditional-image-generation"
GENERATES_BY_CLASS = "conditional-image-generation"
PAPER = "https://arxiv.org/abs/2310.05400"
# What `check.write` measures, in words.
MEASURED = {
    "frechet": "samples",
    "held_out": "held-out images",
    "random_ids": "images of random ids",
}
CLASSES = 20  # ours: of more classes a card names none
CONVERTED = "converted from a file of another program, which does not say how it was trained."
UNKNOWN = "not known to this program: whoever passes the model on has to say it here"


@dataclasses.dataclass(frozen=True)
class Card:
    """What a model card is made of.

    name: of the model. found: the model. source: its data.
    dtype, size: of the weights, and the bytes of their file.
    checked: what `check.write` returned, or None. alone: what `programs.write` returned, or "".
    """

    name: str
    found: Gathered
    source: Source
    dtype: str
    size: int
    checked: Mapping[str, Any] | None = None
    alone: str = ""

    def text(self) -> str:
        """Return the README.md."""
        head = yaml.safe_dump(self.head(), sort_keys=False, allow_unicode=True, width=1000)
        parts = [self.what(), self.use(), *([self.alone] if self.alone else []), self.numbers()]
        parts += [self.training(), self.data(), self.limits()]
        return f"---\n{head}---\n\n" + "\n".join(parts)

    def head(self) -> dict[str, Any]:
        """Return what programs read of a card: the licence, tags, and numbers (model-index)."""
        tags, task = ["jax", "vector-quantization", "image-tokenizer"], self.task()
        tags += ["image-generation"] if self.found.part == "generator" else []
        tags += [task] if task == GENERATES_BY_CLASS else []
        of_data = "other" if self.found.origin else self.source.identifier
        head: dict[str, Any] = {"license": of_data}
        if head["license"] == "other":
            head |= {"license_name": "see-readme", "license_link": "LICENSE.txt"}
        head |= {"library_name": "evqgan", "tags": tags}
        head |= {} if task == GENERATES_BY_CLASS else {"pipeline_tag": task}
        if results := [one for one in self.results() if one["metrics"]]:
            head["model-index"] = [{"name": self.name, "results": results}]
        return head

    def task(self) -> str:
        """Return what the model does, as Hugging Face calls it."""
        if self.found.part == "tokenizer":
            return RECONSTRUCTS
        by_class = self.found.config["generator"].get("classes", 0)
        return GENERATES_BY_CLASS if by_class else GENERATES

    def results(self) -> Iterator[dict[str, Any]]:
        """Yield what model-index has of each evaluator."""
        for name, card in self.found.evaluation["protocols"].items():
            real = card.get("real") or {"source": self.source.name or "unknown", "split": ""}
            about = {"type": real["source"], "name": real["source"], "split": real["split"]}
            values = {
                number: self.found.evaluation["numbers"].get(number) for number in shown(card)
            }
            metrics = [
                {"type": number, "name": number, "value": value}
                for number, value in values.items()
                if value is not None and math.isfinite(value)
            ]
            kind = RECONSTRUCTS if name == "reconstruction" else self.task()
            task = {"type": kind, "name": name}
            yield {"task": task, "dataset": about, "metrics": metrics}

    def what(self) -> str:
        """Return what the model is."""
        config, tokenizer = self.found.config, self.found.configs["tokenizer"]
        height, width = sides(config)
        kind = "A generator of pictures, with its tokenizer"
        if self.found.part == "tokenizer":
            kind = "A tokenizer of pictures: pictures to ids, and back"
        named = names_of(config)
        rows = [
            ("pictures", f"{width}x{height} pixels, RGB"),
            ("data", self.source.name or "not known"),
            *([("classes", ", ".join(named))] if 0 < len(named) <= CLASSES else []),
            *([("classes", f"{len(named):,}")] if len(named) > CLASSES else []),
            (
                "tokenizer",
                f"{parts_of(tokenizer['tokenizer'])}: {count(self.weights('tokenizer'))}",
            ),
        ]
        if self.found.part == "generator":
            model = config["generator"]
            rows += [("generator", f"{model['name']}: {count(self.weights('generator'))}")]
        rows += [("weights", f"{self.averaged()}, {self.dtype}, {self.size / 1e6:.1f} MB")]
        table = "\n".join(f"| {left} | {cell(right)} |" for left, right in rows)
        return (
            f"# {self.name}\n\n{kind}, by [Efficient-VQGAN]({PAPER}) (Cao et al., ICCV 2023) in "
            f"JAX.\n\n| | |\n|---|---|\n{table}\n"
        )

    def averaged(self) -> str:
        """Return which weights of both parts these are: averaged over training, or not."""
        kinds = {}
        for part, config in self.found.configs.items():
            kinds[part] = "averaged ones (EMA)"
            if (config.get("optimizer") or {}).get("ema") == 0:
                kinds[part] = "those of the last step"
            if not self.found.steps[part]:
                kinds[part] = "as they came, converted or of unknown training"
        if len({*kinds.values()}) == 1:
            return next(iter(kinds.values()))
        return "; ".join(f"{part}: {kind}" for part, kind in kinds.items())

    def weights(self, part: str) -> Any:
        """Return the params of a part."""
        return exported_weights.tree_of(self.found.state)[part]["params"]

    def use(self) -> str:
        """Return how the model is used."""
        name, run = shlex.quote(self.name), "python -m evqgan.main"
        named, (height, width) = names_of(self.found.config), sides(self.found.config)
        box = f"--box={width // 4},{height // 4},{width * 3 // 4},{height * 3 // 4}"
        label = f", labels=[{quoted(named[0])}]" if named else ""
        is_generator = self.found.part == "generator"
        made = f"model.generate(8{label})  # uint8 [8, {height}, {width}, 3]"
        calls = [
            f"model = evqgan.load({quoted(self.name)})  # this folder's path, or hf://USER/NAME",
            "images = " + made
            if is_generator
            else f"images = np.zeros((8, {height}, {width}, 3), np.uint8)  # yours",
            "ids = model.encode(images)  # int32 [8, h, w, depth]",
            "again = model.decode(ids)",
        ]
        commands = [f"{run} --workdir={name} --mode=reconstruct --image=PICTURE"]
        if is_generator:
            own = f", {quoted(named[0])}" if named else ""
            calls += [
                f"mask = np.zeros(({height}, {width}), bool)",
                f"mask[{height // 4}:{height * 3 // 4}, {width // 4}:{width * 3 // 4}] = True",
                f"edited = model.edit(images[0], mask{own})",
            ]
            edit = " --label=CLASS" if named else ""
            commands += [f"{run} --workdir={name} --mode=sample --num=16"]
            commands += [f"{run} --workdir={name} --mode=edit --image=PICTURE {box}{edit}"]
        python, shell = "\n".join(calls), "\n".join(commands)
        return (
            f"## Use\n\n```python\nimport numpy as np\n\nimport evqgan\n\n{python}\n```\n\n"
            f"```bash\n{shell}\n```\n\n"
            f"Results go to `workdirs/{self.name}`, unless `--out` names another folder.\n"
        )

    def numbers(self) -> str:
        """Return the table of numbers, and how to measure them again."""
        title = "## Numbers\n\n"
        evaluation, lines = self.found.evaluation, []
        for name, card in evaluation["protocols"].items():
            real = card.get("real") or {}
            on = f"{real['source']} {real['split']}".strip() if real else ""
            if real and real["count"] is not None:
                on += f", {counted(real['count'], 'image')}"
            for number in shown(card):
                value = evaluation["numbers"].get(number)
                if value is not None:
                    lines.append(f"| {number} | {value:.4g} | {name} | {cell(on)} |")
        if self.checked:
            where = "training images"
            for key, what in MEASURED.items():
                number = self.checked["held_out_images" if key == "held_out" else "num"]
                made = f"{number} {what}, colours averaged to {check.SIDE}x{check.SIDE}"
                lines.append(f"| frechet ({made}) | {self.checked[key]:.4g} | check | {where} |")
        if not lines:
            return f"{title}None were measured of these weights.\n"
        table = "\n".join(
            ["| number | value | evaluator | real images |", "|---|---|---|---|", *lines]
        )
        again = f"python -m evqgan.main --workdir={shlex.quote(self.name)} --mode=evaluate"
        rounded = "They are of the weights before they were rounded to float16. "
        note = rounded if self.dtype == "float16" and evaluation["numbers"] else ""
        kept = "How each was measured: `evaluation.json`, `protocols`. " if note or lines else ""
        return f"{title}{table}\n\n{note}{kept}`{again}` measures again, with the data at hand.\n"

    def training(self) -> str:
        """Return how both parts were trained."""
        lines = []
        for part, config in self.found.configs.items():
            step, batch = self.found.steps[part], config["batch_size"]
            if step is None:
                lines.append(f"* **{part}**: how it was trained is not known.")
                continue
            if step == 0:
                if not self.found.origin:
                    lines.append(f"* **{part}**: {CONVERTED}")
                continue
            line = f"* **{part}**: {counted(step, 'step')} of {counted(batch, 'image')}"
            if examples := (config.get("data") or {}).get("examples"):
                line += f", of {counted(examples, 'training image')}"
            terms = "; ".join(terms_of(config)) if part == "tokenizer" else ""
            lines.append(f"{line}, seed {config['seed']}{'; ' if terms else ''}{terms}.")
        text = "\n".join([*of_origin(self.found.origin), *lines])
        settings = "All settings are in `config.json`."
        if self.found.is_converted:
            settings = (
                "`config.json` has the settings of the networks. Those of data and training in it "
                "are what evaluation and further training take, not how the weights were made."
            )
        return f"## How it was trained\n\n{text}\n\n{settings}\n"

    def data(self) -> str:
        """Return what the data are, and their licence."""
        about = f"{self.source.name}: {self.source.about}".strip(": ")
        link = f" {self.source.homepage}" if self.source.homepage else ""
        of_data = f"Licence of the data: {licence(self.source)}."
        return f"## Data and licence\n\n{about}{link}\n\n{of_data}\n"

    def limits(self) -> str:
        """Return what the model cannot do."""
        height, width = sides(self.found.config)
        lines = [
            f"It knows pictures like those of {of_data(self.source)} alone, of about "
            f"{width}x{height} pixels: others come out worse, or not at all."
        ]
        examples = (self.found.config.get("data") or {}).get("examples") or 0
        if self.found.part == "generator" and 0 < examples < 10_000:
            lines.append(
                f"{examples:,} training images are few: samples may be near to some of them."
            )
        if self.dtype == "float16":
            lines.append("In float16 a token that lies between two codes may get the other id.")
        text = "\n".join(f"* {line}" for line in lines)
        return f"## Limits\n\n{text}\n"


def shown(card: Mapping[str, Any]) -> list[str]:
    """Return the names of a card's numbers, but for those of single classes."""
    return [name for name in card["numbers"] if not name.startswith("sample_accuracy@")]


def cell(text: str) -> str:
    """Return a text as a cell of a Markdown table, whatever a class or a folder is called."""
    return " ".join(text.split()).replace("|", "\\|")


def quoted(text: str) -> str:
    """Return a text as a literal of Python, in double quotes."""
    return json.dumps(text, ensure_ascii=False)


def sides(config: Mapping[str, Any]) -> tuple[int, int]:
    """Return the (height, width) of a config's images."""
    size = config["dataset"].get("size", 256)
    height, width = (size, size) if isinstance(size, int) else size
    return height, width


def names_of(config: Mapping[str, Any]) -> list[str]:
    """Return the names of a generator's classes; none of a tokenizer or without classes."""
    has_classes = config.get("generator", {}).get("classes", 0)
    return list(config.get("class_names", ())) if has_classes else []


def parts_of(tokenizer: Mapping[str, Any]) -> str:
    """Return in words what a config.tokenizer consists of."""
    quantizer = tokenizer["quantizer"]
    codes = f" of {quantizer['codes']:,} codes" if "codes" in quantizer else ""
    return f"{tokenizer['encoder']['name']}, {quantizer.get('name', 'vq')}{codes}"


def count(params: Any) -> str:
    """Return in words how many parameters there are."""
    return f"{sum(np.size(x) for x in jax.tree.leaves(params)) / 1e6:.2f} M parameters"


def terms_of(config: Mapping[str, Any]) -> Iterator[str]:
    """Yield what networks a tokenizer's loss looks through."""
    perceptual, adversarial = config.get("perceptual"), config.get("adversarial")
    untrained = " with untrained features"
    if perceptual and perceptual.get("weight", 1.0):
        random = untrained if perceptual.get("weights") == "random" else ""
        yield f"perceptual distance {perceptual['distance']['name']}{random}"
    if adversarial and adversarial.get("weight", 1.0):
        random = untrained if adversarial.get("weights") == "random" else ""
        yield f"critic {adversarial['critic']['name']}{random}"


def of_data(source: Source) -> str:
    """Return the data that a model was trained on, in words."""
    return f"the data set {source.name}" if source.name else "its training"


def licence(source: Source) -> str:
    """Return the licence of data in words."""
    return "; ".join(source.licence.split("\n")) if source.licence else UNKNOWN


def of_origin(origin: Mapping[str, Any]) -> list[str]:
    """Return a line on public weights, and one on each of their files; none of other weights."""
    if not origin:
        return []
    said = origin["licences"]
    lines = [
        f"* The weights are public ones, {origin['name']}, which were converted and not trained "
        f"here. Licence of their code: {said['code']}; of the weights: {said['weights']}."
    ]
    for file in origin["files"]:
        lines += [f"* {file['file']}: {file['url']}, sha256 {file['sha256']}."]
    return lines


def licences(source: Source, origin: Mapping[str, Any]) -> str:
    """Return LICENSE.txt; origin: of public weights, or {}."""
    link = f"\n{source.homepage}" if source.homepage else ""
    public = "".join(f"{line.removeprefix('* ')}\n" for line in of_origin(origin))
    return (f"{public}\n" if public else "") + (
        f"The weights in this folder were made from pictures of {of_data(source)}, whose "
        f"licence is:\n\n{licence(source)}{link}\n\nThe program that reads them, evqgan: "
        "Apache-2.0.\n"
    )
