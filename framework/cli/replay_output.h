/* What refparity replay prints: the slots that do not pass as they come, then those that pass, or how many
 * they are, then what was counted and what was not shown; or JSON. Not for running anything. */
#ifndef REFPARITY_CLI_REPLAY_OUTPUT_H
#define REFPARITY_CLI_REPLAY_OUTPUT_H

#include <cjson/cJSON.h>

#include "base/terminal.h"
#include "explain/other_weights.h"
#include "refparity/explain.h"
#include "refparity/replay.h"

struct rp_replay_counts {
    size_t n_slots, n_failing, n_skipped, n_errors, n_carried, n_partial, n_missing;
    bool is_broken_off;         /* the engine did not finish its dump */
    bool has_no_tokens;         /* emb cannot be replayed without */
    bool has_no_dump_json;      /* nothing says that the engine did finish it */
    char positions[256];        /* what the dump lacks of them; "" when it lacks none */
    char missing[256];          /* required slots that the dump has not, the first of them */
    size_t n_unknown;           /* names in the dump that are no slot's */
    char unknown[256];          /* the first of them */
    size_t n_prediction_layers; /* of the model's file, which are not computed */
    char first_failing[RP_SLOT_NAME_SIZE];
    /* Explanations, and those of other numerics than declared; the first of them. */
    size_t n_explained, n_numerics;
    char numerics[400];
    char other_weights
        [512]; /* that the dump was made with other weights; "": nothing speaks for it */
    /* The slot that passes at the widest limit where roundings may tip: "in h3 an error below …"; "": none. */
    double coarsest_limit;
    char coarsest[600];
};

/* Which slots are shown: all, in forward order, and with each one's message. */
struct rp_replay_shown {
    bool all, messages;
};

struct rp_replay_output {
    const struct rp_terminal *terminal;
    struct rp_replay_shown shown;
    struct rp_replay_counts counts;
    cJSON *root, *slots, *explanations; /* NULL without JSON */
    cJSON *layers;                      /* for the HTML page; NULL without one */
    const char *html;                   /* its path */
    bool has_heading;
    /* The lines of slots that pass, as long as these are few; worst: of its limit, the nearest to it. */
    struct rp_terminal passing;
    char *passing_text;
    size_t passing_length, n_passing;
    double worst;
    char worst_slot[RP_SLOT_NAME_SIZE];
};

/* html: the path of an HTML page, NULL: none. terminal outlives the output. */
void rp_replay_output_open(struct rp_replay_output *output, const struct rp_terminal *terminal,
                           bool is_json, struct rp_replay_shown shown, const char *html);
/* What of the dump was read otherwise than it stands there. */
void rp_replay_output_notes(struct rp_replay_output *output, const struct rp_tensor_set *dump);
void rp_replay_output_slot(struct rp_replay_output *output, const struct rp_replay_slot *slot);
/* Of the slot before. */
void rp_replay_output_explanation(struct rp_replay_output *output,
                                  const struct rp_replay_slot *slot,
                                  const struct rp_explanation *explanation);
/* A whole layer, for the HTML page; explanations [layer->n_slots]. RP_ERR_MEMORY. */
enum rp_status rp_replay_output_layer(struct rp_replay_output *output,
                                      const struct rp_replay_layer *layer,
                                      const struct rp_explanation *explanations,
                                      struct rp_error *err);
/* The end of the output; the exit code: what was not shown is no pass. */
int rp_replay_output_end(struct rp_replay_output *output, const char *model, const char *dump,
                         const struct rp_numerics *numerics);
void rp_replay_output_close(struct rp_replay_output *output);

#endif
