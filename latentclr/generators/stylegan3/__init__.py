"""StyleGAN3 (arXiv 2106.12423), configurations T and R, from NVIDIA's files."""
