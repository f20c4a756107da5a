/* schema: schema.sql as a text inside the program. */
#include "harness/store/internal.h"

__asm__(".pushsection .rodata\n"
        ".globl store_schema\n"
        "store_schema:\n"
        ".incbin \"harness/store/schema.sql\"\n"
        ".byte 0\n"
        ".popsection\n");
