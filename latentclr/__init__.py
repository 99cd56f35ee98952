"""LatentCLR: discover editing directions in a pre-trained generator without labels (arXiv 2104.00820).

The method: `method` (directions, loss, step). A run of it: `training`; its grids and curves: `pictures`.
What is edited: `generators` (the faces' DCGAN, BigGAN, StyleGAN2, and their weights).
Commands: `cli` and `commands`; their words become a configuration in `compose` and `config`. Names: `catalog`.
Runs of catlab-team/latentclr: `origin`. This package discovers; `export` exports, and `serving` serves.
Importing it is instant: the modules below import torch, this one does not.
"""

from __future__ import annotations

__version__ = "0.1.0"
