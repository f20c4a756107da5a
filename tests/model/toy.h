/* toy: a tiny config and a made-up text with structure, so that training is tested without files and in milliseconds.
 */
#pragma once
#include "model/trainer.h"

enum { TOY_VOCAB = 64, TOY_TOKENS = 20000 };

/* Nats per token of the text's unigram model, about; the text itself has less than a fifth of it. */
#define TOY_UNIGRAM 4.0

/* 3 layers of width 32, attention in the middle, T 16, 16 windows a step; then "key=value key=value". */
struct config toy_config(const char *settings);

/* Each token follows from the one before, but for one in twenty, which is random. Borrowed, lives forever. */
const struct dataset *toy_dataset(void);

/* The same with a text to score, `windows` of 16 tokens and six more, each token a byte. */
struct dataset toy_scored(size_t windows);

/* The CPU backend with so many lanes. */
const struct backend *toy_backend(int lanes);

/* Fails the test with the message when s is a failure. */
void assert_good(status s);

/* Fails the test unless s is a failure of that kind whose one line holds the words; frees it. */
void assert_failure(status s, enum status_kind kind, const char *words);

/* A folder of its own under /tmp, and a path in it (a static buffer). */
int toy_folder_make(void **state);
int toy_folder_remove(void **state);
const char *toy_path(const char *name);
