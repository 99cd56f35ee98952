"""LatentCLR: discover editing directions in a pre-trained generator without labels (arXiv 2104.00820).

The method: `directions`, `projectors`, `similarity`, `loss`, and `step`, the one step of training and evaluation.
A run: `config` (every option), `compose` (words to options), `training`, `checkpoint`, `evaluation`, `render`.
Generators: `generators` has each behind one protocol, with its weights. Names of directions: `catalog`.
Commands: `cli` and `commands` (train, eval, gen). Runs of catlab-team/latentclr: `origin`, `origin_run`.
It knows nothing of ONNX or Triton. Importing it is instant: the modules below it import torch, this one does not.
"""

__version__ = "0.1.0"
