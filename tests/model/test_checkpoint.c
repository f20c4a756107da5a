/* checkpoint tests: resuming gives the same bits; what is damaged or foreign is refused; a kill loses nothing. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "model/files.h"
#include "model/trainer_state.h"
#include "tests/model/toy.h"

static const char KEY[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
static const char BUSY[] =
    "recurrence.layers=0 recurrence.start=0.4 train.steps=8 train.warmdown=4 train.qat_below=0.6";

static struct trainer *new_trainer(const char *settings) {
    struct trainer *trainer;
    struct config config = toy_config(settings);
    assert_good(trainer_create(&trainer, &config, toy_backend(1), toy_dataset(), 42));
    return trainer;
}

static void run(struct trainer *trainer, int64_t until) {
    struct step_record record;
    while (trainer_steps_done(trainer) < until) assert_good(trainer_step(trainer, &record));
}

struct hashes {
    char weights[65], averaged[65], trace[65];
};

static struct hashes hashes_of(const struct trainer *trainer) {
    struct hashes hashes;
    parameters_sha256(&trainer->net.parameters, trainer_weights(trainer), hashes.weights);
    parameters_sha256(&trainer->net.parameters, trainer_averaged(trainer), hashes.averaged);
    trainer_trace_sha256(trainer, hashes.trace);
    return hashes;
}

static void resuming_at_any_step_gives_the_same_bits(void **state) {
    (void)state;
    struct trainer *whole = new_trainer(BUSY);
    run(whole, 8);
    struct hashes expected = hashes_of(whole);
    trainer_destroy(whole);
    for (int stop = 0; stop <= 8; stop++) {
        struct trainer *first = new_trainer(BUSY), *second = new_trainer(BUSY);
        run(first, stop);
        assert_good(trainer_save(first, toy_path("checkpoint"), KEY));
        run(second, 3); /* whatever it did before is forgotten */
        assert_good(trainer_load(second, toy_path("checkpoint"), KEY));
        assert_int_equal(trainer_steps_done(second), stop);
        run(second, 8);
        struct hashes resumed = hashes_of(second);
        assert_memory_equal(&resumed, &expected, sizeof expected);
        trainer_destroy(first);
        trainer_destroy(second);
    }
}

static void a_resumed_swa_gives_the_same_mean(void **state) {
    (void)state;
    static const char SWA[] = "train.ema=0 train.steps=100 train.warmdown=300 train.batch_tokens=128 model.layers=1 "
                              "attention.layers= model.dim=16";
    struct trainer *first = new_trainer(SWA), *second = new_trainer(SWA);
    run(first, 70);
    assert_good(trainer_save(first, toy_path("checkpoint"), KEY));
    assert_good(trainer_load(second, toy_path("checkpoint"), KEY));
    run(first, 100);
    run(second, 100);
    struct hashes a = hashes_of(first), b = hashes_of(second);
    assert_memory_equal(&a, &b, sizeof a);
    trainer_destroy(first);
    trainer_destroy(second);
}

static void write_bytes(const char *path, const unsigned char *data, size_t size) {
    assert_good(file_write_atomic(path, data, size));
}

/* Every 97th byte flipped: refused, and the trainer stays as it was. */
static void a_damaged_checkpoint_is_refused_and_changes_nothing(void **state) {
    (void)state;
    struct trainer *saved = new_trainer("model.layers=1 attention.layers= model.dim=8 mamba.state=4"), *trainer;
    trainer = new_trainer("model.layers=1 attention.layers= model.dim=8 mamba.state=4");
    unsigned char *data;
    size_t size;
    run(saved, 4);
    run(trainer, 2);
    assert_good(trainer_save(saved, toy_path("checkpoint"), KEY));
    assert_good(file_read(toy_path("checkpoint"), &data, &size));
    struct hashes before = hashes_of(trainer);
    for (size_t i = 0; i < size; i += i < 256 ? 1 : 997) {
        data[i] ^= 0x40;
        write_bytes(toy_path("damaged"), data, size);
        data[i] ^= 0x40;
        status s = trainer_load(trainer, toy_path("damaged"), KEY);
        if (!s) fail_msg("accepted with byte %zu flipped", i);
        assert_failure(s, STATUS_DATA, "damaged: not a checkpoint of this training");
    }
    struct hashes after = hashes_of(trainer);
    assert_memory_equal(&before, &after, sizeof before);
    assert_int_equal(trainer_steps_done(trainer), 2);
    free(data);
    trainer_destroy(saved);
    trainer_destroy(trainer);
}

