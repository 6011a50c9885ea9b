"""Memory, speed, locality and comparisons as commands: `python -m evqgan.benchmark`."""
