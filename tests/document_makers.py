"""The programs that make documents of this repository, of the folder docs/make."""

import importlib.util
import pathlib

ROOT = pathlib.Path(__file__).parent.parent


def maker(name):
    """The module docs/make/NAME.py, read by its path: what is installed as evqgan has no docs/."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / "make" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
