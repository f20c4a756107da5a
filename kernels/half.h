/* half: IEEE 754 binary16 as stored bits. Rounding is to nearest, ties to even; overflow gives infinity.
 *
 * _Float16 does it in hardware where the processor can, and exactly everywhere else. */
#pragma once
#include <stdint.h>
#include <string.h>

#include "kernels/real.h"

enum {
    HALF_LEAST = 0x0001,   /* 2^-24, the least positive */
    HALF_LARGEST = 0x7BFF, /* 65504, the largest finite */
};

static inline real half_to_real(uint16_t bits) {
    _Float16 half;
    memcpy(&half, &bits, sizeof half);
    return (real)half;
}

static inline uint16_t half_from_double(double value) {
    _Float16 half = (_Float16)value;
    uint16_t bits;
    memcpy(&bits, &half, sizeof bits);
    return bits;
}
