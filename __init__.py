"""For scripts beside a clone that is called evqgan.

What they import by this name is the package within the clone.
"""

import pathlib

_package = pathlib.Path(__file__).parent / "evqgan"
_file = _package / "__init__.py"
__path__ = [str(_package)]
exec(compile(_file.read_text(encoding="utf-8"), str(_file), "exec"))
