"""For scripts beside a clone that is called evqgan: what they import by this name is the package within it."""

import pathlib

_package = pathlib.Path(__file__).parent / "evqgan"
__path__ = [str(_package)]
exec(
    compile(
        (_package / "__init__.py").read_text(encoding="utf-8"),
        str(_package / "__init__.py"),
        "exec",
    )
)