static void a_truncated_checkpoint_is_refused(void **state) {
    (void)state;
    struct trainer *trainer = new_trainer("");
    unsigned char *data;
    size_t size;
    run(trainer, 1);
    assert_good(trainer_save(trainer, toy_path("checkpoint"), KEY));
    assert_good(file_read(toy_path("checkpoint"), &data, &size));
    for (size_t length = 0; length < size; length += 1 + size / 11) {
        write_bytes(toy_path("short"), data, length);
        assert_failure(trainer_load(trainer, toy_path("short"), KEY), STATUS_DATA, "short");
    }
    free(data);
    trainer_destroy(trainer);
}

static void a_checkpoint_of_another_key_or_model_is_refused(void **state) {
    (void)state;
    struct trainer *trainer = new_trainer(""), *other = new_trainer("model.dim=64"),
                   *plain = new_trainer("train.ema=0 train.swa=off");
    run(trainer, 1);
    assert_good(trainer_save(trainer, toy_path("checkpoint"), KEY));
    assert_failure(trainer_load(trainer, toy_path("checkpoint"), "other"), STATUS_DATA, "another key");
    assert_failure(trainer_load(other, toy_path("checkpoint"), KEY), STATUS_DATA, "another size");
    assert_failure(trainer_load(plain, toy_path("checkpoint"), KEY), STATUS_DATA, "another size");
    assert_failure(trainer_load(trainer, toy_path("nothing"), KEY), STATUS_SYSTEM, "nothing");
    trainer_destroy(trainer);
    trainer_destroy(other);
    trainer_destroy(plain);
}

static ino_t file_number(const char *path) {
    struct stat file;
    assert_int_equal(stat(path, &file), 0);
    return file.st_ino;
}

/* The child saves step after step until it is killed at some moment, the last one after it has saved, however long the
 * disk takes; what lies there always loads. */
static void a_kill_during_saves_leaves_a_loadable_file(void **state) {
    (void)state;
    struct trainer *trainer = new_trainer("train.steps=100000");
    run(trainer, 1);
    assert_good(trainer_save(trainer, toy_path("checkpoint"), KEY));
    const ino_t first = file_number(toy_path("checkpoint"));
    for (int round = 0; round < 8; round++) {
        pid_t child = fork();
        if (child == 0)
            for (;;) {
                trainer->steps_done = trainer->steps_done % 1000 + 1;
                status_free(trainer_save(trainer, toy_path("checkpoint"), KEY));
            }
        usleep((useconds_t)(3000 + 7000 * round));
        while (round == 7 && file_number(toy_path("checkpoint")) == first) usleep(1000);
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        assert_good(trainer_load(trainer, toy_path("checkpoint"), KEY));
    }
    assert_true(trainer_steps_done(trainer) > 1);
    trainer_destroy(trainer);
}

static void saving_where_nothing_can_be_written_is_an_error_and_leaves_nothing(void **state) {
    (void)state;
    struct trainer *trainer = new_trainer("");
    assert_failure(trainer_save(trainer, toy_path("missing/checkpoint"), KEY), STATUS_SYSTEM, "missing/checkpoint");
    trainer_destroy(trainer);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resuming_at_any_step_gives_the_same_bits),
        cmocka_unit_test(a_resumed_swa_gives_the_same_mean),
        cmocka_unit_test(a_damaged_checkpoint_is_refused_and_changes_nothing),
        cmocka_unit_test(a_truncated_checkpoint_is_refused),
        cmocka_unit_test(a_checkpoint_of_another_key_or_model_is_refused),
        cmocka_unit_test(a_kill_during_saves_leaves_a_loadable_file),
        cmocka_unit_test(saving_where_nothing_can_be_written_is_an_error_and_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, toy_folder_make, toy_folder_remove);
}
