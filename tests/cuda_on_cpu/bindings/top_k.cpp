// What generate_proposals and select_detections share (csrc/common/cuda/top_k.cu); their bindings call it.
#include "common/cuda/top_k.h"

#include "launchers.h"

using namespace structops::cuda;

EMULATE_FLOATING(top_k_workspace, top_k_workspace<scalar_t>)
EMULATE_FLOATING(top_k, top_k<scalar_t>)
EMULATE_FLOATING(top_k_keys, top_k_keys<scalar_t, std::conditional_t<sizeof(scalar_t) == 8, int64_t, int32_t>>)
