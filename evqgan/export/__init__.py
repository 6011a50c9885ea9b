"""A trained model as a folder to pass on: `python -m evqgan.export WORKDIR DEST`.

`gathered` takes from workdirs what belongs to a model, `folder` writes it, with the card that
`card` composes. `check` keeps what a test needs to see that the model is as good as it was.
`core.exported` says what such a folder holds; nothing in it is executed when it is read.
"""
