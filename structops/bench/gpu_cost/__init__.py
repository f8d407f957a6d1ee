"""What the CUDA kernels cost, counted from their machine code and the boxes of the workloads; needs no GPU.

``sass``: reading machine code; ``geometry``: what the boxes make kernels do; ``kernels``: how often each loop is gone
round; ``gpu``: the limits; ``estimates``: all of it together; ``report`` and ``picture``: showing it.
"""
