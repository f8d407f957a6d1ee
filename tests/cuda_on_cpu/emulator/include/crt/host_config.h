// Stands in for the toolkit's crt/host_config.h where the CUDA headers come from PyPI: the
// nvidia-cuda-runtime package leaves crt/ out. A quoted include looks beside the including file
// first, so a full toolkit keeps using its own.
#pragma once
#define CUDARTAPI
#define CUDARTAPI_CDECL
#define CUDAAPI
