"""`latentclr certify`: proof that a running server draws what eager PyTorch drew when its model was published."""
