/* verbs: every verb's row, each defined in its cmd_<verb>.c; main.c puts them in the order of the help. */
#pragma once
#include "harness/cli.h"

extern const struct verb verb_merge;
extern const struct verb verb_submit;
extern const struct verb verb_plan;
extern const struct verb verb_run;
extern const struct verb verb_list;
extern const struct verb verb_status;
extern const struct verb verb_show;
extern const struct verb verb_compare;
extern const struct verb verb_report;
extern const struct verb verb_trace;
extern const struct verb verb_reproduce;
extern const struct verb verb_export;
extern const struct verb verb_submission;
extern const struct verb verb_verify;
extern const struct verb verb_data_prepare;
extern const struct verb verb_data_add;
extern const struct verb verb_data_list;
extern const struct verb verb_doctor;
extern const struct verb verb_power;
extern const struct verb verb_gate;
extern const struct verb verb_calibrate;
