/* bench_ops: times every op of the CUDA backend at the published preset's shapes against the limits of this device.
 *
 *   bench_ops [--small] [WORD]     WORD: only ops whose name contains it; --small: a few rows, to see that all runs
 *
 * The limits are measured in the same run: a copy of 2 GB (bytes read and written) and a bf16 product of
 * 8192 x 8192 x 8192, both on random data. An op's limit is the larger of FLOPs / product rate and bytes / copy rate,
 * where bytes count each tensor once per access that the op cannot do without. Times are medians of device events.
 *
 * "hot" is what a call takes when nothing but it has run for 0.6 s, and as long again: a device that is then at its
 * power limit lowers its clocks, as it does within a training step. The share beside it is of limits that were measured
 * hot as well, for 1.5 s; watts and millijoules, a call, are the device's own meter's. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <algorithm>
#include <functional>
#include <vector>

#include "kernels/cuda/device.cuh"
extern "C" {
#include "kernels/bfloat16.h"
#include "kernels/clock.h"
#include "kernels/random.h"
#include "tests/cuda/energy_meter.h"
}

enum { SAMPLES = 9, MATRICES = 8, DECODED = 32 };
static const float SAMPLE_MS = 2;
static const double BATCH_SECONDS = 0.01;
static double sustain_seconds = 0.6, limit_seconds = 1.5; /* limits: longer than the clocks go up and down */

/* A call's shapes: spec of the published preset; one call is a micro-batch. Decoding takes the last token of DECODED
 * sequences, as many as self-calibration samples at once. */
static struct preset {
    size_t batch = 16, time = 4096, dim = 512, hidden = 1536, vocab = 1024, buckets = 4096;
    attention_shape attention = {batch, time, 8, 4, 64, 64};
    mamba_shape mamba = {
        .batch = batch, .time = time, .heads = 16, .head_dim = 64, .state = 64, .groups = 1, .angles = 16, .chunk = 64};
    size_t copy_bytes = (size_t)1 << 30, product_side = 8192;
    size_t rows() const { return batch * time; }
    size_t inner() const { return mamba.heads * mamba.head_dim; }
    size_t width() const { return mamba_columns(&mamba).width; }
} p;

static const struct backend *ops;
static struct lane lane;
static const char *word;

[[noreturn]] static void stop(const char *text) {
    fprintf(stderr, "bench_ops: %s\n", text);
    exit(1);
}

static void must(status s) {
    if (s) stop(status_text(s));
}

/* --- memory: random numbers everywhere ---------------------------------------------------------------------------- */

static std::vector<void *> taken;

static void *device_memory(size_t bytes, const void *pattern, size_t pattern_bytes) {
    void *memory;
    must(ops->memory_new(&memory, bytes, "a benchmark"));
    for (size_t at = 0; at < bytes; at += pattern_bytes)
        ops->upload(&lane, (char *)memory + at, pattern, std::min(pattern_bytes, bytes - at));
    taken.push_back(memory);
    return memory;
}

static void free_all() {
    must(ops->finish(&lane));
    for (void *memory : taken) ops->memory_free(memory);
    taken.clear();
}

/* No multiple of a row's length: rows that repeat within a tile would cost a product less energy than random ones. */
enum { PATTERN = (1 << 20) - 3 };

static const std::vector<real> &normals() {
    static std::vector<real> x;
    for (size_t i = x.size(); i < PATTERN; i++) x.push_back((real)random_normal(random_stream(5, "bench"), i));
    return x;
}

static act *activations(size_t count) {
    static std::vector<uint16_t> x;
    for (size_t i = x.size(); i < PATTERN; i++) x.push_back(bfloat16_of(normals()[i]));
    return static_cast<act *>(device_memory(count * 2, x.data(), x.size() * 2));
}
static real *reals(size_t count) {
    return static_cast<real *>(device_memory(count * sizeof(real), normals().data(), PATTERN * sizeof(real)));
}
/* Below `bound`. */
static int32_t *ids(size_t count, size_t bound) {
    std::vector<int32_t> x(PATTERN);
    for (size_t i = 0; i < x.size(); i++) x[i] = (int32_t)random_below(random_stream(6, "ids"), i, bound);
    return static_cast<int32_t *>(device_memory(count * sizeof(int32_t), x.data(), x.size() * sizeof x[0]));
}
template <typename T> static T *zeros(size_t count) {
    std::vector<T> x(PATTERN);
    return static_cast<T *>(device_memory(count * sizeof(T), x.data(), x.size() * sizeof(T)));
}
template <typename T> static T *uploaded(const T &x) { return static_cast<T *>(device_memory(sizeof x, &x, sizeof x)); }

