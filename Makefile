# Hinge: settings on top, rules below. `make help` lists the targets.

# --- settings -------------------------------------------------------------------------------------------------------
SAN     ?=
REAL    ?= float
CUDA    ?= none
CUDA_HOME ?= $(firstword $(wildcard /usr/local/cuda) $(patsubst %/bin/nvcc,%,$(shell command -v nvcc)))
CUDA_ARCHS ?= 80 90a 100
FUZZ    ?=
CC      ?= gcc
CXX     ?= g++
ARCH    ?= native
ONLY    ?=
JOBS    ?= $(shell nproc)

# Debian packages, and nowhere else: what the program needs to build and run, and what only tests and checks need.
PACKAGES := gcc g++ make pkg-config libopenblas-openmp-dev liblzma-dev libsqlite3-dev libjansson-dev libfyaml-dev \
    libgsl-dev libsentencepiece-dev libssl-dev zlib1g-dev gnuplot-nox texlive-latex-base \
    texlive-latex-recommended texlive-latex-extra texlive-fonts-recommended lmodern dict-gcide openmpi-bin libopenmpi-dev
TEST_PACKAGES := libcmocka-dev bats sqlite3 poppler-utils python3 clang libclang-rt-dev libomp-dev faketime
CHECK_PACKAGES := clang-format cppcheck

LIBRARIES := openblas liblzma sqlite3 jansson libfyaml gsl sentencepiece libcrypto zlib

# MPI is optional: without it a training runs on one rank.
MPI := $(shell pkg-config --exists ompi-c && echo ompi-c)

# --- rules ----------------------------------------------------------------------------------------------------------
comma := ,
VARIANT := $(if $(FUZZ),/fuzz)$(if $(filter emulator,$(CUDA)),/emulator)$(if $(SAN),/$(subst $(comma),-,$(SAN)))$(if $(filter double,$(REAL)),/float64)
BUILD   := build$(VARIANT)

OPTIMISE := $(if $(SAN),-O1 -fno-omit-frame-pointer -fsanitize=$(SAN) -fno-sanitize-recover=all,-O3)
WARNINGS := -Wall -Wextra -Werror
NUMERICS := -fno-math-errno -fno-trapping-math -ffp-contract=fast -fopenmp
ifneq ($(FUZZ),)
# libFuzzer is clang's, whose version 14 has no _Float16 on x86-64; warnings are gcc's task.
CC       := clang
CXX      := clang++
OPTIMISE := -O1 -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
WARNINGS := -w -D_Float16=__fp16
endif
COMMON   := $(OPTIMISE) -g -march=$(ARCH) $(NUMERICS) $(WARNINGS) \
    -I. -D_GNU_SOURCE $(if $(filter double,$(REAL)),-DHINGE_DOUBLE)
CFLAGS   := -std=c17 -Wstrict-prototypes -Wmissing-prototypes -Wshadow $(COMMON)
CXXFLAGS := -std=c++17 $(COMMON)
PKG_CFLAGS = $(shell pkg-config --cflags $(LIBRARIES) 2>/dev/null)
PKG_LIBS   = $(shell pkg-config --libs $(LIBRARIES) $(MPI) 2>/dev/null)
LDLIBS     = $(CUDA_LIBS) $(PKG_LIBS) -lsentencepiece_train -lmvec -lm -lstdc++ -lpthread

