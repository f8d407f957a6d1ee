#include "generate_proposals/generate_proposals_cuda.h"
#include "launchers.h"

using namespace structops::cuda;

template <class S>
using ComputeOf = std::conditional_t<sizeof(S) == 8, double, float>;

EMULATE_FLOATING(proposal_codes, proposal_codes<scalar_t, ComputeOf<scalar_t>>)
EMULATE_FLOATING(proposal_boxes, proposal_boxes<scalar_t, ComputeOf<scalar_t>>)
EMULATE(gather_proposals_float32, gather_proposals<float>)
EMULATE(gather_proposals_float64, gather_proposals<double>)