static void take_scratch(size_t bytes) {
    if (bytes <= lane.scratch_bytes) return;
    ops->memory_free(lane.scratch);
    must(ops->memory_new(&lane.scratch, bytes, "scratch"));
    lane.scratch_bytes = bytes;
}

/* --- time --------------------------------------------------------------------------------------------------------- */

static float milliseconds(const std::function<void()> &call, int repeats) {
    static cudaEvent_t from, to;
    if (!from) cudaEventCreate(&from), cudaEventCreate(&to);
    float elapsed = 0;
    cudaEventRecord(from, device_stream());
    for (int i = 0; i < repeats; i++) call();
    cudaEventRecord(to, device_stream());
    must(ops->finish(&lane));
    cudaEventElapsedTime(&elapsed, from, to);
    return elapsed / (float)repeats;
}

/* Median seconds of one call. */
static double seconds(const std::function<void()> &call) {
    milliseconds(call, 2);
    float once = milliseconds(call, 1), sample[SAMPLES];
    int repeats = once > 0 ? 1 + (int)(SAMPLE_MS / once) : 1;
    for (float &s : sample) s = milliseconds(call, repeats);
    std::sort(sample, sample + SAMPLES);
    return sample[SAMPLES / 2] / 1e3;
}

/* The energy meter's bus; none on the emulator, which has no meter. */
static const char *device_bus() {
    static char bus[32];
#ifndef HINGE_CUDA_EMULATOR
    if (!bus[0]) cudaDeviceGetPCIBusId(bus, sizeof bus, 0);
#endif
    return bus;
}

/* What a call takes among others like it, at the clocks that the power limit leaves; 0 watts: no meter. */
struct sustained {
    double seconds, watts;
};

/* Batches of calls, of which the next is always handed over before one is waited for: a device that rests while the
 * host reads a meter cools down, and its clocks rise. */
struct batches {
    const std::function<void()> &call;
    int repeats;
    long long handed_over = 0, ended = 0;
    cudaEvent_t end[3];

    explicit batches(const std::function<void()> &call, int repeats) : call(call), repeats(repeats) {
        for (cudaEvent_t &e : end) cudaEventCreate(&e);
        hand_over();
    }
    ~batches() {
        for (cudaEvent_t e : end) cudaEventDestroy(e);
    }
    void hand_over() {
        for (int i = 0; i < repeats; i++) call();
        cudaEventRecord(end[handed_over++ % 3], device_stream());
    }
    /* Milliseconds from the end of one batch to the end of the next. */
    float next() {
        float elapsed = 0;
        hand_over();
        if (ended == 0) hand_over();
        cudaEventSynchronize(end[++ended % 3]);
        cudaEventElapsedTime(&elapsed, end[(ended - 1) % 3], end[ended % 3]);
        return elapsed;
    }
};

/* One call after another for `length` seconds, after as many that do not count: the device finds its clocks in them.
 * Power is measured from one step of the meter to another. */
static sustained sustain(const std::function<void()> &call, double once, double length) {
    struct reading {
        double time, joules;
    } first = {}, last = {};
    batches work(call, std::max(1, (int)(BATCH_SECONDS / once)));
    int counted = 0;
    double busy = 0;
    for (double end = clock_seconds() + length; clock_seconds() < end;) work.next();
    double before = energy_used(device_bus()), end = clock_seconds() + length;
    do {
        busy += work.next() / 1e3, counted++;
        double joules = energy_used(device_bus());
        if (joules == before) continue;
        last = {clock_seconds(), before = joules};
        if (first.time == 0) first = last;
    } while (clock_seconds() < end);
    must(ops->finish(&lane));
    double span = last.time - first.time;
    return {busy / counted / work.repeats, span > 0 ? (last.joules - first.joules) / span : 0};
}

