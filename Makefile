# Hinge: settings on top, rules below. `make help` lists the targets.

# --- settings -------------------------------------------------------------------------------------------------------
SAN     ?=
REAL    ?= float
CUDA    ?= auto
CUDA_HOME ?=
CUDA_ARCHS ?=
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
TEST_PACKAGES := libcmocka-dev bats sqlite3 poppler-utils python3 clang libclang-rt-dev libomp-dev faketime btrfs-progs \
    munge slurmctld slurmd slurm-client
CHECK_PACKAGES := clang-format cppcheck

LIBRARIES := openblas liblzma sqlite3 jansson libfyaml gsl sentencepiece libcrypto zlib

# MPI is optional: without it a training runs on one rank.
MPI := $(shell pkg-config --exists ompi-c 2>/dev/null && echo ompi-c)

# --- rules ----------------------------------------------------------------------------------------------------------
comma := ,
space := $() $()
VARIANT := $(if $(FUZZ),/fuzz)$(if $(SAN),/$(subst $(comma),-,$(SAN)))$(if $(filter double,$(REAL)),/float64)
BUILD   := build$(VARIANT)
# What has the emulator for its device.
DEVICE  := $(BUILD)$(if $(filter emulator,$(CUDA)),/emulator)

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

C_SOURCES  := $(sort $(filter-out kernels/cuda/%,$(wildcard kernels/*.c kernels/*/*.c)) $(wildcard model/*.c model/*/*.c harness/*.c harness/*/*.c))
CC_SOURCES := $(sort $(wildcard model/*.cc))
OBJECTS    := $(C_SOURCES:%.c=$(BUILD)/%.o) $(CC_SOURCES:%.cc=$(BUILD)/%.o)

# CUDA=auto compiles the kernels for GPUs where there is a toolkit; CUDA=emulator for the host, against
# tests/cuda_emulator; CUDA=none leaves them out, as do builds with sanitisers or float64.
# The one that takes longest comes first.
LONGEST      := kernels/cuda/ssd_backward.cu
CUDA_SOURCES := $(LONGEST) $(filter-out $(LONGEST),$(sort $(wildcard kernels/cuda/*.cu))) kernels/cuda/table.c
ifeq ($(CUDA)$(SAN)$(FUZZ)$(filter double,$(REAL)),auto)
TOOLKIT      := $(shell kernels/cuda/toolkit.sh '$(CUDA_HOME)' '$(CUDA_ARCHS)')
endif
ifeq ($(CUDA),emulator)
CUDA_SOURCES += kernels/comm/nccl.cu $(sort $(wildcard tests/cuda_emulator/*.cc))
# Where the host's code has AddressSanitizer, the kernels have the emulator's own check of every access.
CUFLAGS      := $(filter-out -fopenmp,$(subst -fsanitize=address,-fsanitize=thread,$(subst c++17,c++20,$(CXXFLAGS)))) -Wno-unknown-pragmas \
    -Wno-missing-field-initializers -DHINGE_CUDA_EMULATOR -fsanitize=alignment -fno-sanitize-recover=alignment
# A device faults on an access that is not aligned to its size; the host would let it pass.
CUDA_LIBS    := -lubsan
# What nvcc and the toolkit bring, kernels get from the emulator instead.
KERNEL_FLAGS := -include tests/cuda_emulator/emulator.h -isystem tests/cuda_emulator
else ifeq ($(firstword $(TOOLKIT)),found)
CUDA_HOME    := $(word 2,$(TOOLKIT))
CUDA_SOURCES += kernels/cuda/libraries.c $(if $(filter yes,$(word 4,$(TOOLKIT))),kernels/comm/nccl.cu)
CUDA_CODES   := $(wordlist 5,99,$(TOOLKIT))
NVCC         := $(CUDA_HOME)/bin/nvcc
NVFLAGS      := -std=c++20 -O3 -lineinfo -I. -D_GNU_SOURCE -ccbin $(CXX) -Werror all-warnings -Xcompiler -Wall \
    $(foreach c,$(CUDA_CODES),-gencode 'arch=compute_$(lastword $(subst _, ,$c)),code=[$c]')
CUDA_LIBS    := -L$(word 3,$(TOOLKIT)) -Wl,-rpath,$(word 3,$(TOOLKIT)) -lcudart_static -ldl -lrt
else
CUDA_SOURCES :=
endif
# Those that nvcc makes are kept apart by what GPUs they are for.
FOR_GPUS     := $(BUILD)/$(subst $(comma),-,$(subst $(space),-,$(strip $(CUDA_CODES))))
CUDA_OBJECTS := $(foreach s,$(CUDA_SOURCES),$(if $(and $(NVCC),$(filter %.cu,$s)),$(FOR_GPUS),$(DEVICE))/$(basename $s).o)
LIBRARY    := $(BUILD)/libhinge.a
PROGRAM    := $(DEVICE)/hinge

TEST_PROGRAMS := $(patsubst %.c,$(BUILD)/%,$(filter-out tests/cuda/%,$(sort $(wildcard tests/*/test_*.c tests/*/bench_*.c))))
CUDA_TESTS    := $(if $(CUDA_OBJECTS),$(addprefix $(DEVICE)/,$(basename $(sort $(wildcard tests/cuda/test_* tests/cuda/bench_* \
    $(if $(filter emulator,$(CUDA)),tests/cuda_emulator/test_*))))))
# Those of ops have double for real on the CPU's side, which is what an op is held against: tests/cuda/device_case.h.
OP_TESTS      := $(filter-out %/test_comm %/test_decoding %/test_model %/test_scoring %/test_training %/test_warpgroup,$(filter $(DEVICE)/tests/cuda/test_%,$(CUDA_TESTS)))
OP_SOURCES    := $(wildcard kernels/*.c kernels/cpu/*.c) tests/cuda/device_case.c
OP_SIDE       := $(OP_SOURCES:%.c=$(BUILD)/float64/%.o)
# Sources beside the tests of a folder that are no test themselves are linked into each of its other programs.
support        = $(patsubst %.c,$(BUILD)/%.o,$(filter-out $(OP_SOURCES) $(wildcard $(dir $1)test_*.c $(dir $1)bench_*.c),$(wildcard $(dir $1)*.c))) \
    $(patsubst %.cc,$(BUILD)/%.o,$(filter tests/model/%,$(wildcard $(dir $1)*.cc)))

# Fuzz targets read as libFuzzer's: tests/fault/fuzz_NAME.c with what they share.
FUZZERS       := $(patsubst %.c,$(BUILD)/%,$(wildcard tests/fault/fuzz_*.c))
FUZZ_SHARED   := $(patsubst %.c,$(BUILD)/%.o,tests/fault/fuzz.c tests/fault/tiny_model.c)

# What objects are made with: with another compiler, other flags or, where native is, another processor they are made again,
# or they would not be what provenance says. Expanded here: a target's own flags would come along with it.
CPU_CODE   := $(shell $(CC) -march=$(ARCH) -Q --help=target 2>/dev/null | cksum)
BUILT_WITH := $(shell $(CC) --version 2>/dev/null | head -n 1) $(CPU_CODE) $(CC) $(CFLAGS) $(CXX) $(CXXFLAGS) $(PKG_CFLAGS)
ifneq ($(NVCC),)
GPU_BUILT_WITH := $(shell $(NVCC) --version | tail -n 1) $(NVCC) $(NVFLAGS)
endif

.DEFAULT_GOAL := all
.PHONY: all demo test test-cuda check bench bench-cuda soak cuda-tests help packages test-packages check-packages clean tests fuzzers format libraries

all: $(PROGRAM) cuda-note ## build build/hinge (SAN=address|undefined|thread, REAL=double)

.PHONY: cuda-note
cuda-note:
ifneq ($(NVCC),)
	@echo "built for the CPU and, with the toolkit in $(CUDA_HOME), for GPUs: $(CUDA_CODES)"
else ifneq ($(TOOLKIT),)
	@echo "built for the CPU alone: $(wordlist 2,99,$(TOOLKIT)); see kernels/cuda/README.md"
endif

# Where there is no GPU, it does not wait for kernels that only others could run.
demo: packages ## install, build, prepare text, run suites/demo.yaml, make reports/out/demo.pdf
	@$(MAKE) --no-print-directory -s -j$(JOBS) $$(command -v nvidia-smi >/dev/null || echo CUDA=none) all
	@$(PROGRAM) data prepare
	@$(PROGRAM) run suites/demo.yaml
	@$(PROGRAM) report suites/demo.yaml
	@$(PROGRAM) compare suites/demo.yaml
	@echo "The report is reports/out/demo.pdf"

test: test-packages ## install, build and run every test (ONLY=name runs one)
	@JOBS=$(JOBS) ONLY="$(ONLY)" tests/run

# Said before packages come and minutes of nvcc, not after.
.PHONY: device
device:
	@tests/has_device

test-cuda: | device test-packages ## run tests/cuda on this machine's GPU (ONLY=name), also under compute-sanitizer
	@$(MAKE) --no-print-directory -j$(JOBS) cuda-tests
	@ONLY="$(ONLY)" tests/run_cuda

bench-cuda: | device packages ## measure this machine's GPU, every op and a step against its limits, and sampling
	@$(MAKE) --no-print-directory -j$(JOBS) cuda-tests
	@build/tests/cuda/bench_ops
	@build/tests/cuda/bench_step

check: check-packages ## format, warnings, include direction, file heads
	@$(MAKE) --no-print-directory -j$(JOBS) all tests compile_commands.json
	@tests/check

bench: packages ## measure this machine's rates, training and every op against them
	@$(MAKE) --no-print-directory -j$(JOBS) all tests
	@tests/bench

soak: test-packages ## faults, load and hostile input for hours (SEED=, FUZZ_SECONDS=, KILLS=, RUNS= set their extent)
	@tests/soak

tests: $(TEST_PROGRAMS)

cuda-tests: $(CUDA_TESTS)
	@[ -n "$^" ] || { echo "$(or $(wordlist 2,99,$(TOOLKIT)),CUDA=auto is needed); CUDA_HOME=FOLDER says where it is" >&2; exit 1; }

fuzzers: $(FUZZERS)

format:
	@clang-format -i $$(git ls-files '*.c' '*.h' '*.cc' '*.cu' '*.cuh')

packages: ; @harness/install.sh $(PACKAGES)
test-packages: ; @harness/install.sh $(PACKAGES) $(TEST_PACKAGES)
check-packages: ; @harness/install.sh $(PACKAGES) $(TEST_PACKAGES) $(CHECK_PACKAGES)

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s  %s\n", $$1, $$2}' Makefile

clean: ## remove what was built (not data, results or reports)
	@rm -rf build compile_commands.json

libraries:
	@pkg-config --exists $(LIBRARIES) || { echo "libraries are missing; 'make packages' installs them" >&2; exit 1; }

$(OBJECTS) $(OP_SIDE): | libraries

$(PROGRAM): $(BUILD)/harness/main.o $(CUDA_OBJECTS) $(LIBRARY)
	@echo "  link  $@"
	@$(CC) $(CFLAGS) -o $@ $(filter %.o %.a,$^) $(LDLIBS)

$(LIBRARY): $(filter-out $(BUILD)/harness/main.o,$(OBJECTS))
	@rm -f $@ && ar rcs $@ $^

define compile_c
@mkdir -p $(@D)
@echo "  cc    $<"
@$(CC) $(CFLAGS) $(PKG_CFLAGS) -MMD -MP -c -o $@ $<
endef
$(BUILD)/%.o: %.c $(BUILD)/built-with
	$(compile_c)

$(BUILD)/float64/%.o: CFLAGS += -DHINGE_DOUBLE
$(BUILD)/float64/%.o: %.c $(BUILD)/built-with
	$(compile_c)

$(BUILD)/%.o: %.cc $(BUILD)/built-with
	@mkdir -p $(@D)
	@echo "  c++   $<"
	@$(CXX) $(CXXFLAGS) $(PKG_CFLAGS) -MMD -MP -c -o $@ $<

# A file of that text, newer than before only where that is another.
keep = @mkdir -p $(@D); echo '$(subst ','\'',$1)' | cmp -s - $@ || echo '$(subst ','\'',$1)' > $@
$(BUILD)/built-with: FORCE
	$(call keep,$(BUILT_WITH))
ifneq ($(NVCC),)
$(FOR_GPUS)/built-with: FORCE
	$(call keep,$(GPU_BUILT_WITH))
endif

# The program is linked again when kernels come in or go.
$(DEVICE)/kernels-linked: FORCE
	$(call keep,$(CUDA_OBJECTS))
$(PROGRAM): $(DEVICE)/kernels-linked
$(BUILD)/kernels/cuda/libraries.o: CFLAGS += -isystem $(CUDA_HOME)/include

ifeq ($(CUDA),emulator)
$(DEVICE)/%.o: %.cu $(BUILD)/built-with
	@mkdir -p $(@D)
	@echo "  c++   $<"
	@$(CXX) -x c++ $(CUFLAGS) $(KERNEL_FLAGS) -MMD -MP -c -o $@ $<

$(DEVICE)/%.o: %.c $(BUILD)/built-with
	$(compile_c)

# The emulator itself looks at memory that sanitisers must not see it look at.
$(DEVICE)/tests/cuda_emulator/%.o: tests/cuda_emulator/%.cc $(BUILD)/built-with
	@mkdir -p $(@D)
	@echo "  c++   $<"
	@$(CXX) $(filter-out -fsanitize% -O1 -fno-omit-frame-pointer,$(CUFLAGS)) -O3 $(if $(findstring address,$(SAN)),-DEMULATOR_ASAN) \
	    -MMD -MP -c -o $@ $<
else
define compile_cu
@mkdir -p $(@D)
@echo "  nvcc  $<"
@$(NVCC) $(NVFLAGS) -MMD -MP -MF $(@:.o=.d) -c -o $@ $<
endef
$(FOR_GPUS)/%.o: %.cu $(FOR_GPUS)/built-with
	$(compile_cu)
$(BUILD)/tests/%.o: tests/%.cu $(FOR_GPUS)/built-with
	$(compile_cu)
endif

.SECONDEXPANSION:
define link_test
@mkdir -p $(@D)
@echo "  link  $@"
@$(CC) $(CFLAGS) -o $@ $(filter %.o,$^) $(filter $(LIBRARY),$^) $(LDLIBS) -lcmocka
endef
$(TEST_PROGRAMS): $(BUILD)/%: $(BUILD)/%.o $$(call support,%) $(LIBRARY)
	$(link_test)
$(filter-out $(OP_TESTS),$(CUDA_TESTS)): $(DEVICE)/%: $(DEVICE)/%.o $$(call support,%) $(CUDA_OBJECTS) $(LIBRARY)
	$(link_test)
$(OP_TESTS): $(DEVICE)/%: $(BUILD)/float64/%.o $(OP_SIDE) $(CUDA_OBJECTS)
	$(link_test)

$(filter-out $(OP_TESTS),$(filter $(DEVICE)/tests/cuda/%,$(CUDA_TESTS))): $(BUILD)/tests/model/toy.o

$(BUILD)/kernels/comm/mpi.o: CFLAGS += $(if $(MPI),-DHINGE_MPI $(shell pkg-config --cflags $(MPI)))

$(FUZZERS): %: %.o $(FUZZ_SHARED) $(LIBRARY)
	@echo "  link  $@"
	@$(CXX) $(CXXFLAGS) -fsanitize=fuzzer -o $@ $^ $(LDLIBS)

$(BUILD)/tests/fault/%.so: tests/fault/%.c $(BUILD)/built-with
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
	$(call keep,$(REVISION) $(CODE_BYTES))
FORCE:
$(BUILD)/harness/provenance.o: $(BUILD)/revision
$(BUILD)/harness/provenance.o: CFLAGS += -DHINGE_FLAGS='"$(OPTIMISE) -march=$(MACHINE) $(NUMERICS)"' -DHINGE_REVISION='"$(REVISION)"' \
    -DHINGE_CODE_BYTES=$(CODE_BYTES)

compile_commands.json: Makefile
	@{ echo '['; first=; for f in $(C_SOURCES); do \
	  printf '%s{"directory":"%s","file":"%s","command":"%s -c %s"}' "$$first" "$(CURDIR)" "$$f" \
	    '$(subst ",\",$(CC) $(CFLAGS) $(PKG_CFLAGS))' "$$f"; first=",$$(printf '\n')"; done; echo ']'; } > $@

-include $(OBJECTS:.o=.d) $(CUDA_OBJECTS:.o=.d) $(CUDA_TESTS:=.d) $(OP_SIDE:.o=.d) $(OP_TESTS:$(DEVICE)/%=$(BUILD)/float64/%.d) $(addsuffix .d,$(addprefix $(BUILD)/,$(basename $(wildcard tests/*/*.c)))) $(BUILD)/tests/model/guarded.d
