/* stage_train: the training stage: steps, checkpoints, resumption, the weights left behind. */
#pragma once
#include "harness/stages.h"

/* A checkpoint of another build or machine is removed, and told. */
status stage_train_begin(const struct stage_context *context, int stage);
status stage_train(const struct stage_context *context, int stage);
