"""R3GAN (arXiv 2501.05441): a GAN without a style network, from its authors' files."""
