// Run-length encoding of masks on the CPU: the kernels of every instruction set, and the choice between them.
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <bit>
#include <cstring>

#include "common/cpu/memory.h"
#include "common/cpu/parallel.h"
#include "encode_masks/encode_masks.h"
#include "encode_masks/run_code.h"

#define STRUCTOPS_ISA_FILE "encode_masks/encode_masks_cpu_kernel.h"
#include "common/cpu/foreach_isa.h"

namespace structops::cpu {

void encode_masks(const EncodeParams& p, const uint8_t* masks, std::vector<std::string>& strings,
                  ParallelFor parallel_for) {
  STRUCTOPS_ISA_DISPATCH(encode_masks(p, masks, strings, parallel_for));
}

}  // namespace structops::cpu
