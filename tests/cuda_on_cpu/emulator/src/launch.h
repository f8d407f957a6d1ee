// What the CUDA runtime's functions need to know of launches.
#pragma once
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "library.h"

namespace cuda_on_cpu {

constexpr std::size_t kDefaultSharedBytes = 48 << 10;  // dynamic shared memory a kernel may use unasked
constexpr std::size_t kMostSharedBytes = 227 << 10;    // and after cudaFuncSetAttribute, on sm_90
constexpr int kMultiprocessors = 4;                    // few, so that persistent grids stay short

bool raise_shared_limit(const void* kernel, std::size_t bytes);

extern Counts counts;

// Remembers a failure for cudaGetLastError; returns its argument.
cudaError_t record(cudaError_t status);

}  // namespace cuda_on_cpu
