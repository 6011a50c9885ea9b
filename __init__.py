"""Let scripts beside a clone that is called evqgan import the package within it by that name."""

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
