"""The definitions: every op in plain PyTorch, written to be read, in any float dtype and differentiable.

Each file depends on torch alone. Kernels are checked against these in float64.
"""
