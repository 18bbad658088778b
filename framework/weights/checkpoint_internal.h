/* What the checkpoint*.c files share. Nothing outside this folder includes it. */
#ifndef REFPARITY_WEIGHTS_CHECKPOINT_INTERNAL_H
#define REFPARITY_WEIGHTS_CHECKPOINT_INTERNAL_H

#include "weights/checkpoint.h"

struct rp_checkpoint {
    char *path;
    struct rp_json *config, *generation_config; /* the latter may be NULL */
    const cJSON *text_config;                   /* may be NULL */
    size_t n_shards;
    struct rp_safetensors **shards; /* [n_shards] */
    size_t n_tensors;
    struct rp_checkpoint_tensor *tensors; /* [n_tensors], sorted by name */
    struct rp_safetensor *sketched;       /* owned: what tensors of a sketch point to; else NULL */
};

/* path is copied; NULL: no memory. */
struct rp_checkpoint *rp_checkpoint_new(const char *path);

/* Of bsearch: a name, and a struct rp_checkpoint_tensor. */
int rp_checkpoint_compare_name(const void *name, const void *tensor);

/* Sets text_config. */
void rp_checkpoint_find_text_config(struct rp_checkpoint *checkpoint);

#endif
