"""Fuse a direction model with its generator into one graph, prove it equal to eager PyTorch, publish it for Triton."""
