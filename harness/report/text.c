/* text: growing text, and foreign text made harmless; see text.h. */
#include "harness/report/text.h"

#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/files.h"

void text_free(struct text *t) {
    free(t->data);
    *t = (struct text){0};
}

const char *text_of(const struct text *t) { return t->data ? t->data : ""; }

static bool reserve(struct text *t, size_t more) {
    if (t->failed) return false;
    size_t needed = t->size + more + 1;
    if (needed <= t->capacity) return true;
    size_t capacity = needed < 256 ? 256 : needed + needed / 2;
    char *data = realloc(t->data, capacity);
    if (!data) return t->failed = true, false;
    t->data = data;
    t->capacity = capacity;
    return true;
}

void text_bytes(struct text *t, const char *bytes, size_t n) {
    if (!reserve(t, n)) return;
    memcpy(t->data + t->size, bytes, n);
    t->data[t->size += n] = '\0';
}

static void append(struct text *t, const char *string) { text_bytes(t, string, strlen(string)); }

void text_add(struct text *t, const char *format, ...) {
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    if (n >= 0 && reserve(t, (size_t)n)) {
        vsnprintf(t->data + t->size, (size_t)n + 1, format, again);
        t->size += (size_t)n;
    }
    va_end(again);
    va_end(args);
}

enum { BROKEN = 0xFFFD };

/* The next character of a UTF-8 text; a broken byte counts as one character. */
static uint32_t next_character(const char **at) {
    const unsigned char *c = (const unsigned char *)*at;
    int more = *c < 0x80 ? 0 : *c >= 0xF0 && *c < 0xF5 ? 3 : *c >= 0xE0 ? 2 : 1;
    uint32_t value = more == 0 ? *c : more == 1 ? *c & 0x1Fu : more == 2 ? *c & 0x0Fu : *c & 0x07u;
    ++*at;
    if (more && (*c < 0xC2 || *c >= 0xF5)) return BROKEN;
    for (int i = 1; i <= more; i++) {
        if ((c[i] & 0xC0) != 0x80) return BROKEN;
        value = value << 6 | (c[i] & 0x3Fu);
    }
    *at += more;
    return value;
}

struct replacement {
    uint32_t character;
    const char *latex;
};

static const struct replacement replacements[] = {
    {'\\', "\\textbackslash{}"},
    {'{', "\\{"},
    {'}', "\\}"},
    {'$', "\\$"},
    {'&', "\\&"},
    {'#', "\\#"},
    {'%', "\\%"},
    {'_', "\\_"},
    {'^', "\\textasciicircum{}"},
    {'~', "\\textasciitilde{}"},
    {'<', "\\textless{}"},
    {'>', "\\textgreater{}"},
    {'|', "\\textbar{}"},
    {'"', "\\textquotedbl{}"},
    {'\'', "\\textquotesingle{}"},
    {'`', "\\textasciigrave{}"},
    {0xA0, "~"},
    {0xB1, "$\\pm$"},
    {0xB5, "$\\mu$"},
    {0xB7, "$\\cdot$"},
    {0xD7, "$\\times$"},
    {0x391, "A"},
    {0x393, "$\\Gamma$"},
    {0x394, "$\\Delta$"},
    {0x398, "$\\Theta$"},
    {0x39B, "$\\Lambda$"},
    {0x3A3, "$\\Sigma$"},
    {0x3A6, "$\\Phi$"},
    {0x3A8, "$\\Psi$"},
    {0x3A9, "$\\Omega$"},
    {0x3B1, "$\\alpha$"},
    {0x3B2, "$\\beta$"},
    {0x3B3, "$\\gamma$"},
    {0x3B4, "$\\delta$"},
    {0x3B5, "$\\varepsilon$"},
    {0x3B7, "$\\eta$"},
    {0x3B8, "$\\theta$"},
    {0x3BA, "$\\kappa$"},
    {0x3BB, "$\\lambda$"},
    {0x3BC, "$\\mu$"},
    {0x3BD, "$\\nu$"},
    {0x3BE, "$\\xi$"},
    {0x3C0, "$\\pi$"},
    {0x3C1, "$\\rho$"},
    {0x3C3, "$\\sigma$"},
    {0x3C4, "$\\tau$"},
    {0x3C6, "$\\varphi$"},
    {0x3C7, "$\\chi$"},
    {0x3C8, "$\\psi$"},
    {0x3C9, "$\\omega$"},
    {0x2009, "\\,"},
    {0x2013, "--"},
    {0x2014, "---"},
    {0x2018, "`"},
    {0x2019, "'"},
    {0x201C, "``"},
    {0x201D, "''"},
    {0x2026, "\\dots{}"},
    {0x202F, "\\,"},
    {0x2190, "$\\leftarrow$"},
    {0x2192, "$\\rightarrow$"},
    {0x2212, "$-$"},
    {0x221E, "$\\infty$"},
    {0x2248, "$\\approx$"},
    {0x2260, "$\\neq$"},
    {0x2264, "$\\leq$"},
    {0x2265, "$\\geq$"},
};