struct rates {
    double copy, product; /* bytes, FLOPs a second */
    double limit(double bytes, double flops) const { return std::max(bytes / copy, flops / product); }
} cool, hot;

static void row(const char *name, double bytes, double flops, const std::function<void()> &call) {
    if (word && !strstr(name, word)) return;
    double s = seconds(call), limit = cool.limit(bytes, flops);
    sustained among = sustain(call, s, sustain_seconds);
    printf("%-32s %10.1f %10.1f %9.1f %9.1f %9.1f %6.0f %% %-8s %9.1f %6.0f %% %6.0f %8.1f\n", name, s * 1e6,
           limit * 1e6, bytes / 1e6, flops / 1e9, flops > 0 ? flops / s / 1e12 : bytes / s / 1e9, 100 * limit / s,
           flops / cool.product > bytes / cool.copy ? "product" : "copy", among.seconds * 1e6,
           100 * hot.limit(bytes, flops) / among.seconds, among.watts, among.watts * among.seconds * 1e3);
    fflush(stdout);
}

static void print_limits(const char *when, const rates &r, double copy_watts, double product_watts) {
    printf("%s copy %.0f GB/s, bf16 product %.0f TFLOP/s", when, r.copy / 1e9, r.product / 1e12);
    if (product_watts > 0) printf(", at %.0f and %.0f W", copy_watts, product_watts);
    printf("\n");
}

static void measure_limits() {
    char *from = reinterpret_cast<char *>(activations(p.copy_bytes / 2)), *to = (char *)activations(p.copy_bytes / 2);
    auto copy = [&] { ops->copy(&lane, to, from, p.copy_bytes); };
    double bytes = 2.0 * (double)p.copy_bytes, s = seconds(copy);
    sustained copying = sustain(copy, s, limit_seconds);
    cool.copy = bytes / s, hot.copy = bytes / copying.seconds;
    free_all();
    size_t n = p.product_side;
    take_scratch(ops->linear_scratch(n, n, n));
    act *x = activations(n * n), *y = activations(n * n), *w = activations(n * n);
    auto product = [&] { ops->linear_forward(&lane, y, x, w, n, n, n); };
    double flops = 2.0 * (double)n * (double)n * (double)n;
    s = seconds(product);
    sustained multiplying = sustain(product, s, limit_seconds);
    cool.product = flops / s, hot.product = flops / multiplying.seconds;
    free_all();
    print_limits("by itself:", cool, 0, 0);
    print_limits("hot:      ", hot, copying.watts, multiplying.watts);
    printf("\n%-32s %10s %10s %9s %9s %9s %8s %-8s %9s %8s %6s %8s\n", "op", "us", "limit us", "MB", "GFLOP",
           "TF|GB /s", "share", "limit", "hot us", "share", "W", "mJ");
}

/* --- rows: bytes of activations (2), reals (4) and doubles (8) ---------------------------------------------------- */

static void embedding_rows() {
    size_t R = p.rows(), D = p.dim, n = R * D;
    double N = (double)n;
    take_scratch(std::max(ops->rows_scratch(R, D), ops->embedding_scratch(R, D, p.buckets)));
    act *x = activations(n), *y = activations(n);
    int32_t *tokens = ids(R, p.vocab), *buckets = ids(R, p.buckets);
    real *table = reals(p.buckets * D), *small = reals(D);
    row("embedding_forward", 2 * N + 4 * (double)R, 0, [&] { ops->embedding_forward(&lane, x, tokens, table, R, D); });
    row("embedding_backward", 2 * N + 4 * (double)R, 0,
        [&] { ops->embedding_backward(&lane, table, tokens, x, R, D, p.vocab); });
    row("embedding_backward, bigrams", 2 * N + 4 * (double)R, 0,
        [&] { ops->embedding_backward(&lane, table, buckets, x, R, D, p.buckets); });
    row("bigram_ids", 8 * (double)R, 0, [&] { ops->bigram_ids(&lane, buckets, tokens, p.batch, p.time, p.buckets); });
    row("smear_forward", 4 * N, 0, [&] { ops->smear_forward(&lane, y, x, small, p.batch, p.time, D); });
    real *dgate = reals(D);
    act *dx = activations(n);
    row("smear_backward", 6 * N, 0, [&] { ops->smear_backward(&lane, dx, dgate, y, x, small, p.batch, p.time, D); });
    free_all();
}

