"""CUDA kernels on the CPU: every CUDA thread a fiber, in three builds. See README.md here."""
