// The part of the CUDA runtime that launchers call. Everything is synchronous, memory is the host's.
#include <cuda_runtime_api.h>

#include <cstring>

#include "launch.h"
#include "scheduler.h"

namespace cuda_on_cpu {
namespace {
cudaError_t last_error = cudaSuccess;
}
cudaError_t record(cudaError_t status) {
  if (status != cudaSuccess) last_error = status;
  return status;
}
}  // namespace cuda_on_cpu

using cuda_on_cpu::record;

extern "C" {

cudaError_t cudaPeekAtLastError() { return cuda_on_cpu::last_error; }
cudaError_t cudaGetLastError() {
  const cudaError_t error = cuda_on_cpu::last_error;
  cuda_on_cpu::last_error = cudaSuccess;
  return error;
}
const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaSuccess ? "no error" : cuda_on_cpu::scheduler.error().c_str();
}

cudaError_t cudaMemsetAsync(void* p, int value, std::size_t bytes, cudaStream_t) {
  if (bytes != 0) std::memset(p, value, bytes);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind, cudaStream_t) {
  if (bytes != 0) std::memcpy(to, from, bytes);
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  switch (attribute) {
    case cudaDevAttrMultiProcessorCount:
      *value = cuda_on_cpu::kMultiprocessors;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = cuda_on_cpu::kMostSharedBytes;
      return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      *value = cuda_on_cpu::kDefaultSharedBytes;
      return cudaSuccess;
    default:
      return record(cudaErrorInvalidValue);  // add the attribute here
  }
}
cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  if (cuda_on_cpu::raise_shared_limit(kernel, static_cast<std::size_t>(value))) return cudaSuccess;
  cuda_on_cpu::scheduler.set_error("more dynamic shared memory asked for than an sm_90 block can have");
  return record(cudaErrorInvalidValue);
}

}  // extern "C"
