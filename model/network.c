/* network: what belongs to the model as a whole: its tables, workspaces, and weights as the forward pass sees them. */
#include "model/network.h"

#include <stdlib.h>

#include "model/tape.h"

/* The layers' tapes of both schedules in one allocation. */
static status new_layers(struct workspace *ws, const struct network *net) {
    size_t plain = (size_t)net->plain.count, repeated = (size_t)net->repeated.count;
    ws->layers[0] = calloc(plain + repeated, sizeof *ws->layers[0]);
    if (!ws->layers[0]) return status_new(STATUS_SYSTEM, "no memory for the tapes of %zu layers", plain + repeated);
    ws->layers[1] = ws->layers[0] + plain;
    return NULL;
}

static status count_bytes(struct network *net, bool training) {
    struct workspace ws = {.training = training};
    struct arena counter = {.ops = net->ops};
    TRY(new_layers(&ws, net));
    workspace_lay_out(&ws, net, &counter);
    free(ws.layers[0]);
    net->workspace_bytes[training] = counter.used;
    return NULL;
}

static status build(struct network *net) {
    schedule_build(&net->plain, &net->config, false);
    schedule_build(&net->repeated, &net->config, true);
    TRY(parameters_create(&net->parameters, &net->config));
    TRY(count_bytes(net, false));
    return count_bytes(net, true);
}

status network_create(struct network *net, const struct config *config, const struct backend *ops, size_t max_sequences,
                      size_t time) {
    *net = (struct network){.config = *config, .ops = ops, .max_sequences = max_sequences, .time = time};
    status s = build(net);
    if (s) network_destroy(net);
    return s;
}

void network_destroy(struct network *net) { parameters_destroy(&net->parameters); }

size_t workspace_bytes(const struct network *net, bool training) { return net->workspace_bytes[training]; }

status workspace_create(struct workspace **out, const struct network *net, bool training, int lane_index) {
    struct workspace *ws = calloc(1, sizeof *ws);
    if (!ws) return status_new(STATUS_SYSTEM, "no memory for a workspace");
    ws->training = training;
    status s = new_layers(ws, net);
    if (!s) s = arena_create_for(&ws->arena, net->ops, workspace_bytes(net, training), "a lane's workspace");
    if (s) {
        workspace_destroy(ws);
        return s;
    }
    ws->lane.index = lane_index;
    workspace_lay_out(ws, net, &ws->arena);
    if (ws->rope_cosine)
        net->ops->rope_table(&ws->lane, ws->rope_cosine, ws->rope_sine, net->time,
                             (size_t)net->config.attention_rope_dims, net->config.attention_rope_base);
    *out = ws;
    return NULL;
}

void workspace_destroy(struct workspace *ws) {
    if (!ws) return;
    arena_destroy(&ws->arena);
    free(ws->layers[0]);
    free(ws);
}

struct lane *workspace_lane(struct workspace *ws) {
    return &ws->lane;
}

int network_lanes(const struct network *net, bool training, int most) {
    const size_t most_bytes = (size_t)4 << 30; /* any device has more, and one lane may take what it wants */
    if (net->ops->filling_tokens == 0) return net->ops->lane_count();
    size_t lanes = net->ops->filling_tokens / (net->max_sequences * net->time);
    size_t fitting = most_bytes / workspace_bytes(net, training);
    if (lanes > fitting) lanes = fitting;
    return lanes < 1 ? 1 : lanes > (size_t)most ? most : (int)lanes;
}

/* One tensor of network_effective or network_master_gradients. */
struct view_job {
    const struct network *net;
    enum weight_view view;
    const real *master, *effective;
    real *written;
};

static bool is_ternary(const struct network *net, const struct tensor *tensor) {
    return net->config.model_linear == LINEAR_TERNARY && tensor->linear;
}

/* Ternary values stay what they are under fake quantisation, so ternary layers skip it. */
static void effective_piece(void *context, int piece, struct lane *lane) {
    const struct view_job *job = context;
    const struct config *config = &job->net->config;
    const struct tensor *tensor = &job->net->parameters.tensors[piece];
    const real *w = job->master + tensor->offset;
    real *out = job->written + tensor->offset;
    if (is_ternary(job->net, tensor))
        job->net->ops->ternarize(lane, out, w, tensor->count);
    else if (job->view == VIEW_QAT && tensor->linear && tensor->count > (size_t)config->train_quantise_above)
        job->net->ops->fake_quantize_rows(lane, out, w, tensor->shape[0], tensor->shape[1],
                                          (1 << (config->train_qat_bits - 1)) - 1,
                                          config->train_qat_scale_floor == FLOOR_PUBLISHED);
    else
        job->net->ops->copy(lane, out, w, tensor->count * sizeof *out);
}

