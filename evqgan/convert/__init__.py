"""Public weights to ours and back: `python -m evqgan.convert`.

There is one table of names a system; nothing that stands in a file is run.
"""