static void norm_rows() {
    size_t R = p.rows(), D = p.dim, n = R * D;
    double N = (double)n, inv_bytes = 4 * (double)R;
    take_scratch(ops->rows_scratch(R, D));
    act *x = activations(n), *y = activations(n), *z = activations(n), *dx = activations(n);
    real *inv = reals(R), *mix = reals(2 * D), *dmix = reals(2 * D);
    row("rms_norm_forward", 4 * N + inv_bytes, 0, [&] { ops->rms_norm_forward(&lane, y, inv, x, R, D); });
    row("rms_norm_backward", 8 * N + inv_bytes, 0, [&] { ops->rms_norm_backward(&lane, dx, x, y, inv, R, D, true); });
    row("residual_mix_forward", 6 * N, 0, [&] { ops->residual_mix_forward(&lane, y, x, z, mix, R, D); });
    row("residual_mix_backward", 12 * N, 0,
        [&] { ops->residual_mix_backward(&lane, y, dx, dmix, y, x, z, mix, R, D); });
    row("scaled_add_forward", 6 * N, 0, [&] { ops->scaled_add_forward(&lane, y, x, mix, z, R, D); });
    row("scaled_add_backward", 6 * N, 0, [&] { ops->scaled_add_backward(&lane, dx, dmix, y, mix, x, R, D); });
    act *d0 = activations(n), *skip = activations(n), *dskip = activations(n);
    real *scale = reals(D), *dscale = reals(D);
    residual_inputs alone = {x, NULL, z, NULL, mix}, skipping = {x, skip, z, scale, mix};
    row("residual_mix_norm_forward", 8 * N + inv_bytes, 0,
        [&] { ops->residual_mix_norm_forward(&lane, y, dskip, inv, &alone, R, D); });
    row("residual_mix_norm_forward, skip", 10 * N + inv_bytes, 0,
        [&] { ops->residual_mix_norm_forward(&lane, y, dskip, inv, &skipping, R, D); });
    const residual_sums plain = {};
    row("residual_mix_norm_backward", 16 * N + inv_bytes, 0,
        [&] { ops->residual_mix_norm_backward(&lane, dx, d0, NULL, dmix, NULL, y, z, inv, &alone, &plain, R, D); });
    row("residual_mix_norm_backward, skip", 20 * N + inv_bytes, 0, [&] {
        ops->residual_mix_norm_backward(&lane, dx, d0, dskip, dmix, dscale, y, z, inv, &skipping, &plain, R, D);
    });
    row("add_into", 6 * N, 0, [&] { ops->add_into(&lane, dx, x, n); });
    row("clear", 2 * N, 0, [&] { ops->clear(&lane, dx, n * 2); });
    row("copy", 4 * N, 0, [&] { ops->copy(&lane, dx, x, n * 2); });
    free_all();
}

