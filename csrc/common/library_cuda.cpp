// Placeholder translation unit so that _C_cuda links before any CUDA kernel exists.
