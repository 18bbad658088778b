/* For tests only: small matrices as text, and the error that each gives. Include after cmocka.h. */
#ifndef REFPARITY_MATRIX_MATRIX_TEST_UTIL_H
#define REFPARITY_MATRIX_MATRIX_TEST_UTIL_H

#include <stdio.h>
#include <string.h>

#include "refparity/matrix.h"

/* A matrix of four lines: its engine is on line 2, its entry on line 3. */
#define ENGINE "\"argv\":[\"e\",\"{dump}\",\"{tokens_file}\"],\"layout\":\"npy\""
#define ENTRY \
    "\"name\":\"a\",\"hf_model\":\"o/m\",\"n_layers\":4,\"engine\":\"e\",\"prompts\":[\"Hello\"]"
#define MATRIX(engine, entry) "{\"engines\":{\n\"e\":{" engine "}},\"tests\":[\n{" entry "}\n]}"
/* The same with something added. */
#define WITH_ENGINE(more) MATRIX(ENGINE "," more, ENTRY)
#define WITH_ENTRY(more) MATRIX(ENGINE, ENTRY "," more)
/* Columns at which what was added begins: the length of what stands before it, and one. */
#define ENGINE_MORE ((int)sizeof("\"e\":{" ENGINE ","))
#define ENTRY_MORE ((int)sizeof("{" ENTRY ","))

static inline struct rp_matrix *parse(const char *text)
{
    struct rp_matrix *matrix = NULL;
    struct rp_error err = {0};
    enum rp_status status = rp_matrix_parse(text, strlen(text), "no/folder/m.json", &matrix, &err);
    assert_string_equal(err.message, "");
    assert_int_equal(status, RP_OK);
    return matrix;
}

static inline void expect_error(const char *text, enum rp_status code, int line, int column,
                                const char *message)
{
    struct rp_matrix *matrix = NULL;
    struct rp_error err = {0};
    char where[64];
    snprintf(where, sizeof where, "no/folder/m.json:%d:%d", line, column);
    enum rp_status status = rp_matrix_parse(text, strlen(text), "no/folder/m.json", &matrix, &err);
    assert_string_equal(err.message, message);
    assert_string_equal(err.where, where);
    assert_int_equal(status, code);
    assert_int_equal(err.code, code);
    assert_null(matrix);
}

#endif
