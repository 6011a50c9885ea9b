"""Pictures that explain: what runs wrote while they trained, and who attends to whom.

`curves` reads metrics.jsonl, `charts` draws what it finds, `attention` one block of a generator;
`canvas` is what they draw on. `python -m evqgan.plot` is the command.
"""
