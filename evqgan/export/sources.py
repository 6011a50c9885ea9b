"""What is known of a data set: what it shows, where it is from, its licence."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from evqgan.core import build
from evqgan.core.errors import InputError
from evqgan.data import named
from evqgan.data.dataset import Dataset

CREATIVE_COMMONS = re.compile(r"CC[ -](BY(?:-SA)?)[ -](\d\.\d)")


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set, in words; "" where something is not known."""

    name: str
    about: str = ""
    homepage: str = ""
    licence: str = ""

    @property
    def identifier(self) -> str:
        """Its licence as the head of a model card has it, such as "cc-by-sa-4.0", or "other"."""
        found = {"-".join(("cc", *x)).lower() for x in CREATIVE_COMMONS.findall(self.licence)}
        is_single = len(found) == 1 and CREATIVE_COMMONS.match(self.licence)
        return found.pop() if is_single else "other"


# Of converted weights. The data in their config are what evaluation and further training take.
UNKNOWN = Source(
    "", "The weights were converted; on what pictures they were trained their file does not say."
)


def source_of(config: Mapping[str, Any]) -> Source:
    """Return what is known of the data that a config names; no data are read."""
    dataset = build.call(Dataset, config["dataset"], "config.dataset")
    if dataset.folder:
        return Source(dataset.folder, "A folder of pictures.")
    if dataset.name == "generated":
        return Source("generated", "Generated shapes, which stand in for pictures.")
    try:
        info = named.find(named.at_size(dataset.name, dataset.shape), None).info
    except InputError:  # a data set that this version of tfds does not have
        return Source(dataset.name)
    about = " ".join(str(info.description).split())
    return Source(dataset.name, about, info.homepage, info.redistribution_info.license or "")
