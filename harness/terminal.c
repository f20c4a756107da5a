/* terminal: isatty, NO_COLOR, window size and wcwidth. */
#include "harness/terminal.h"

#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <wchar.h>

bool terminal_is(FILE *stream) { return isatty(fileno(stream)) == 1; }

const char *terminal_style(FILE *stream, enum style style) {
    static const char *const sequences[] = {
        [STYLE_PLAIN] = "\033[0m", [STYLE_BOLD] = "\033[1m", [STYLE_DIM] = "\033[2m",
        [STYLE_GOOD] = "\033[32m", [STYLE_BAD] = "\033[31m", [STYLE_WARN] = "\033[33m",
    };
    const char *no_colour = getenv("NO_COLOR");
    if (!terminal_is(stream) || (no_colour && *no_colour)) return "";
    return sequences[style];
}

enum { TABLES_OF_FILES = 100, TEXT_OF_FILES = 80, LEAST_TEXT = 20 };

/* 0 when it is no terminal. */
static int window_width(FILE *stream) {
    struct winsize size;
    return terminal_is(stream) && ioctl(fileno(stream), TIOCGWINSZ, &size) == 0 ? size.ws_col : 0;
}

int terminal_width(FILE *stream) {
    int width = window_width(stream);
    return width ? width : TABLES_OF_FILES;
}

/* mbrtowc and wcwidth know UTF-8 only in a UTF-8 locale, whatever the user's is. */
static locale_t utf8_locale(void) {
    static locale_t locale;
    if (!locale) locale = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
    return locale;
}

/* Bytes of the first character, at least 1; its width in *columns. */
static size_t character(const char *text, size_t *columns) {
    wchar_t wide;
    mbstate_t state = {0};
    size_t length = mbrtowc(&wide, text, strlen(text), &state);
    *columns = 1;
    if (length == 0 || length > strlen(text)) return 1;
    int width = wcwidth(wide);
    if (width >= 0) *columns = (size_t)width;
    return length;
}

/* Walks the text until `limit` columns are full; returns bytes walked and the columns they take. */
static size_t walk(const char *text, size_t limit, size_t *columns) {
    locale_t utf8 = utf8_locale();
    locale_t before = utf8 ? uselocale(utf8) : (locale_t)0;
    size_t bytes = 0, total = 0;
    while (text[bytes]) {
        size_t width, length = character(text + bytes, &width);
        if (total + width > limit) break;
        bytes += length;
        total += width;
    }
    if (before) uselocale(before);
    *columns = total;
    return bytes;
}

size_t text_columns(const char *text) {
    size_t columns;
    walk(text, (size_t)-1 / 2, &columns);
    return columns;
}

size_t text_prefix(const char *text, size_t columns) {
    size_t taken;
    return walk(text, columns, &taken);
}

/* Bytes of the text's first line when it may take `columns`: broken at a space where there is one. */
static size_t first_line(const char *text, size_t columns) {
    size_t fits = text_prefix(text, columns), end = fits;
    if (!text[fits]) return fits;
    while (end > 0 && text[end] != ' ') end--;
    return end ? end : fits;
}

static size_t columns_left(FILE *stream, size_t taken) {
    int window = window_width(stream);
    size_t width = window ? (size_t)window : TEXT_OF_FILES;
    return width > taken + LEAST_TEXT ? width - taken : LEAST_TEXT;
}

void text_print(FILE *stream, const char *text, size_t taken, size_t indent) {
    for (;;) {
        size_t bytes = first_line(text, columns_left(stream, taken));
        fprintf(stream, "%.*s\n", (int)bytes, text);
        text += bytes;
        if (*text == ' ') text++;
        if (!*text) return;
        fprintf(stream, "%*s", (int)indent, "");
        taken = indent;
    }
}
