/* stage_train: the training stage: steps, checkpoints, resumption, the weights left behind. */
#pragma once
#include "harness/stages.h"

status stage_train(const struct stage_context *context, int stage);
