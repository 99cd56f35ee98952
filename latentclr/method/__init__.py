"""LatentCLR itself (arXiv 2104.00820): direction models, the contrastive loss on features, and one step of it."""
