"""The measurements of the README as commands: `python -m evqgan.benchmark NAME`.

Each module here with FLAGS and `run` is one; `runs` is what those of many runs share.
"""