size_t network_view_scratch(const struct network *net) {
    size_t bytes = 0;
    for (int i = 0; i < net->parameters.count; i++) {
        const struct tensor *t = &net->parameters.tensors[i];
        bytes = larger(bytes, net->ops->tensor_scratch(t->count));
        bytes = larger(bytes, net->ops->rows_scratch(t->shape[0], t->shape[1]));
    }
    return bytes;
}

void network_effective(const struct network *net, struct lane *lanes, int lane_count, real *effective,
                       const real *master, enum weight_view view) {
    struct view_job job = {.net = net, .view = view, .master = master, .written = effective};
    net->ops->for_each(lanes, lane_count, net->parameters.count, effective_piece, &job);
    network_round(net, lanes, effective);
}

size_t network_weight_reals(const struct network *net) {
    size_t total = net->parameters.total;
    return total + (total * net->ops->act_bytes + sizeof(real) - 1) / sizeof(real);
}

static act *acts_behind(const struct network *net, const real *effective) {
    return (act *)(effective + net->parameters.total);
}

/* The projections that end a branch of a block, and the scale of the branch. */
static const struct branch_end {
    enum tensor_role projection, scale;
} branch_ends[] = {{ROLE_MAMBA_OUT_PROJ, ROLE_MIXER_SCALE},
                   {ROLE_ATTN_PROJ, ROLE_MIXER_SCALE},
                   {ROLE_MLP_PROJ, ROLE_MLP_SCALE},
                   {ROLE_MLP_REPEAT_PROJ, ROLE_MLP_SCALE}};
enum { BRANCH_ENDS = sizeof branch_ends / sizeof *branch_ends };

void network_round(const struct network *net, struct lane *lane, real *effective) {
    act *acts = acts_behind(net, effective);
    net->ops->round_to_acts(lane, acts, effective, net->parameters.total);
    for (int layer = 0; layer < (int)net->config.model_layers; layer++)
        for (int i = 0; i < BRANCH_ENDS; i++) {
            const struct tensor *w = parameters_get(&net->parameters, layer, branch_ends[i].projection);
            if (w)
                net->ops->scale_rows(lane, act_at(net->ops, acts, w->offset), effective + w->offset,
                                     effective + offset_of(net, layer, branch_ends[i].scale), w->shape[0], w->shape[1]);
        }
}

const act *network_weight_acts(const struct network *net, const real *effective, const struct tensor *tensor) {
    return act_at(net->ops, acts_behind(net, effective), tensor->offset);
}

/* From the gradients of diag(scale) w to those of w and of the scale, which two projections of a layer may share. */
static void part_gradients(void *context, int layer, struct lane *lane) {
    const struct view_job *job = context;
    const struct network *net = job->net;
    for (int i = 0; i < BRANCH_ENDS; i++) {
        const struct tensor *w = parameters_get(&net->parameters, layer, branch_ends[i].projection);
        if (!w) continue;
        size_t scale = offset_of(net, layer, branch_ends[i].scale);
        net->ops->scale_rows_backward(lane, job->written + w->offset, job->written + scale, job->effective + w->offset,
                                      job->effective + scale, w->shape[0], w->shape[1]);
    }
}

static void gradient_piece(void *context, int piece, struct lane *lane) {
    const struct view_job *job = context;
    const struct tensor *tensor = &job->net->parameters.tensors[piece];
    if (is_ternary(job->net, tensor))
        job->net->ops->ternarize_backward(lane, job->written + tensor->offset, job->master + tensor->offset,
                                          job->effective + tensor->offset, tensor->count);
}

/* Fake quantisation is straight-through: its gradients are already the master weights'. */
void network_master_gradients(const struct network *net, struct lane *lanes, int lane_count, real *gradients,
                              const real *master, const real *effective) {
    struct view_job job = {.net = net, .master = master, .effective = effective, .written = gradients};
    net->ops->for_each(lanes, lane_count, (int)net->config.model_layers, part_gradients, &job);
    if (net->config.model_linear == LINEAR_TERNARY)
        net->ops->for_each(lanes, lane_count, net->parameters.count, gradient_piece, &job);
}
