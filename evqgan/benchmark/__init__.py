"""The measurements of the README as commands: `python -m evqgan.benchmark NAME`.

Each module here with FLAGS and `run` is one, and so in `paper` of its tables and figures; `runs` is
what those of many runs share.
"""
