#include "encode_masks/encode_masks_cuda.h"
#include "launchers.h"

using namespace structops::cuda;

EMULATE(count_changes, count_changes)
EMULATE(write_ends, write_ends)
EMULATE(count_characters, count_characters)
EMULATE(write_text, write_text)
