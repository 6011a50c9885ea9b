"""The measurements of the README as commands: `python -m evqgan.benchmark NAME`.

Each module here with FLAGS and `run` is one; those in `paper` make the paper's tables and figures.
`runs` is what those of many runs share.
"""
