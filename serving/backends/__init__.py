"""Python-based Triton backends that stand in for NVIDIA's C++ ones, under the same names."""
