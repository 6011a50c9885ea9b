"""`python -m evqgan.doctor`: whether this machine can do what is asked of it, in one screen.

`machine` checks what is installed, `devices` what JAX finds and computes, `experiment` a config
with its data (`datasets`), its weights and its workdir. Each check is a line (`report.Check`).
"""
