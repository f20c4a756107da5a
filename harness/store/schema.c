/* schema: schema.sql and those that follow it as texts inside the program. */
#include "harness/store/internal.h"

__asm__(".pushsection .rodata\n"
        ".globl store_schema\n"
        "store_schema:\n"
        ".incbin \"harness/store/schema.sql\"\n"
        ".byte 0\n"
        ".globl store_schema_2\n"
        "store_schema_2:\n"
        ".incbin \"harness/store/schema_2.sql\"\n"
        ".byte 0\n"
        ".globl store_schema_3\n"
        "store_schema_3:\n"
        ".incbin \"harness/store/schema_3.sql\"\n"
        ".byte 0\n"
        ".popsection\n");
