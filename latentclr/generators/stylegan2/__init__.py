"""StyleGAN2 (arXiv 1912.04958) in rosinality's layout, from its own files or NVIDIA's."""
