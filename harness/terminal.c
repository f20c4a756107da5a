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

int terminal_width(FILE *stream) {
    enum { WIDTH_OF_FILES = 100 };
    struct winsize size;
    if (!terminal_is(stream) || ioctl(fileno(stream), TIOCGWINSZ, &size) != 0 || size.ws_col == 0)
        return WIDTH_OF_FILES;
    return size.ws_col;
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