static void linear_rows() {
    const struct {
        const char *name;
        size_t out, in;
    } shapes[] = {{"mlp up", p.hidden, p.dim},        {"mlp down", p.dim, p.hidden},
                  {"mamba in", p.width(), p.dim},     {"mamba out", p.dim, p.inner()},
                  {"attention q, out", p.dim, p.dim}, {"attention k, v", p.dim / 2, p.dim}};
    size_t R = p.rows();
    for (const auto &s : shapes) {
        char name[64];
        double flops = 2.0 * (double)R * (double)s.out * (double)s.in, w_bytes = 2.0 * (double)(s.out * s.in);
        double bytes = 2.0 * (double)R * (double)(s.out + s.in) + w_bytes;
        take_scratch(ops->linear_scratch(R, s.out, s.in));
        act *x = activations(R * s.in), *y = activations(R * s.out), *w = activations(s.out * s.in);
        real *dw = reals(s.out * s.in);
        snprintf(name, sizeof name, "linear_forward, %s", s.name);
        row(name, bytes, flops, [&] { ops->linear_forward(&lane, y, x, w, R, s.out, s.in); });
        act *z = activations(R * s.out);
        snprintf(name, sizeof name, "linear_add_forward, %s", s.name);
        if (s.out == p.dim)
            row(name, bytes + 2.0 * (double)(R * s.out), flops,
                [&] { ops->linear_add_forward(&lane, z, y, x, w, R, s.out, s.in); });
        snprintf(name, sizeof name, "linear_b._input, %s", s.name);
        row(name, bytes, flops, [&] { ops->linear_backward_input(&lane, x, y, w, R, s.out, s.in, false); });
        snprintf(name, sizeof name, "linear_b._weight, %s", s.name);
        row(name, bytes + 3 * w_bytes, flops, [&] { ops->linear_backward_weight(&lane, dw, y, x, R, s.out, s.in); });
        free_all();
    }
    size_t n = R * p.hidden, H = p.hidden, D = p.dim;
    take_scratch(ops->linear_scratch(R, H, D));
    act *x = activations(n), *y = activations(n), *dx = activations(n), *narrow = activations(R * D);
    act *w = activations(H * D);
    double flops = 2.0 * (double)n * (double)D, narrow_bytes = 2.0 * (double)(R * D) + 2.0 * (double)(H * D);
    row("linear_leaky_relu_squared_forw.", 4.0 * (double)n + narrow_bytes, flops,
        [&] { ops->linear_leaky_relu_squared_forward(&lane, x, y, narrow, w, R, H, D); });
    row("linear_leaky_relu_squared_backw.", 4.0 * (double)n + narrow_bytes, flops,
        [&] { ops->linear_leaky_relu_squared_backward(&lane, dx, narrow, w, x, R, D, H); });
    row("leaky_relu_squared_forward", 4.0 * (double)n, 0, [&] { ops->leaky_relu_squared_forward(&lane, y, x, n); });
    row("leaky_relu_squared_backward", 6.0 * (double)n, 0,
        [&] { ops->leaky_relu_squared_backward(&lane, dx, y, x, n); });
    free_all();
}

static void attention_rows() {
    const attention_shape *s = &p.attention;
    size_t R = p.rows(), q_count = R * s->heads * s->head_dim, k_count = R * s->kv_heads * s->head_dim;
    size_t angles = s->time * s->rope_dims / 2;
    double Q = (double)q_count, K = (double)k_count, products = 2.0 * Q * (double)s->time / 2; /* causal */
    take_scratch(ops->attention_scratch(s));
    act *q = activations(q_count), *k = activations(k_count), *v = activations(k_count), *out = activations(q_count);
    act *dq = activations(q_count), *dk = activations(k_count), *dv = activations(k_count);
    real *gain = reals(s->heads), *dgain = reals(s->heads), *cosine = reals(angles), *sine = reals(angles);
    attention_tape tape = {activations(q_count), activations(k_count),   activations(k_count),
                           reals(R * s->heads),  reals(R * s->kv_heads), reals(R * s->heads)};
    row("rope_table", 8.0 * (double)angles, 0,
        [&] { ops->rope_table(&lane, cosine, sine, s->time, s->rope_dims, 10000); });
    row("attention_prepare_forward", 4 * Q + 8 * K, 0,
        [&] { ops->attention_prepare_forward(&lane, &tape, q, k, v, gain, cosine, sine, s); });
    row("attention_forward", 4 * Q + 4 * K, 2 * products, [&] { ops->attention_forward(&lane, out, &tape, s); });
    row("attention_backward", 8 * Q + 8 * K, 5 * products,
        [&] { ops->attention_backward(&lane, dq, dk, dv, out, out, &tape, s); });
    row("attention_prepare_backward", 6 * Q + 12 * K, 0,
        [&] { ops->attention_prepare_backward(&lane, dq, dk, dv, dgain, &tape, v, gain, cosine, sine, s); });
    free_all();
}