static const char *replacement_of(uint32_t character) {
    for (size_t i = 0; i < sizeof replacements / sizeof *replacements; i++)
        if (replacements[i].character == character) return replacements[i].latex;
    return NULL;
}

/* Latin letters that inputenc maps to T1 glyphs of Latin Modern. */
static bool is_latin(uint32_t c) {
    static const uint32_t lacking[] = {0x126, 0x127, 0x138, 0x13F, 0x140, 0x149, 0x14B, 0x166, 0x167, 0x17F};
    for (size_t i = 0; i < sizeof lacking / sizeof *lacking; i++)
        if (c == lacking[i]) return false;
    return c >= 0xC0 && c <= 0x17F;
}

static void latex_character(struct text *t, uint32_t c, const char *start, size_t bytes, char next) {
    const char *replacement = replacement_of(c);
    if (replacement)
        append(t, replacement);
    else if (c == BROKEN)
        append(t, "?");
    else if (c < 0x20 || c == 0x7F)
        append(t, " ");
    else if (c < 0x7F || is_latin(c))
        text_bytes(t, start, bytes);
    else
        text_add(t, "{\\footnotesize[U+%04X]}", (unsigned)c);
    bool ligature = (c == '-' || c == ',' || c == '?' || c == '!') && (next == (char)c || next == '`');
    if (ligature) append(t, "{}");
}

static bool has_glyph(uint32_t c) { return c < 0x7F || c == BROKEN || is_latin(c) || replacement_of(c); }

/* In letters of common width: some take two, and what the fonts lack is written out. */
static size_t width_of(uint32_t c) {
    if (!has_glyph(c)) return c > 0xFFFFF ? 10 : c > 0xFFFF ? 9 : 8;
    return c == 'W' || c == 'M' || c == '@' || c == '%' ? 2 : 1;
}

size_t text_width(const char *utf8) {
    size_t width = 0;
    while (*utf8) width += width_of(next_character(&utf8));
    return width;
}

static bool breaks_after(uint32_t c) { return c < 0x80 && strchr("/_=,.;:+&)", (int)c) && c; }

enum { LONG_WORD = 16, BREAK_EVERY = 4, SLUG_CHARACTERS = 80 }; /* a long word breaks anywhere from there on */

void text_latex(struct text *t, const char *utf8) {
    size_t word = 0;
    while (*utf8) {
        const char *start = utf8;
        uint32_t c = next_character(&utf8);
        latex_character(t, c, start, (size_t)(utf8 - start), *utf8);
        word = c == ' ' ? 0 : word + width_of(c);
        bool inside = *utf8 && *utf8 != ' ', letter = isalpha((unsigned char)*utf8);
        bool long_word = word >= LONG_WORD;
        if (inside && (long_word || (word > 3 && breaks_after(c) && letter)))
            append(t, "\\allowbreak{}"), word = long_word ? LONG_WORD - BREAK_EVERY : 0;
    }
}

/* Control characters as spaces, broken bytes as '?', `twice` doubled; what the document's fonts lack as [U+XXXX] where
 * only_known asks for it. */
static void add_clean(struct text *t, const char *utf8, char twice, bool only_known) {
    while (*utf8) {
        const char *start = utf8;
        uint32_t c = next_character(&utf8);
        if (c == BROKEN)
            append(t, "?");
        else if (c < 0x20 || c == 0x7F)
            append(t, " ");
        else if (only_known && !has_glyph(c))
            text_add(t, "[U+%04X]", (unsigned)c);
        else
            text_bytes(t, start, (size_t)(utf8 - start));
        if (c == (unsigned char)twice) text_bytes(t, &twice, 1);
    }
}

void text_gnuplot(struct text *t, const char *utf8) {
    append(t, "'");
    add_clean(t, utf8, '\'', true);
    append(t, "'");
}

void text_csv(struct text *t, const char *utf8) {
    if (!utf8[strcspn(utf8, ",\"\r\n")]) {
        append(t, utf8);
        return;
    }
    append(t, "\"");
    add_clean(t, utf8, '"', false);
    append(t, "\"");
}

