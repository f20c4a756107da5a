#!/usr/bin/env bats
# build: what an object was made with is what provenance says, also after another processor, compiler or flags.

setup() {
    bats_require_minimum_version 1.5.0
    unset MAKEFLAGS MAKELEVEL ARCH CC # of the make that runs the tests
    cp -r Makefile kernels model harness "$BATS_TEST_TMPDIR"
    cd "$BATS_TEST_TMPDIR"
}

# made FLAGS...: the sources that make compiles for an op of the CPU.
made() { make --no-print-directory CUDA=none "$@" build/kernels/cpu/adam.o | awk '$1 == "cc" {print $2}'; }

@test "an object is made again for another processor and by other flags, and only then" {
    [ "$(made)" = kernels/cpu/adam.c ]
    [ -z "$(made)" ]
    [ "$(made ARCH=x86-64)" = kernels/cpu/adam.c ]
    [ -z "$(made ARCH=x86-64)" ]
    [ "$(made)" = kernels/cpu/adam.c ]
    [ "$(made WARNINGS=-Wall)" = kernels/cpu/adam.c ]
    [ -z "$(made WARNINGS=-Wall)" ]
}

@test "an object is made again by another compiler" {
    made >/dev/null
    printf '#!/bin/sh\n[ "$1" = --version ] && echo "cc 99.1" && exit\nexec cc "$@"\n' >newer
    chmod +x newer
    [ "$(made CC=./newer)" = kernels/cpu/adam.c ]
    [ -z "$(made CC=./newer)" ]
    sed -i 's/99.1/99.2/' newer
    [ "$(made CC=./newer)" = kernels/cpu/adam.c ]
}
