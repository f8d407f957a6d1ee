"""What the CUDA kernels cost, counted from their machine code and what the workloads make it do; needs no GPU.

``sass``: reading machine code, and ways through it. RoI operations: ``geometry``, what the boxes make kernels do,
``kernels``, how often each loop is gone round, and ``peers``, torchvision's. Transposed convolutions and masks:
``walks``, ways and how often they are gone, ``conv_geometry`` and ``conv``, ``paste``. ``scenes``: the workloads;
``gpu``: the limits; ``estimates``: all of it together; ``report`` and ``picture``: showing it.
"""