void text_short(struct text *t, const char *utf8, size_t letters) {
    size_t left = text_width(utf8), head = letters * 2 / 3, tail = letters - head - 1, width = 0;
    bool whole = left <= letters, cut = false;
    while (*utf8) {
        const char *start = utf8;
        size_t wide = width_of(next_character(&utf8));
        bool first = !cut && width + wide <= head;
        if (whole || first || left <= tail)
            text_bytes(t, start, (size_t)(utf8 - start));
        else if (!cut)
            append(t, "…"), cut = true;
        width += wide;
        left -= wide;
    }
}

void text_slug(struct text *t, const char *utf8) {
    size_t start = t->size;
    for (; *utf8 && t->size - start < SLUG_CHARACTERS; utf8++) {
        bool first = t->size == start, letter = isalnum((unsigned char)*utf8) && !(*utf8 & 0x80);
        bool kept = letter || *utf8 == '_' || (!first && (*utf8 == '-' || *utf8 == '.'));
        text_bytes(t, kept ? utf8 : first ? "_" : "-", 1);
    }
    if (t->size == start) append(t, "suite");
}

/* What a report's own files end in: a folder of that name would be taken for another report's. */
static bool ends_as_a_file(const char *name) {
    static const char *const endings[] = {".pdf", ".failed"};
    size_t length = strlen(name);
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        size_t ending = strlen(endings[i]);
        if (length >= ending && strcmp(name + length - ending, endings[i]) == 0) return true;
    }
    return false;
}

void text_file_name(struct text *t, const char *suite, const char *scale) {
    enum { DIGITS = 8 };
    struct text name = {0}, slug = {0};
    text_add(&name, "%s%s%s", suite, *scale ? "@" : "", scale);
    text_slug(&slug, suite);
    if (*scale) append(&slug, "@"); /* in no slug: "a" at scale "b" is not "a-b" */
    if (*scale) text_slug(&slug, scale);
    append(t, text_of(&slug));
    if (strcmp(text_of(&slug), text_of(&name)) != 0 || ends_as_a_file(text_of(&slug))) {
        char hex[65];
        bytes_sha256(text_of(&name), name.size, hex);
        text_add(t, "-%.*s", DIGITS, hex);
    }
    text_free(&name);
    text_free(&slug);
}

void text_number(struct text *t, double value, int decimals) {
    char digits[64];
    snprintf(digits, sizeof digits, "%.*f", decimals, fabs(value));
    bool zero = strspn(digits, "0.") == strlen(digits);
    if (isnan(value))
        append(t, "–");
    else
        text_add(t, "%s%s", value < 0.0 && !zero ? "−" : "", isinf(value) ? "∞" : digits);
}

void text_integer(struct text *t, double value) {
    if (!isfinite(value)) {
        append(t, "–");
        return;
    }
    char digits[64];
    int n = snprintf(digits, sizeof digits, "%.0f", fabs(value));
    if (value < 0.0 && strcmp(digits, "0") != 0) append(t, "−");
    for (int i = 0; i < n; i++) text_add(t, "%s%c", i && (n - i) % 3 == 0 ? "," : "", digits[i]);
}

void text_p(struct text *t, double p) {
    if (p < 0.0001)
        append(t, "< 0.0001");
    else
        text_add(t, "= %.4f", p);
}

/* The last place of the arithmetic progression that starts here. */
static size_t progression_end(const int64_t *values, size_t count, size_t start) {
    size_t end = start;
    while (end + 1 < count && values[end + 1] - values[end] == values[start + 1] - values[start]) end++;
    return end;
}

void text_progressions(struct text *t, const int64_t *values, size_t count) {
    enum { SHORTEST = 4 };
    for (size_t i = 0; i < count; i++) {
        size_t end = progression_end(values, count, i);
        text_add(t, "%s%" PRId64, i ? ", " : "", values[i]);
        if (end - i + 1 < SHORTEST) continue;
        int64_t step = values[i + 1] - values[i];
        if (step == 1)
            text_add(t, "–%" PRId64, values[end]);
        else
            text_add(t, ", %" PRId64 " … %" PRId64 " (by %" PRId64 ")", values[i + 1], values[end], step);
        i = end;
    }
}

status text_write(const struct text *t, const char *path) {
    if (t->failed) return status_new(STATUS_SYSTEM, "%s: out of memory", path);
    FILE *file = fopen(path, "wb");
    if (!file) return status_errno("%s: cannot be written", path);
    bool written = fwrite(text_of(t), 1, t->size, file) == t->size;
    written = fclose(file) == 0 && written;
    return written ? NULL : status_errno("%s: cannot be written", path);
}
