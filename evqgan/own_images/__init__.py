"""Own images in one go: a folder is looked through, and both stages are proposed for it.

`config.complete` fills in a config of the kind of configs/folder.py, and keeps what it chose in the
workdir; `evqgan.quickstart` then trains it. `proposal` has the table of what is proposed, and
`estimate` says how long it will take.
"""
