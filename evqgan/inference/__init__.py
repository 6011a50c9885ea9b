"""Inference: from a workdir to images, numbers and stored ids. Calls go down only.

`planning` checks what is asked before anything is loaded. `batched` runs compiled functions over
any number of rows. `core.CoreModel` encodes, decodes and generates the tokens of any part of an
image; `resumable`, `rejection`, `editing` and `filmstrip` are functions of one. `model.Model`
offers all of them, and is what `evqgan.load` gives. `mode_sample`, `mode_edit`, `mode_reconstruct`,
`mode_encode` and `evaluation` (evaluate) are the modes of the command line.
"""
