#include "conv_transpose2d/conv_transpose2d_cuda.h"
#include "launchers.h"

using namespace structops::cuda;

namespace {
template <class T>
using A = std::conditional_t<std::is_same_v<T, double>, double, float>;
}

EMULATE_FLOATING(conv_pack, conv_pack<scalar_t>)
EMULATE_FLOATING(conv_gather, (conv_gather<scalar_t, A<scalar_t>>))
EMULATE_FLOATING(conv_depthwise, (conv_depthwise<scalar_t, A<scalar_t>>))
EMULATE_FLOATING(conv_grad_weight_partials, (conv_grad_weight_partials<scalar_t, A<scalar_t>>))
EMULATE_FLOATING(conv_depthwise_grad_partials, (conv_depthwise_grad_partials<scalar_t, A<scalar_t>>))
EMULATE_FLOATING(conv_grad_weight_total, (conv_grad_weight_total<scalar_t, A<scalar_t>>))
EMULATE(conv_grad_weight_parts, conv_grad_weight_parts)
