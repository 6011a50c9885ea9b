"""Public weights to ours and back: `python -m evqgan.convert`. One table of names a system; nothing is run."""
