"""Compilation ahead of time: what a compiler says of a config's programs, with no device.

`compile_only` is `python -m evqgan.main --compile_only=TOPOLOGY`. Nothing is read and nothing is
trained: all arrays are shapes.
"""
