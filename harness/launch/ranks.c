/* ranks: orders from the first rank to the others, and what each does on them; see ranks.h. */
#include "harness/launch/ranks.h"

#include <signal.h>

#include "model/trainer.h"

struct order {
    int32_t kind, stage;
};

static bool alone(const struct comm *comm) { return !comm || comm->size == 1; }

status ranks_order(struct comm *comm, enum order_kind kind, int stage) {
    if (alone(comm)) return NULL;
    struct order order = {(int32_t)kind, (int32_t)stage};
    return comm->broadcast_host(comm, &order, sizeof order, 0);
}

status ranks_agree(struct comm *comm, status s) {
    if (alone(comm)) return s;
    double failed = s != NULL;
    status told = comm_add_tree_host(comm, &failed);
    if (s) {
        status_free(told);
        return s;
    }
    if (told || failed == 0) return told;
    return status_new(STATUS_SYSTEM, "another of the %d ranks failed; its message stands above", comm->size);
}

struct follower {
    struct comm *comm;
    const struct plan *plan;
    struct trainer *trainer;
};

static status create(struct follower *f, const struct plan_stage *stage) {
    const struct config *config = &f->plan->suite->variants[stage->variant].config;
    trainer_destroy(f->trainer);
    f->trainer = NULL;
    return ranks_agree(f->comm,
                       trainer_create_on(&f->trainer, f->comm, config, f->plan->ops,
                                         datasets_find(f->plan->datasets, config->data_name), (uint64_t)stage->seed));
}

/* What every rank sees alike, rank 0 deals with. */
static status shared_failure(status s) {
    if (!s || (status_kind(s) != STATUS_DIVERGED && status_kind(s) != STATUS_DATA)) return s;
    status_free(s);
    return NULL;
}

static status obey(struct follower *f, const struct order *order) {
    const struct plan_stage *stage = &f->plan->stages[order->stage];
    struct step_record record;
    switch ((enum order_kind)order->kind) {
    case ORDER_CREATE:
        return create(f, stage);
    case ORDER_LOAD:
        return shared_failure(trainer_load(f->trainer, "rank 0's checkpoint", stage->key));
    case ORDER_STEP:
        return shared_failure(trainer_step(f->trainer, &record));
    case ORDER_SAVE:
        return trainer_save(f->trainer, "rank 0's checkpoint", stage->key);
    case ORDER_DESTROY:
        trainer_destroy(f->trainer);
        f->trainer = NULL;
    case ORDER_END:
        break;
    }
    return NULL;
}

status ranks_follow(struct comm *comm, const struct plan *plan) {
    struct follower f = {.comm = comm, .plan = plan};
    struct order order = {ORDER_DESTROY, 0};
    status s = NULL;
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    while (!s && order.kind != ORDER_END) {
        s = comm->broadcast_host(comm, &order, sizeof order, 0);
        if (!s) s = obey(&f, &order);
    }
    trainer_destroy(f.trainer);
    return s;
}
