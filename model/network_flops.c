/* network_flops: the floating-point operations of one token, counted from the formulas: 2*M*N*K for every product.
 *
 * Norms, gates and other work that is linear in the width is not counted, nor is anything done twice to save memory.
 * SSD per token and head, with chunks of Q tokens (the masked half is multiplied too):
 *   forward   C B^T (QN), the masked product with x (QP), C S and the state's update (2 NP)
 *   backward  C B^T again, its gradients in B and C (3 QN), those of x and of the mask (2 QP), four products with S (4
 * NP) Attention per token and query head, where a token sees (T+1)/2 positions: forward 2 products, backward 5. */
#include "model/tape.h"

struct flops {
    double linear;            /* forward; backward takes twice as much */
    double mixer, mixer_back; /* of SSD and attention */
};

static double product(const struct tensor *w) { return w ? 2.0 * (double)w->count : 0; }

static void add_ssd(struct flops *flops, const struct mamba_shape *s, size_t time) {
    double chunk = (double)(s->chunk < time ? s->chunk : time), n = (double)s->state, p = (double)s->head_dim;
    double heads = (double)s->heads;
    flops->mixer += heads * 2 * (chunk * (n + p) + 2 * n * p);
    flops->mixer_back += heads * 2 * (chunk * (3 * n + 2 * p) + 4 * n * p);
}

static void add_attention(struct flops *flops, const struct attention_shape *s, size_t time) {
    double one = 2.0 * (double)(s->heads * s->head_dim) * ((double)time + 1) / 2;
    flops->mixer += 2 * one;
    flops->mixer_back += 5 * one;
}

static struct flops count(const struct network *net, bool repeats_on, size_t time) {
    const struct parameters *p = &net->parameters;
    const struct schedule *schedule = schedule_of(net, repeats_on);
    struct extent e = extent_of(net, 1, time);
    struct flops flops = {
        product(parameters_get(p, -1, ROLE_EMBEDDING)) + product(parameters_get(p, -1, ROLE_BIGRAM_PROJ)), 0, 0};
    for (int i = 0; i < schedule->count; i++) {
        const struct virtual_layer *at = &schedule->layers[i];
        static const enum tensor_role roles[] = {ROLE_MAMBA_IN_PROJ, ROLE_MAMBA_OUT_PROJ, ROLE_ATTN_Q, ROLE_ATTN_K,
                                                 ROLE_ATTN_V,        ROLE_ATTN_PROJ,      ROLE_MLP_FC, ROLE_MLP_PROJ};
        for (size_t r = 0; r < sizeof roles / sizeof *roles; r++)
            flops.linear += product(parameters_get(p, at->physical, roles[r]));
        if (is_attention(net, at->physical))
            add_attention(&flops, &e.attention, time);
        else
            add_ssd(&flops, &e.mamba, time);
    }
    return flops;
}

double network_forward_flops(const struct network *net, bool repeats_on, size_t time) {
    struct flops flops = count(net, repeats_on, time);
    return flops.linear + flops.mixer;
}

double network_training_flops(const struct network *net, bool repeats_on, size_t time) {
    struct flops flops = count(net, repeats_on, time);
    return 3 * flops.linear + flops.mixer + flops.mixer_back;
}