C_SOURCES  := $(sort $(wildcard kernels/*.c kernels/*/*.c model/*.c model/*/*.c harness/*.c harness/*/*.c))
CC_SOURCES := $(sort $(wildcard model/*.cc))
OBJECTS    := $(C_SOURCES:%.c=$(BUILD)/%.o) $(CC_SOURCES:%.cc=$(BUILD)/%.o)
# CUDA=emulator compiles the kernels for the host, against tests/cuda_emulator; CUDA=auto for GPUs where there is a
# toolkit; CUDA=none leaves them out, as do builds with sanitisers or float64.
CUDA_SOURCES := $(sort $(wildcard kernels/cuda/*.cu))
NVCC         := $(if $(filter auto,$(CUDA)),$(if $(SAN)$(filter double,$(REAL)),,$(wildcard $(CUDA_HOME)/bin/nvcc)))
ifeq ($(CUDA),emulator)
HAVE_NCCL    := emulated
CUDA_OBJECTS := $(CUDA_SOURCES:%.cu=$(BUILD)/%.o) $(BUILD)/kernels/comm/nccl.o $(patsubst %.cc,$(BUILD)/%.o,$(sort $(wildcard tests/cuda_emulator/*.cc)))
# Where the host's code has AddressSanitizer, the kernels have the emulator's own check of every access.
CUFLAGS      := $(filter-out -fopenmp,$(subst -fsanitize=address,-fsanitize=thread,$(subst c++17,c++20,$(CXXFLAGS)))) -Wno-unknown-pragmas \
    -Wno-missing-field-initializers -DHINGE_CUDA_EMULATOR
else ifneq ($(NVCC),)
HAVE_NCCL    := $(firstword $(wildcard $(CUDA_HOME)/lib64/libnccl.so /usr/lib/*-linux-gnu/libnccl.so))
CUDA_OBJECTS := $(CUDA_SOURCES:%.cu=$(BUILD)/%.o) $(if $(HAVE_NCCL),$(BUILD)/kernels/comm/nccl.o)
# Code for each architecture that the toolkit knows, and PTX of the newest for those to come.
KNOWN_ARCHS  := $(patsubst compute_%,%,$(shell $(NVCC) --list-gpu-arch))
TARGETS      := $(foreach a,$(CUDA_ARCHS),$(if $(filter $(a:a=),$(KNOWN_ARCHS)),$a))
PTX_TARGET   := $(lastword $(filter-out %a,$(TARGETS)))
NVFLAGS      := -std=c++20 -O3 -lineinfo -I. -D_GNU_SOURCE -ccbin $(CXX) -Werror all-warnings -Xcompiler -Wall \
    $(foreach a,$(TARGETS),-gencode arch=compute_$a,code=sm_$a) \
    $(if $(PTX_TARGET),-gencode arch=compute_$(PTX_TARGET)$(comma)code=compute_$(PTX_TARGET))
CUDA_LIBRARY_DIR := $(CUDA_HOME)/lib64
CUDA_LIBS    := -L$(CUDA_LIBRARY_DIR) -Wl,-rpath,$(CUDA_LIBRARY_DIR) -lcublasLt $(if $(HAVE_NCCL),-lnccl) \
    -lcudart_static -ldl -lrt
endif
CUDA_DEFINE := $(if $(CUDA_OBJECTS),-DHINGE_CUDA)
LIBRARY    := $(BUILD)/libhinge.a
PROGRAM    := $(BUILD)/hinge

CUDA_TESTS    := tests/cuda/% tests/cuda_emulator/%
TEST_SOURCES  := $(sort $(wildcard tests/*/test_*.c tests/*/bench_*.c $(if $(CUDA_OBJECTS),tests/*/test_*.cu tests/*/bench_*.cu)))
TEST_PROGRAMS := $(addprefix $(BUILD)/,$(basename $(if $(CUDA_OBJECTS),$(TEST_SOURCES),\
    $(filter-out $(CUDA_TESTS),$(TEST_SOURCES)))))
# Sources beside the tests of a folder that are no test themselves are linked into each of its programs.
support        = $(patsubst %.c,$(BUILD)/%.o,$(filter-out $(wildcard $(dir $1)test_*.c $(dir $1)bench_*.c),$(wildcard $(dir $1)*.c))) \
    $(patsubst %.cc,$(BUILD)/%.o,$(filter tests/model/%,$(wildcard $(dir $1)*.cc)))

# Fuzz targets read as libFuzzer's: tests/fault/fuzz_NAME.c with what they share.
FUZZERS       := $(patsubst %.c,$(BUILD)/%,$(wildcard tests/fault/fuzz_*.c))
FUZZ_SHARED   := $(patsubst %.c,$(BUILD)/%.o,tests/fault/fuzz.c tests/fault/tiny_model.c)

.DEFAULT_GOAL := all
.PHONY: all demo test test-cuda check bench bench-cuda soak cuda-tests help packages test-packages check-packages clean tests fuzzers format libraries

all: $(PROGRAM) cuda-note ## build build/hinge (SAN=address|undefined|thread, REAL=double)

.PHONY: cuda-note
cuda-note:
ifeq ($(CUDA)$(NVCC)$(SAN)$(filter double,$(REAL)),auto)
	@echo "no CUDA toolkit: built for the CPU; with one in CUDA_HOME or /usr/local/cuda, 'make' builds for GPUs too"
endif

demo: packages ## install, build, prepare text, run suites/demo.yaml, make reports/out/demo.pdf
	@$(MAKE) --no-print-directory -s -j$(JOBS) all
	@$(PROGRAM) data prepare
	@$(PROGRAM) run suites/demo.yaml
	@$(PROGRAM) report suites/demo.yaml
	@$(PROGRAM) compare suites/demo.yaml
	@echo "The report is reports/out/demo.pdf"

test: test-packages ## install, build and run every test (ONLY=name runs one)
	@JOBS=$(JOBS) ONLY="$(ONLY)" tests/run

test-cuda: test-packages ## run tests/cuda on this machine's GPU (ONLY=name), also under compute-sanitizer
	@$(MAKE) --no-print-directory -j$(JOBS) CUDA=auto cuda-tests
	@ONLY="$(ONLY)" tests/run_cuda

bench-cuda: packages ## measure this machine's GPU, and every op against its limits
	@$(MAKE) --no-print-directory -j$(JOBS) CUDA=auto cuda-tests
	@build/tests/cuda/bench_ops

check: check-packages ## format, warnings, include direction, file heads
	@$(MAKE) --no-print-directory -j$(JOBS) all tests compile_commands.json
	@tests/check

bench: packages ## measure this machine's rates, training and every op against them
	@$(MAKE) --no-print-directory -j$(JOBS) all tests
	@tests/bench

soak: test-packages ## faults, load and hostile input for hours (SEED=, FUZZ_SECONDS=, KILLS=, RUNS= set their extent)
	@tests/soak

tests: $(TEST_PROGRAMS)

cuda-tests: $(filter $(BUILD)/tests/cuda/%,$(TEST_PROGRAMS))
	@[ -n "$^" ] || { echo "no CUDA toolkit here: set CUDA_HOME to its folder, where bin/nvcc is" >&2; exit 1; }

fuzzers: $(FUZZERS)

format:
	@clang-format -i $$(git ls-files '*.c' '*.h' '*.cc')

packages: ; @harness/install.sh $(PACKAGES)
test-packages: ; @harness/install.sh $(PACKAGES) $(TEST_PACKAGES)
check-packages: ; @harness/install.sh $(PACKAGES) $(TEST_PACKAGES) $(CHECK_PACKAGES)

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' Makefile

clean: ## remove what was built (not data, results or reports)
	@rm -rf build compile_commands.json

libraries:
	@pkg-config --exists $(LIBRARIES) || { echo "libraries are missing; 'make packages' installs them" >&2; exit 1; }

$(OBJECTS): | libraries

$(PROGRAM): $(BUILD)/harness/main.o $(CUDA_OBJECTS) $(LIBRARY)
	@echo "  link  $@"
	@$(CC) $(CFLAGS) -o $@ $(filter %.o %.a,$^) $(LDLIBS)

$(LIBRARY): $(filter-out $(BUILD)/harness/main.o,$(OBJECTS))
	@rm -f $@ && ar rcs $@ $^

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	@echo "  cc    $<"
	@$(CC) $(CFLAGS) $(PKG_CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/%.o: %.cc
	@mkdir -p $(@D)
	@echo "  c++   $<"
	@$(CXX) $(CXXFLAGS) $(PKG_CFLAGS) -MMD -MP -c -o $@ $<

# Made again when the kernels come in or go.
$(BUILD)/kernels-built: FORCE
	@mkdir -p $(@D); echo '$(CUDA_OBJECTS)' | cmp -s - $@ || echo '$(CUDA_OBJECTS)' > $@
$(BUILD)/kernels/ops.o $(BUILD)/kernels/comm/no_nccl.o: CFLAGS += $(CUDA_DEFINE) $(if $(HAVE_NCCL),-DHINGE_NCCL)
$(BUILD)/kernels/ops.o $(BUILD)/kernels/comm/no_nccl.o $(PROGRAM): $(BUILD)/kernels-built

ifeq ($(CUDA),emulator)
$(BUILD)/%.o: %.cu
	@mkdir -p $(@D)
	@echo "  c++   $<"
	@$(CXX) -x c++ $(CUFLAGS) -MMD -MP -c -o $@ $<

# The emulator itself looks at memory that sanitisers must not see it look at.
$(BUILD)/tests/cuda_emulator/%.o: tests/cuda_emulator/%.cc
	@mkdir -p $(@D)
	@echo "  c++   $<"
	@$(CXX) $(filter-out -fsanitize% -O1 -fno-omit-frame-pointer,$(CUFLAGS)) -O3 $(if $(findstring address,$(SAN)),-DEMULATOR_ASAN) \
	    -MMD -MP -c -o $@ $<
else
$(BUILD)/%.o: %.cu
	@mkdir -p $(@D)
	@echo "  nvcc  $<"
	@$(NVCC) $(NVFLAGS) -MMD -MP -MF $(@:.o=.d) -c -o $@ $<
endif

.SECONDEXPANSION:
$(TEST_PROGRAMS): $(BUILD)/%: $(BUILD)/%.o $$(call support,%) $(CUDA_OBJECTS) $(LIBRARY)
	@echo "  link  $@"
	@$(CC) $(CFLAGS) -o $@ $(filter %.o,$^) $(LIBRARY) $(LDLIBS) -lcmocka

$(BUILD)/tests/cuda/test_model: $(BUILD)/tests/model/toy.o

$(BUILD)/kernels/comm/mpi.o: CFLAGS += $(if $(MPI),-DHINGE_MPI $(shell pkg-config --cflags $(MPI)))

$(FUZZERS): %: %.o $(FUZZ_SHARED) $(LIBRARY)
	@echo "  link  $@"
	@$(CXX) $(CXXFLAGS) -fsanitize=fuzzer -o $@ $^ $(LDLIBS)

$(BUILD)/tests/fault/%.so: tests/fault/%.c
	@mkdir -p $(@D)
	@$(CC) $(CFLAGS) -shared -fPIC -o $@ $<

# The schema is built in; the compiler does not see that it is read.
$(BUILD)/harness/store/schema.o: harness/store/schema.sql harness/store/schema_2.sql harness/store/schema_3.sql

# The program's own record of how it was built; made again only when the revision is another.
MACHINE = $(or $(shell $(CC) -march=$(ARCH) -Q --help=target 2>/dev/null | awk '$$1 == "-march=" {print $$2}'),$(ARCH))
REVISION := $(shell git describe --always --dirty 2>/dev/null || \
    cut -c 1-7 ".git/$$(sed -n 's/^ref: //p' .git/HEAD 2>/dev/null)" 2>/dev/null || echo unknown)
# Bytes of all the source text that the program is made from: what a competition counts as code.
CODE_BYTES := $(shell find kernels model harness Makefile -type f ! -name '*.md' -exec cat {} + | wc -c)
$(BUILD)/revision: FORCE
	@mkdir -p $(@D); echo '$(REVISION) $(CODE_BYTES)' | cmp -s - $@ || echo '$(REVISION) $(CODE_BYTES)' > $@
FORCE:
$(BUILD)/harness/provenance.o: $(BUILD)/revision
$(BUILD)/harness/provenance.o: CFLAGS += -DHINGE_FLAGS='"$(OPTIMISE) -march=$(MACHINE) $(NUMERICS)"' -DHINGE_REVISION='"$(REVISION)"' \
    -DHINGE_CODE_BYTES=$(CODE_BYTES)

compile_commands.json: Makefile
	@{ echo '['; first=; for f in $(C_SOURCES); do \
	  printf '%s{"directory":"%s","file":"%s","command":"%s -c %s"}' "$$first" "$(CURDIR)" "$$f" \
	    '$(subst ",\",$(CC) $(CFLAGS) $(PKG_CFLAGS))' "$$f"; first=",$$(printf '\n')"; done; echo ']'; } > $@

-include $(OBJECTS:.o=.d) $(CUDA_OBJECTS:.o=.d) $(addsuffix .d,$(addprefix $(BUILD)/,$(basename $(wildcard tests/*/*.c tests/*/*.cu)))) $(BUILD)/tests/model/guarded.d
