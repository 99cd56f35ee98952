"""Starting and minding NVIDIA Triton: the wheel's own server, or NVIDIA's container."""
