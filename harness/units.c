/* units: number to text with a unit; see units.h. */
#include "harness/units.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const char *format_duration(double seconds, char out[UNITS_CAPACITY]) {
    long long s = isfinite(seconds) && seconds < 1e15 ? llround(fmax(seconds, 0)) : 0;
    if (!isfinite(seconds))
        snprintf(out, UNITS_CAPACITY, "unknown");
    else if (seconds < 9.995)
        snprintf(out, UNITS_CAPACITY, "%.2f s", fmax(seconds, 0));
    else if (s < 60)
        snprintf(out, UNITS_CAPACITY, "%lld s", s);
    else if (s < 3600)
        snprintf(out, UNITS_CAPACITY, "%lld min %02lld s", s / 60, s % 60);
    else if (s < 86400)
        snprintf(out, UNITS_CAPACITY, "%lld h %02lld min", s / 3600, s % 3600 / 60);
    else
        snprintf(out, UNITS_CAPACITY, "%lld d %lld h", s / 86400, s % 86400 / 3600);
    return out;
}

const char *format_bytes(double bytes, char out[UNITS_CAPACITY]) {
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    size_t unit = 0;
    if (!isfinite(bytes)) {
        snprintf(out, UNITS_CAPACITY, "unknown");
        return out;
    }
    while (bytes >= 999.95 && unit + 1 < sizeof units / sizeof *units) {
        bytes /= 1000;
        unit++;
    }
    snprintf(out, UNITS_CAPACITY, "%.*f %s", unit ? 1 : 0, bytes, units[unit]);
    return out;
}

const char *format_count(long long count, char out[UNITS_CAPACITY]) {
    char digits[UNITS_CAPACITY];
    unsigned long long magnitude = count < 0 ? 0ULL - (unsigned long long)count : (unsigned long long)count;
    size_t length = (size_t)snprintf(digits, sizeof digits, "%llu", magnitude), used = 0;
    if (count < 0) out[used++] = '-';
    for (size_t i = 0; i < length; i++) {
        if (i && (length - i) % 3 == 0) out[used++] = ',';
        out[used++] = digits[i];
    }
    out[used] = 0;
    return out;
}

void text_append(char *out, size_t size, const char *format, ...) {
    size_t used = strlen(out);
    if (used + 1 >= size) return;
    va_list args;
    va_start(args, format);
    vsnprintf(out + used, size - used, format, args);
    va_end(args);
}