static mamba_tape new_tape(const mamba_shape *s, size_t R) {
    return {.rate = reals(R * s->angles),
            .phase = reals(s->batch * s->heads * mamba_chunks(s) * s->angles),
            .inv_b = reals(R * s->groups),
            .inv_c = reals(R * s->groups),
            .delta = reals(R * s->heads),
            .log_decay = reals(R * s->heads),
            .gamma = reals(R * s->heads),
            .states = activations(s->batch * s->heads * mamba_chunks(s) * s->head_dim * s->state)};
}

static void mamba_rows() {
    const mamba_shape *s = &p.mamba;
    size_t R = p.rows(), inner = p.inner(), h = s->heads;
    double X = (double)(R * inner), states = X / (double)s->chunk * (double)s->state;
    double small = 4.0 * (double)(R * h), angles = 4.0 * (double)(R * s->angles);
    double vectors = 4.0 * (double)(R * s->groups * s->state); /* the columns of B and C */
    double last = 2.0 * (double)(R * (3 * h + s->angles));     /* those of dt', a', lambda' and theta' */
    /* Per token and head: scores and their product with x are half of chunk, state in and out are whole. */
    double L = (double)s->chunk, P = (double)s->head_dim, N = (double)s->state;
    double flops = (double)(R * h) * (L * N + L * P + 4 * N * P);
    take_scratch(std::max(ops->mamba_prepare_scratch(s), ops->ssd_scratch(s)));
    act *proj = activations(R * p.width()), *dproj = activations(R * p.width()), *y = activations(R * inner);
    act *out = activations(R * inner);
    real *d = reals(h), *dd = reals(h);
    mamba_weights weights = {reals(h), reals(h * s->state), reals(h * s->state), reals(s->state), reals(s->state), d};
    mamba_gradients gradients = {reals(h),        reals(h * s->state), reals(h * s->state),
                                 reals(s->state), reals(s->state),     dd};
    mamba_tape tape = new_tape(s, R);
    mamba_tape_gradients dtape = {.theta = reals(s->groups * R * s->angles),
                                  .phase = reals(s->batch * h * mamba_chunks(s) * s->angles),
                                  .delta = reals(R * h),
                                  .log_decay = reals(R * h),
                                  .gamma = reals(R * h)};
    row("mamba_prepare_forward", vectors + last + angles + 3 * small, 0,
        [&] { ops->mamba_prepare_forward(&lane, &tape, proj, &weights, s); });
    row("ssd_forward", 4 * X + vectors + 2 * states + angles + 3 * small, flops,
        [&] { ops->ssd_forward(&lane, y, &tape, proj, &weights, s); });
    row("ssd_silu_gate_forward", 8 * X + vectors + 2 * states + angles + 3 * small, flops,
        [&] { ops->ssd_silu_gate_forward(&lane, out, y, &tape, proj, &weights, s); });
    row("ssd_backward", 8 * X + 3 * vectors + 6 * states + 2 * angles + 6 * small, 2.5 * flops,
        [&] { ops->ssd_backward(&lane, dproj, &gradients, &dtape, y, &tape, proj, &weights, s); });
    row("mamba_prepare_backward", 2 * last + 2 * angles + 4 * small, 0,
        [&] { ops->mamba_prepare_backward(&lane, dproj, &gradients, &dtape, &tape, proj, &weights, s); });
    act *z = proj, *dz = dproj;
    act *dy = activations(R * inner);
    row("silu_gate_forward", 6 * X, 0, [&] { ops->silu_gate_forward(&lane, out, y, z, p.width(), R, inner); });
    act *w = activations(p.dim * inner), *dbranch = activations(R * p.dim);
    take_scratch(ops->linear_scratch(R, p.dim, inner));
    row("linear_silu_gate_backward", 8 * X + 2.0 * (double)(R * p.dim + p.dim * inner), 2 * X * (double)p.dim,
        [&] { ops->linear_silu_gate_backward(&lane, dy, dz, dbranch, w, y, z, p.width(), R, p.dim, inner); });
    row("silu_gate_backward", 10 * X, 0,
        [&] { ops->silu_gate_backward(&lane, dy, dz, out, y, z, p.width(), R, inner); });
    free_all();
}

