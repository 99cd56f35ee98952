"""The rows of `gpu_pack.py`: models, engines, and the process that measures them."""
