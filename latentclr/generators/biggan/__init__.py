"""BigGAN (arXiv 1809.11096) in the layout of pytorch-pretrained-biggan, and the classes of ImageNet."""
