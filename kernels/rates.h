/* rates: a limit of this machine, measured: what products reach when nothing else is in the way. */
#pragma once
#include "kernels/kernels.h"

/* FLOP/s of linear_forward on 512x512x512 products (up to 4096 each way on a device), on `lanes` lanes at once; median
 * of several rounds that together take about the given seconds. 0 when there is no memory for the operands. */
double measured_product_rate(const struct backend *ops, int lanes, double seconds);
