/* units: durations, sizes and counts as people read them, and text put together piece by piece. */
#pragma once
#include <stddef.h>

enum { UNITS_CAPACITY = 32 };

/* "0.42 s", "12 s", "4 min 05 s", "3 h 12 min", "2 d 4 h"; "unknown" when not finite. All return out. */
const char *format_duration(double seconds, char out[UNITS_CAPACITY]);

/* Decimal units, as the artifact's cap is one: "812 B", "15.9 MB". */
const char *format_bytes(double bytes, char out[UNITS_CAPACITY]);

/* "26,216,040". */
const char *format_count(long long count, char out[UNITS_CAPACITY]);

/* Appends to the text in out, cut where size ends. */
__attribute__((format(printf, 3, 4))) void text_append(char *out, size_t size, const char *format, ...);
