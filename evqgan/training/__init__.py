"""Training. `loop` is the only loop; what differs between stages is an object of the form `stage.Stage`.

Read `loop.run` first, then `stage1.TokenizerStage` (paper, Eq. 1) with `adversarial`, and `stage2.GeneratorStage`
(Eq. 2). `claims` says whose a workdir is, `initial_state` with what a run begins, `optim` how weights move.
"""