static void decode_attention_row() {
    attention_shape s = p.attention;
    s.batch = DECODED, s.time = 1;
    size_t q_count = s.batch * s.heads * s.head_dim, k_count = s.batch * s.kv_heads * s.head_dim;
    size_t capacity = p.time, angles = capacity * s.rope_dims / 2;
    double Q = (double)q_count, K = (double)k_count, keys = (double)capacity;
    take_scratch(ops->attention_scratch(&s));
    act *q = activations(q_count), *k = activations(k_count), *v = activations(k_count), *out = activations(q_count);
    act *k_cache = activations(k_count * capacity), *v_cache = activations(k_count * capacity);
    real *gain = reals(s.heads), *cosine = reals(angles), *sine = reals(angles);
    int32_t *length = uploaded((int32_t)capacity);
    row("attention_decode", 4 * K * keys + 4 * Q + 8 * K, 4 * Q * keys, [&] {
        ops->attention_decode(&lane, out, k_cache, v_cache, q, k, v, gain, cosine, sine, length, capacity, &s);
    });
    free_all();
}

static void decode_mamba_row() {
    mamba_shape s = p.mamba;
    s.batch = DECODED, s.time = 1;
    size_t h = s.heads, inner = DECODED * p.inner(), heads = DECODED * h;
    double kept = (double)(inner * s.state + heads * s.angles + heads * s.state + inner);
    take_scratch(ops->mamba_prepare_scratch(&s));
    act *proj = activations(DECODED * p.width()), *out = activations(inner);
    mamba_state state = {reals(inner * s.state), reals(heads * s.angles), reals(heads * s.state), reals(inner)};
    mamba_weights weights = {reals(h),       reals(h * s.state), reals(h * s.state),
                             reals(s.state), reals(s.state),     reals(h)};
    row("mamba_decode", 8 * kept + 2.0 * (double)(DECODED * p.width() + inner), 0,
        [&] { ops->mamba_decode(&lane, out, &state, proj, &weights, &s); });
    free_all();
}

static void decode_rows() {
    decode_attention_row();
    decode_mamba_row();
}

static void loss_rows() {
    size_t R = p.rows(), V = p.vocab, D = p.dim;
    double logits_bytes = 4.0 * (double)(R * V), flops = 2.0 * (double)R * (double)V * (double)D;
    take_scratch(std::max(ops->linear_scratch(R, V, D), ops->rows_scratch(R, V)));
    act *x = activations(R * D), *dlogits = activations(R * V), *table = activations(V * D);
    real *logits = reals(R * V), *log_sum = reals(R);
    int32_t *targets = ids(R, V);
    double *nll = zeros<double>(R), *sum = zeros<double>(1);
    row("head_forward", 2.0 * (double)(R * D) + logits_bytes, flops,
        [&] { ops->head_forward(&lane, logits, x, table, R, V, D); });
    row("cross_entropy_forward", logits_bytes + 16 * (double)R, 0,
        [&] { ops->cross_entropy_forward(&lane, nll, log_sum, logits, targets, R, V, 30, 1); });
    row("cross_entropy_backward", 1.5 * logits_bytes, 0,
        [&] { ops->cross_entropy_backward(&lane, dlogits, logits, log_sum, targets, 1.0 / (double)R, R, V, 30); });
    row("softcap", 2 * logits_bytes, 0, [&] { ops->softcap(&lane, logits, logits, R * V, 30); });
    take_scratch(ops->tensor_scratch(R));
    row("sum_in_order", 8.0 * (double)R, 0, [&] { ops->sum_in_order(&lane, sum, nll, R); });
    free_all();
}

