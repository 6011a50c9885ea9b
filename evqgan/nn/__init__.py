"""Layers that several rooms share, and frozen networks. They know nothing of configs."""
