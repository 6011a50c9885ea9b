"""What is installed on this machine, before JAX is imported: versions, GPU driver, memory, disk."""

import importlib.metadata
import pathlib
import platform
import re
import subprocess
import tomllib
from collections.abc import Iterable, Iterator, Sequence

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from evqgan.core import chips, versions
from evqgan.core.errors import InputError
from evqgan.doctor.report import Wrong

# What of the libraries has to fit together: JAX says which versions of these it works with.
COMPILERS = re.compile(r"(jaxlib|libtpu|jax-cuda\d+-(plugin|pjrt))")
# NVIDIA driver and compute capability at least, by CUDA's version (JAX's installation page).
DRIVERS = {"13": (580, 7.5), "12": (525, 5.2)}
PCI, GOOGLE = pathlib.Path("/sys/bus/pci/devices"), "0x1ae0"
OTHER_TPUS = {"0x0027", "0x0076"}  # PCI's numbers of v2 and v3, and 7x: not in chips.TPUS
INSTALL = {"gpu": 'pip install "jax[cuda13]"', "tpu": 'pip install "jax[tpu]"', "cpu": ""}


def asked(words: Sequence[str]) -> tuple[str, int]:
    """Return the platform and the number of devices that --device=gpu,8 asks for; "" and 0: any."""
    platform, number = "", 0
    for word in words:
        if word in INSTALL and not platform:
            platform = word
        elif word.isdecimal() and int(word) and not number:
            number = int(word)
        else:
            raise InputError(
                f"--device={','.join(words)}: expected gpu, tpu, cpu, a number, or gpu,8"
            )
    return platform, number


def project() -> tuple[str, list[str]]:
    """Return which versions of Python, and which packages, this code works with."""
    file = versions.PACKAGE.parent / "pyproject.toml"
    if file.is_file():
        found = tomllib.loads(file.read_text())["project"]
        return found["requires-python"], found["dependencies"]
    metadata = importlib.metadata.metadata("evqgan")
    needed = metadata.get_all("Requires-Dist") or []
    return metadata["Requires-Python"], [x for x in needed if "extra ==" not in x]


def installed(name: str) -> str:
    """Return the version of an installed package, "" if it is not there."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def unmet(requirements: Iterable[str], optional: bool = False) -> list[str]:
    """Return "NAME VERSION, expected RANGE" of requirements that what is installed does not meet.

    optional: a package that is not there is not needed.
    """
    wrong = []
    for requirement in map(Requirement, requirements):
        found = installed(requirement.name)
        if not found and optional:
            continue
        if not found or not requirement.specifier.contains(found, prereleases=True):
            there = found or "absent"
            wrong.append(f"{requirement.name} {there}, expected {requirement.specifier or 'any'}")
    return wrong


def packages() -> str:
    """Check Python and the packages that this code needs."""
    python, needed = project()
    here = platform.python_version()
    if not SpecifierSet(python).contains(here, prereleases=True):
        raise Wrong(f"Python {here}, expected {python}: make an environment with another Python")
    if wrong := unmet(needed):
        raise Wrong(
            f"{'; '.join(wrong)}: pip install -r requirements.txt (pip install . elsewhere)"
        )
    shown = " ".join(f"{name} {installed(name)}" for name in ("jax", "flax", "numpy"))
    commit = versions.commit()
    return f"Python {here}, {shown}, code {versions.code()}{f' ({commit})' if commit else ''}"


def compilers() -> str:
    """Check that jaxlib, a GPU's plugin and a TPU's libtpu are of versions that this JAX takes."""
    needed = [x for package in ("jax", *_plugins()) for x in _of_ours(package)]
    if wrong := unmet(needed, optional=True):
        build = f"[{extra()}]" if extra() else ""
        raise Wrong(f'{"; ".join(wrong)}: pip install "jax{build}=={installed("jax")}"')
    names = sorted({Requirement(x).name for x in needed})
    there = [f"{name} {installed(name)}" for name in names if installed(name)]
    return f"{', '.join(there)} fit jax {installed('jax')}"


def _of_ours(package: str) -> Iterator[str]:
    """Yield what a package needs of COMPILERS, with the extra that is installed."""
    for text in importlib.metadata.requires(package) or []:
        found = Requirement(text)
        holds = not found.marker or found.marker.evaluate({"extra": extra()})
        if COMPILERS.match(found.name) and holds:
            yield str(found).split(";")[0]


def _plugins() -> list[str]:
    return [f"jax-cuda{cuda}-plugin" for cuda in DRIVERS if installed(f"jax-cuda{cuda}-plugin")]


def extra() -> str:
    """Return the extra of JAX that is installed: "cuda13", "cuda12", "tpu" or ""."""
    if plugins := _plugins():
        return plugins[0].split("-")[1]
    return "tpu" if installed("libtpu") else ""


def gpus() -> list[tuple[str, str, str]]:
    """Return (name, driver, compute capability) of the NVIDIA GPUs, as nvidia-smi says."""
    query = "name,driver_version,compute_cap"
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
    try:
        made = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return []
    rows = [line.split(", ") for line in made.stdout.splitlines()] if not made.returncode else []
    return [(row[0], row[1], row[2]) for row in rows if len(row) == 3]


def tpus(pci: pathlib.Path = PCI) -> int:
    """Return the number of TPU chips on this machine's PCI bus."""
    numbers = OTHER_TPUS | {tpu.pci for tpu in chips.TPUS.values()}
    found = 0
    for device in pci.glob("*"):
        ids = [device / name for name in ("vendor", "device")]
        if all(file.is_file() for file in ids):
            vendor, number = (file.read_text().strip() for file in ids)
            found += vendor == GOOGLE and number in numbers
    return found


def driver() -> str | None:
    """Check that the GPU's driver, and the GPU, are new enough for the installed build of JAX."""
    found = gpus()
    if not found:
        return None
    name, version, capability = found[0]
    text = f"{len(found)} x {name}, driver {version}, compute capability {capability}"
    cuda = extra().removeprefix("cuda")
    if cuda in DRIVERS:
        least, oldest = DRIVERS[cuda]
        if int(version.split(".")[0]) < least:
            older = ', or pip install "jax[cuda12]"' if cuda == "13" else ""
            raise Wrong(f"{text}: CUDA {cuda} needs driver {least} or later: update it{older}")
        if float(capability) < oldest:
            older = 'pip install "jax[cuda12]"' if cuda == "13" else "another GPU is needed"
            raise Wrong(f"{text}: CUDA {cuda} needs compute capability {oldest}: {older}")
    return text


def memory() -> tuple[float, float]:
    """Return the bytes of memory of this machine, or of this container, and those available."""
    total, there = _of_linux()
    try:  # a container's limit
        group = pathlib.Path("/sys/fs/cgroup")
        most = int((group / "memory.max").read_text())
        return min(total, most), min(there, most - int((group / "memory.current").read_text()))
    except (OSError, ValueError):  # none, or "max"
        return total, there


def _of_linux() -> tuple[float, float]:
    from evqgan.core import limits

    try:
        text = pathlib.Path("/proc/meminfo").read_text()
        kib = dict(re.findall(r"^(\w+): +(\d+) kB", text, re.MULTILINE))
        return 1024.0 * int(kib["MemTotal"]), 1024.0 * int(kib["MemAvailable"])
    except (OSError, KeyError):  # another system
        return limits.of_machine(), limits.of_machine()
