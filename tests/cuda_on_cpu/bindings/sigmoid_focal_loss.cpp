#include "launchers.h"
#include "sigmoid_focal_loss/sigmoid_focal_loss_cuda.h"

using namespace structops::cuda;

EMULATE_FLOATING(sigmoid_focal_loss, sigmoid_focal_loss<scalar_t>)
EMULATE_FLOATING(sigmoid_focal_loss_sum, sigmoid_focal_loss_sum<scalar_t>)
EMULATE_FLOATING(sigmoid_focal_loss_backward, sigmoid_focal_loss_backward<scalar_t>)
EMULATE(sigmoid_focal_loss_partials, sigmoid_focal_loss_partials)
