"""Own images in one go: a folder is looked through, and both stages are proposed for it.

`config.begin` fills in a config of the kind of configs/folder.py, and keeps what it chose in the
workdir; `evqgan.quickstart` then trains it. `given` checks what the command gives, `proposal` has
the table of what is proposed, `inits` the models that a run begins with, `plans` what is kept of
all this, and `estimate` says how long the training will take.
"""
