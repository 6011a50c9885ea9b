"""Training. `loop` is the only loop; what differs between stages is an object, a `stage.Stage`.

Read `loop.train` first, then `stage1.TokenizerStage.update` (paper, Eq. 1) with `adversarial`, and
`stage2.GeneratorStage.update` (Eq. 2). `setup` is what a run is made of before it has a state,
`initial_state` that state, and `resume_rules` says whose a workdir is. `reporting` and `alarms` are
what it says, `stopping` what stops it. `run_length`, `optim`, `accumulation` and `skipping` are how
weights move.
"""
