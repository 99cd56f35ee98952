"""Fuse a direction model with its generator into one graph, prove it equal to eager PyTorch, publish it for Triton.

`pipeline` is the whole way, from a run folder to a published model; `cli` is its command.
The function: `editor` is the served function, written once, in eager PyTorch.
Graphs: `onnx` and `torchscript` export it, and `parity` certifies how near they draw to what it draws.
Precision: `operations` finds what can be lowered, `half` and `int8` do it, `precision` searches for what stays in
float32, `frontier` shows what was tried, and `reduced` is the whole of it.
Models: `manifest` says what a model is, and `triton_config` writes `config.pbtxt` for CPU, GPU and TensorRT.
The repository: `repository` publishes versions in one rename, and goes back to older ones.
"""
