"""LatentCLR: discover editing directions in a pre-trained generator without labels (arXiv 2104.00820).

This package discovers (eager PyTorch); `export` fuses directions and generator into one graph; `serving` runs and
talks to NVIDIA Triton. Importing it is instant: the modules below it import torch, this one does not.
"""

__version__ = "0.1.0"
