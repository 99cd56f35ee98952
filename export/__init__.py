"""Fuse a direction model with its generator into one graph, prove it equal to eager PyTorch, publish it for Triton.

`pipeline` is the whole way, from a run folder to a published model; `cli` is its command.
The function: `editor` is the served function, written once, in eager PyTorch.
Graphs: `onnx`, `openvino` and `torchscript` export it, `engines` asks them, `fastest` times, `parity` certifies them.
Precision: `half`, `int8` and `openvino_lowered` lower `operations`, `precision` searches, `reduced` is the whole of it.
Models: `manifest` says what a model is, and `triton_config` writes `config.pbtxt` for CPU, GPU and TensorRT.
Places: `repository` publishes versions for Triton in one rename, and goes back; `web` writes a page for browsers.
"""
