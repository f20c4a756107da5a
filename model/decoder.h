/* decoder: the recurrent form of the model, one token at a time: O(1) work and memory per token in Mamba layers
 * (state, phase, previous B and x), a KV cache in attention layers. Agrees with network_forward. */
#pragma once
#include "model/network.h"

struct decoder;

/* sequences decode side by side on one lane; capacity is the most tokens each may reach. */
size_t decoder_bytes(const struct network *net, size_t sequences, size_t capacity);
status decoder_create(struct decoder **out, const struct network *net, size_t sequences, size_t capacity,
                      int lane_index);
void decoder_destroy(struct decoder *decoder);
void decoder_reset(struct decoder *decoder); /* to position 0, where a new decoder is too */
struct lane *decoder_lane(struct decoder *decoder);

/* Feeds one token per sequence, at most `capacity` times; logits (sequences, V) after the softcap. ids and logits are
 * the host's, weights the backend's; these and repeats_on stay what they were at position 0. */
void decoder_step(struct decoder *decoder, const real *weights, bool repeats_on, const int32_t *ids, real *logits);

/* The same of tokens (rows, sequences) in the backend's memory, at position t of row t mod rows, and without the
 * logits. It only calls ops, from position 1 on with the same arguments each time, so that a device may record it. */
void decoder_read(struct decoder *decoder, const real *weights, bool repeats_on, const int32_t *tokens, size_t rows);

/* Once after decoder_read: draws the next row of tokens from the logits, which are used up, at the temperature, by
 * uniforms (rows, sequences), both in the backend's memory. It only calls ops, as above. */
void decoder_draw(struct decoder *decoder, int32_t *tokens, const double *uniforms, size_t rows, double temperature);

/* (done, total) tokens, every few positions; returning true stops with STATUS_INTERRUPTED. */
typedef bool (*sample_progress)(void *context, size_t done, size_t total);

/* Draws tokens (count, time): the first uniform over the vocabulary, then sampled at the temperature. Sequences run
 * in fixed groups on any lanes; draws come from streams named by sequence ("calibration sequence 0"). weights are
 * effective ones, in the backend's memory; tokens are the host's. progress may be NULL. */
status decoder_sample(const struct network *net, const real *weights, bool repeats_on, size_t count, size_t time,
                      double temperature, uint64_t seed, sample_progress progress, void *context, int32_t *tokens);

/* Bytes of the backend's memory that decoder_sample takes beside the tokens. */
size_t decoder_sample_memory(const struct network *net, size_t count, size_t time);
