#include "launchers.h"
#include "mask_head_predict/mask_head_predict_cuda.h"

using namespace structops::cuda;

namespace {
template <class T>
using A = std::conditional_t<std::is_same_v<T, double>, double, float>;
}

EMULATE_FLOATING(mask_head_predict, (mask_head_predict<scalar_t, A<scalar_t>>))