static void optimiser_rows() {
    size_t rows = p.width(), cols = p.dim, n = rows * cols;
    double bytes = 4.0 * (double)n, small = (double)std::min(rows, cols), large = (double)std::max(rows, cols);
    double schulz = 5 * (2 * small * small * large + 2 * small * small * small + 2 * small * small * large);
    take_scratch(std::max(ops->tensor_scratch(n), ops->newton_schulz_scratch(MATRICES, rows, cols)));
    real *parts[MATRICES], *w = reals(n), *g = reals(n), *m = reals(n), *v = zeros<real>(n);
    real *scale = reals(rows), *dscale = reals(rows);
    for (real *&part : parts) part = reals(n);
    int32_t *finite = zeros<int32_t>(1);
    adam_settings *adam = uploaded(adam_settings_at(1e-3, 0.9, 0.95, 1e-8, 10));
    muon_settings *muon = uploaded(muon_settings_of(0.9, 1e-3, 0.1));
    row("add_tree, 8 parts", ((int)MATRICES + 1) * bytes, 0, [&] { ops->add_tree(&lane, parts, MATRICES, n, finite); });
    row("clip_by_norm", bytes, 0, [&] { ops->clip_by_norm(&lane, g, n, 1e9); });
    row("adam_step", 7 * bytes, 0, [&] { ops->adam_step(&lane, w, m, v, g, n, adam); });
    row("muon_momentum", 4 * bytes, 0, [&] { ops->muon_momentum(&lane, w, m, g, n, muon); });
    row("normalize_rows", 2 * bytes, 0, [&] { ops->normalize_rows(&lane, g, rows, cols); });
    row("newton_schulz, 8 matrices", 2.0 * bytes * (int)MATRICES, schulz * (int)MATRICES,
        [&] { ops->newton_schulz(&lane, parts, MATRICES, rows, cols, 5); });
    row("muon_apply", 3 * bytes, 0, [&] { ops->muon_apply(&lane, w, g, n, muon, 1); });
    row("round_to_acts", 1.5 * bytes, 0, [&] { ops->round_to_acts(&lane, reinterpret_cast<act *>(m), w, n); });
    row("moving_average", 3 * bytes, 0, [&] { ops->moving_average(&lane, m, w, n, 0.99); });
    row("ternarize", 2 * bytes, 0, [&] { ops->ternarize(&lane, m, w, n); });
    row("ternarize_backward", 4 * bytes, 0, [&] { ops->ternarize_backward(&lane, g, w, m, n); });
    row("scale_rows", 1.5 * bytes, 0,
        [&] { ops->scale_rows(&lane, reinterpret_cast<act *>(m), w, scale, rows, cols); });
    row("scale_rows_backward", 3 * bytes, 0, [&] { ops->scale_rows_backward(&lane, g, dscale, w, scale, rows, cols); });
    row("fake_quantize_rows", 2 * bytes, 0, [&] { ops->fake_quantize_rows(&lane, m, w, rows, cols, 15, true); });
    free_all();
}

static void quantise_rows() {
    size_t R = p.rows(), rows = p.dim, cols = p.dim, n = rows * cols;
    double squares = (double)(cols * cols);
    take_scratch(ops->gptq_scratch(R, cols));
    act *x = activations(R * cols);
    double *h = zeros<double>(cols * cols);
    real *w = reals(n);
    int8_t *q = zeros<int8_t>(n);
    uint16_t *scales = zeros<uint16_t>(rows);
    int *info = zeros<int>(1);
    row("hessian_accumulate", 2.0 * (double)(R * cols) + 16 * squares, (double)R * squares,
        [&] { ops->hessian_accumulate(&lane, h, x, R, cols); });
    row("quantize_rows", 5.0 * (double)n, 0,
        [&] { ops->quantize_rows(&lane, q, scales, w, rows, cols, 0, 15, 100, true); });
    row("gptq_quantize", 5.0 * (double)n + 8 * squares, (double)cols * squares * 2,
        [&] { ops->gptq_quantize(&lane, q, scales, w, h, rows, cols, 0, 15, 0.01, info); });
    free_all();
}

static void make_small() {
    p.batch = p.attention.batch = p.mamba.batch = 1;
    p.time = p.attention.time = p.mamba.time = 64;
    p.copy_bytes = 1 << 20;
    p.product_side = 16;
    sustain_seconds = limit_seconds = 0;
}

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--small") == 0)
            make_small();
        else
            word = argv[i];
    ops = backend_find("cuda");
    must(ops->open());
    measure_limits();
    void (*const groups[])() = {embedding_rows, norm_rows, linear_rows,    attention_rows, mamba_rows,
                                decode_rows,    loss_rows, optimiser_rows, quantise_rows};
    for (auto group : groups) group();
    ops->memory_free(lane.scratch);
    return 0;
}
