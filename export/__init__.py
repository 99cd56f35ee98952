"""Fuse a direction model with its generator into one graph, prove it equal to eager PyTorch, publish it for Triton.

`pipeline` is the whole way, from a run folder to a published model; `cli` is its command.
The function: `editor` is the served function, written once, in eager PyTorch.
Graphs: `onnx`, `openvino` and `torchscript` export it, and `parity` certifies how near they draw to what it draws.
Precision: `half` and `int8` lower a graph, `precision` searches how far the gate allows it, `reduced` is all of that.
Models: `manifest` says what a model is, and `triton_config` writes `config.pbtxt` for CPU, GPU and TensorRT.
The repository: `repository` publishes versions in one rename, and goes back to older ones.
"""
