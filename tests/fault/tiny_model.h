/* tiny_model: a model of a few hundred parameters and a made-up text, for the targets that need them. */
#pragma once
#include "model/trainer.h"

struct config fuzz_config(const char *settings); /* then "key=value key=value" */
const struct dataset *fuzz_dataset(void);
const struct backend *fuzz_backend(void); /* of one lane */
