// Pasting masks on the CPU: the kernels of every instruction set, and the choice between them.
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "common/cpu/memory.h"
#include "common/cpu/parallel.h"
#include "common/tensor.h"
#include "paste_masks/paste_axis.h"
#include "paste_masks/paste_masks.h"

#define STRUCTOPS_ISA_FILE "paste_masks/paste_masks_cpu_kernel.h"
#include "common/cpu/foreach_isa.h"

namespace structops::cpu {

template <class T>
void paste_masks(const PasteParams& p, const T* masks, const void* boxes, void* output, ParallelFor parallel_for) {
  STRUCTOPS_ISA_DISPATCH(paste_masks<T>(p, masks, boxes, output, parallel_for));
}

template void paste_masks<float>(const PasteParams&, const float*, const void*, void*, ParallelFor);
template void paste_masks<double>(const PasteParams&, const double*, const void*, void*, ParallelFor);

}  // namespace structops::cpu
