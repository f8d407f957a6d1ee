// Functions that the CPU and the GPU both run.
#pragma once

#if defined(__CUDACC__) || defined(STRUCTOPS_CUDA_ON_CPU)
#define STRUCTOPS_HOST_DEVICE __host__ __device__ __forceinline__
#define STRUCTOPS_THIS_SIDE __device__ __forceinline__  // takes a lambda, which exists on one side only
#else
#define STRUCTOPS_HOST_DEVICE inline
#define STRUCTOPS_THIS_SIDE inline
#endif
