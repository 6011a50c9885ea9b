"""Layers that several models share, and the frozen networks that losses and metrics look through."""
