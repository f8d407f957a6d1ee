#include "launchers.h"
#include "sample_matches/sample_matches_cuda.h"

using namespace structops::cuda;

EMULATE(sample_priorities, sample_priorities)
EMULATE(sample_choose, sample_choose)
