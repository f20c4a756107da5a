/* test_schedule: virtual layers, passes and the pairing of skips. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "model/schedule.h"
#include "small_model.h"

/* "0 1 2+1.0 3": a layer that adds the output of virtual layer 1 by row 0 is written 2+1.0. */
static const char *written(const char *settings, bool repeats_on) {
    static char text[4096];
    struct config config = small_config(settings);
    struct schedule schedule;
    schedule_build(&schedule, &config, repeats_on);
    size_t used = 0;
    for (int i = 0; i < schedule.count; i++) {
        const struct virtual_layer *at = &schedule.layers[i];
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%d", i ? " " : "", at->physical);
        if (at->skip_source >= 0)
            used += (size_t)snprintf(text + used, sizeof text - used, "+%d.%d", at->skip_source, at->skip_row);
    }
    return text;
}

static void repeated_layers_follow_the_last_of_them(void **state) {
    (void)state;
    const char *settings = "model.layers=8 model.skips=none recurrence.layers=3,4 recurrence.repeats=2";
    assert_string_equal(written(settings, true), "0 1 2 3 4 3 4 3 4 5 6 7");
    assert_string_equal(written(settings, false), "0 1 2 3 4 5 6 7");
    assert_string_equal(written("model.layers=8 model.skips=none recurrence.layers=5,2", true), "0 1 2 3 4 5 2 5 6 7");
    assert_string_equal(written("model.skips=none recurrence.layers=3", true), "0 1 2 3 3");
}

static void passes_are_counted_per_physical_layer(void **state) {
    (void)state;
    struct config config = small_config("model.layers=8 recurrence.layers=3,4 recurrence.repeats=2");
    struct schedule schedule;
    schedule_build(&schedule, &config, true);
    const int passes[] = {0, 0, 0, 0, 0, 1, 1, 2, 2, 0, 0, 0};
    assert_int_equal(schedule.count, 12);
    for (int i = 0; i < 12; i++) assert_int_equal(schedule.layers[i].pass, passes[i]);
}

static void published_skips_stop_half_way(void **state) {
    (void)state;
    assert_string_equal(written("model.layers=8", false), "0 1 2 3 4+3.0 5+2.1 6 7");
    assert_string_equal(written("model.layers=6", false), "0 1 2 3+2.0 4+1.1 5");
    assert_string_equal(written("model.layers=5", false), "0 1 2+1.0 3 4");
}

static void all_skips_are_popped_last_in_first_out(void **state) {
    (void)state;
    assert_string_equal(written("model.layers=8 model.skips=all", false), "0 1 2 3 4+3.0 5+2.1 6+1.2 7+0.3");
    assert_string_equal(written("model.layers=5 model.skips=all", false), "0 1 2+1.0 3+0.1 4");
}

static void skips_beyond_the_rows_use_the_last_row(void **state) {
    (void)state;
    assert_string_equal(written("model.skips=all recurrence.layers=1,2 recurrence.repeats=2", true),
                        "0 1 2 1 2+3.0 1+2.1 2+1.1 3+0.1");
}

static void a_model_without_rows_or_with_skips_none_has_no_skips(void **state) {
    (void)state;
    assert_string_equal(written("model.skips=none", false), "0 1 2 3");
    assert_string_equal(written("model.layers=1 attention.layers= recurrence.layers=0", true), "0 0");
    struct config config = small_config("model.skips=none");
    assert_int_equal(schedule_skip_rows(&config), 0);
    config = small_config("model.layers=7 attention.layers=");
    assert_int_equal(schedule_skip_rows(&config), 3);
}

static void an_output_counts_as_popped_only_when_a_later_layer_adds_it(void **state) {
    (void)state;
    struct config config = small_config("model.layers=8");
    struct schedule schedule;
    schedule_build(&schedule, &config, false);
    const bool popped[] = {false, false, true, true, false, false, false, false};
    for (int i = 0; i < 8; i++) assert_int_equal(schedule_is_popped(&schedule, i), popped[i]);
}

static void the_longest_schedule_fits(void **state) {
    (void)state;
    struct config config = small_config("model.layers=256 recurrence.repeats=16");
    config.recurrence_layers.count = LIST_CAPACITY;
    for (int i = 0; i < LIST_CAPACITY; i++) config.recurrence_layers.values[i] = 192 + i;
    struct schedule schedule;
    schedule_build(&schedule, &config, true);
    assert_int_equal(schedule.count, SCHEDULE_CAPACITY);
}

static void recurrence_starts_at_its_fraction_of_the_steps(void **state) {
    (void)state;
    struct config config = small_config("train.steps=1000 recurrence.start=0.35");
    assert_int_equal(schedule_recurrence_step(&config), 350);
    config = small_config("train.steps=100 recurrence.start=0.07");
    assert_int_equal(schedule_recurrence_step(&config), 7);
    config = small_config("train.steps=10 recurrence.start=0.35");
    assert_int_equal(schedule_recurrence_step(&config), 4);
    config = small_config("train.steps=10 recurrence.start=0");
    assert_int_equal(schedule_recurrence_step(&config), 0);
    config = small_config("train.steps=10 recurrence.start=1");
    assert_int_equal(schedule_recurrence_step(&config), 10);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(repeated_layers_follow_the_last_of_them),
        cmocka_unit_test(passes_are_counted_per_physical_layer),
        cmocka_unit_test(published_skips_stop_half_way),
        cmocka_unit_test(all_skips_are_popped_last_in_first_out),
        cmocka_unit_test(skips_beyond_the_rows_use_the_last_row),
        cmocka_unit_test(a_model_without_rows_or_with_skips_none_has_no_skips),
        cmocka_unit_test(an_output_counts_as_popped_only_when_a_later_layer_adds_it),
        cmocka_unit_test(the_longest_schedule_fits),
        cmocka_unit_test(recurrence_starts_at_its_fraction_of_the_steps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
