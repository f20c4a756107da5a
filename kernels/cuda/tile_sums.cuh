/* tile_sums: the last step of gradients of small weights: what each tile of rows has found, added up. */
#pragma once
#include "kernels/cuda/device.cuh"

/* to[i] += the sum over tiles and copies of parts[tile * width + copy * stride + i], i < columns. */
struct tile_sums {
    float *to;
    const float *parts;
    size_t width, columns, copies, stride;
};

/* Up to five vectors in one launch; a vector of no columns is left out. The order of each sum depends on the number of
 * tiles and copies alone. */
struct all_tile_sums {
    tile_sums sums[5];
};
void add_tile_sums(const all_tile_sums &all, size_t tiles);
