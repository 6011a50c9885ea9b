"""Memory, speed, locality and the comparisons of the README as commands: `python -m evqgan.benchmark`."""
