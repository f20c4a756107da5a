#!/usr/bin/env bash
# toolkit: finds a CUDA toolkit that can build the kernels, and says for what; for the Makefile.
#
#   toolkit.sh HOME ARCHS
#
# HOME may be empty: then /usr/local/cuda, or where the nvcc in PATH is. ARCHS too, such as "80 90a": then those of this
# machine's GPUs, or where it has none those below, with PTX of the last for GPUs to come. Prints one line, either of
#
#   found HOME LIBRARIES NCCL CODE...     NCCL is yes or no; a CODE is sm_80, or with PTX sm_100,compute_100
#   missing WHY...
set -uo pipefail

everywhere="80 90a 100"
oldest_arch=80
oldest_release=12 # the first whose nvcc knows C++20

missing() {
    echo "missing $*"
    exit 0
}

home=$1
if [ -z "$home" ]; then
    if [ -x /usr/local/cuda/bin/nvcc ]; then
        home=/usr/local/cuda
    else
        nvcc=$(command -v nvcc) || missing "there is no CUDA toolkit in CUDA_HOME, /usr/local/cuda or PATH"
        home=${nvcc%/bin/nvcc}
    fi
fi
nvcc=$home/bin/nvcc
[ -x "$nvcc" ] || missing "there is no nvcc in $home/bin"
release=$("$nvcc" --version | sed -n 's/.*release \([0-9]*\).*/\1/p')
[ "${release:-0}" -ge $oldest_release ] ||
    missing "the CUDA toolkit in $home is release ${release:-unknown}, and $oldest_release or later is needed"
[ -e "$home/include/cublasLt.h" ] || missing "the CUDA toolkit in $home has no cublasLt.h"
runtime=$(ls "$home"/lib64/libcudart_static.a "$home"/lib/*/libcudart_static.a 2>/dev/null | head -n 1)
[ -n "$runtime" ] || missing "the CUDA toolkit in $home has no libcudart_static.a"
libraries=$(dirname "$runtime")

nccl=no
[ -n "$(ls "$home/include/nccl.h" /usr/include/nccl.h 2>/dev/null)" ] &&
    [ -n "$(ls "$libraries"/libnccl.so.2 /usr/lib/*/libnccl.so.2 2>/dev/null)" ] && nccl=yes

known=" $("$nvcc" --list-gpu-arch | sed 's/compute_//' | tr '\n' ' ')"
of_gpus() {
    nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | tr -d . | sort -u |
        awk -v oldest=$oldest_arch '$1 >= oldest {print $1 == 90 ? "90a" : $1}'
}
codes() { # architectures...: those that the toolkit knows, as names of code; 90 without its own instructions is of no use
    for arch in "$@"; do
        [ "$arch" = 90 ] && arch=90a
        [[ $known == *" ${arch%a} "* ]] && printf 'sm_%s ' "$arch"
    done
}
# shellcheck disable=SC2046,SC2086
wanted=$(codes ${2:-$(of_gpus)})
[ -n "$wanted" ] || [ -z "$2" ] || missing "the CUDA toolkit in $home knows none of the architectures $2"
if [ -z "$wanted" ]; then
    # shellcheck disable=SC2086
    wanted=$(codes $everywhere)
    newest=$(tr ' ' '\n' <<<"$wanted" | grep '[0-9]$' | tail -n 1)
    wanted=${wanted/"$newest"/"$newest,${newest/sm_/compute_}"}
fi
echo "found $home $libraries $nccl $wanted"
