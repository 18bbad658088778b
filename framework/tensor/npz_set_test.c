/* A tensor set in an .npz: fixtures, other recorders' files, and damaged ones. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/file.h"
#include "refparity/tensor_set.h"
#include "tensor/npz_writer_test_util.h"

#define MANIFEST "{\"format\": \"refparity-fixture\", \"version\": 1, \"n_layers\": 1}"

static char folder[256], path[512];

static int make_folder(void **state)
{
    (void)state;
    rp_test_make_folder(folder);
    return rp_path_join(path, sizeof path, folder, "x.npz", NULL) == RP_OK ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    return rp_remove_tree(folder, NULL) == RP_OK ? 0 : -1;
}

static void add_npy(struct rp_test_zip *zip, const char *name, const char *descr, const char *shape,
                    const void *data, size_t n)
{
    struct rp_test_bytes npy = {NULL, 0, 0};
    rp_test_npy(&npy, descr, shape, data, n);
    rp_test_zip_add(zip, name, npy.data, npy.n, RP_TEST_ZIP64);
    rp_test_free(&npy);
}

static void add_rows(struct rp_test_zip *zip, const char *name, size_t n_rows, size_t dim,
                     float first, unsigned how)
{
    struct rp_test_bytes npy = {NULL, 0, 0};
    rp_test_npy_rows(&npy, n_rows, dim, first);
    rp_test_zip_add(zip, name, npy.data, npy.n, how);
    rp_test_free(&npy);
}

static void add_text(struct rp_test_zip *zip, const char *text)
{
    char shape[32];
    snprintf(shape, sizeof shape, "(%zu,)", strlen(text));
    add_npy(zip, "manifest.npy", "|u1", shape, text, strlen(text));
}

static void write_npz(struct rp_test_zip *zip)
{
    struct rp_test_bytes bytes = {NULL, 0, 0};
    rp_test_zip_finish(zip, 0, &bytes);
    rp_test_write_file(folder, "x.npz", bytes.data, bytes.n);
    rp_test_free(&bytes);
}

static struct rp_tensor_set *open_set(void)
{
    struct rp_tensor_set *set;
    struct rp_error err;
    char text[2200];
    if (rp_tensor_set_open(path, RP_LAYOUT_AUTO, 0, &set, &err) != RP_OK)
        fail_msg("%s", rp_error_text(&err, text, sizeof text));
    assert_int_equal(rp_tensor_set_layout(set), RP_LAYOUT_NPZ);
    return set;
}

/* The whole set fails; where is what err.where has behind the path. */
static void assert_refused(enum rp_status code, const char *where, const char *message)
{
    struct rp_tensor_set *set;
    struct rp_error err;
    assert_int_equal(rp_tensor_set_open(path, RP_LAYOUT_AUTO, 0, &set, &err), code);
    assert_string_equal(err.message, message);
    assert_memory_equal(err.where, path, strlen(path));
    assert_string_equal(err.where + strlen(path), where);
    assert_null(set);
}

/* Only this slot fails. */
static void assert_slot_refused(struct rp_tensor_set *set, const char *slot, enum rp_status code,
                                const char *message)
{
    struct rp_tensor tensor;
    struct rp_error err;
    const struct rp_slot_info *info = rp_tensor_set_find(set, slot);
    assert_non_null(info);
    assert_int_equal(info->error.code, code);
    assert_string_equal(info->error.message, message);
    assert_int_equal(rp_tensor_load(set, slot, &tensor, &err), code);
    assert_string_equal(err.message, message);
    assert_null(tensor.data);
}

static void assert_values(struct rp_tensor_set *set, const char *slot, size_t n, size_t dim,
                          float first)
{
    struct rp_tensor tensor;
    assert_int_equal(rp_tensor_load(set, slot, &tensor, NULL), RP_OK);
    assert_int_equal(tensor.n_positions, n);
    assert_int_equal(tensor.dim, dim);
    for (size_t i = 0; i < n * dim; i++) {
        float value;
        memcpy(&value, (const char *)tensor.data + 4 * i, sizeof value);
        assert_true(value == first + (float)i);
    }
    rp_tensor_release(&tensor);
    assert_null(tensor.data);
}

/* tokens, positions 2 and 5, a manifest, emb and logits stored, h0 deflated. */
static void write_fixture(void)
{
    static const int64_t tokens[] = {7, 8, 9, 10, 11, 12}, positions[] = {2, 5};
    struct rp_test_zip zip = {.n_members = 0};
    add_npy(&zip, "tokens.npy", "<i8", "(6,)", tokens, sizeof tokens);
    add_npy(&zip, "positions.npy", "<i8", "(2,)", positions, sizeof positions);
    add_rows(&zip, "logits.npy", 2, 5, 100, 0);
    add_rows(&zip, "h0.npy", 2, 3, 10, RP_TEST_DEFLATED);
    add_rows(&zip, "odd.npy", 2, 3, 10, 0);
    add_rows(&zip, "emb.npy", 2, 3, 1, RP_TEST_ZIP64);
    add_text(&zip, MANIFEST);
    rp_test_zip_add(&zip, "readme.txt", "x", 1, 0);
    write_npz(&zip);
}

static void a_fixture_is_read(void **state)
{
    static const char *const order[] = {"emb", "h0", "logits", "odd"};
    const int64_t *ids;
    size_t n;
    (void)state;
    write_fixture();
    struct rp_tensor_set *set = open_set();
    assert_string_equal(rp_tensor_set_path(set), path);
    assert_int_equal(rp_tensor_set_n_slots(set), 4);
    for (size_t i = 0; i < 4; i++) {
        const struct rp_slot_info *info = rp_tensor_set_slot(set, i);
        assert_string_equal(info->name, order[i]);
        assert_int_equal(info->error.code, RP_OK);
        assert_int_equal(info->n_positions, 2);
        assert_int_equal(info->positions[0], 2);
        assert_int_equal(info->positions[1], 5);
    }
    assert_null(rp_tensor_set_slot(set, 4));
    assert_null(rp_tensor_set_find(set, "tokens"));
    assert_values(set, "emb", 2, 3, 1);
    assert_values(set, "h0", 2, 3, 10);
    assert_values(set, "logits", 2, 5, 100);
    assert_int_equal(rp_tensor_set_tokens(set, &ids, &n, NULL), RP_OK);
    assert_int_equal(n, 6);
    assert_int_equal(ids[5], 12);
    const char *manifest = rp_tensor_set_manifest(set, &n);
    assert_int_equal(n, strlen(MANIFEST));
    assert_memory_equal(manifest, MANIFEST, n);
    assert_int_equal(rp_tensor_set_n_layers(set), 1);
    assert_int_equal(rp_tensor_set_n_layers_seen(set), 1);
    assert_true(rp_tensor_set_complete(set));
    rp_tensor_set_close(set);
}

static void a_plain_npz_has_positions_from_0(void **state)
{
    static const float values[] = {1, 2, 3, 4, 5, 6};
    struct rp_test_zip zip = {.n_members = 0};
    const int64_t *ids;
    size_t n;
    (void)state;
    add_npy(&zip, "emb.npy", "<f4", "(1, 2, 3)", values, sizeof values); /* a batch of one */
    add_rows(&zip, "h3.npy", 2, 3, 10, 0);
    write_npz(&zip);
    struct rp_tensor_set *set = open_set();
    assert_values(set, "emb", 2, 3, 1);
    assert_values(set, "h3", 2, 3, 10);
    assert_int_equal(rp_tensor_set_find(set, "emb")->positions[0], 0);
    assert_int_equal(rp_tensor_set_find(set, "h3")->positions[1], 1);
    assert_int_equal(rp_tensor_set_tokens(set, &ids, &n, NULL), RP_OK);
    assert_null(ids);
    assert_int_equal(n, 0);
    assert_null(rp_tensor_set_manifest(set, &n));
    assert_int_equal(n, 0);
    assert_int_equal(rp_tensor_set_n_layers(set), -1);
    assert_int_equal(rp_tensor_set_n_layers_seen(set), 4);
    rp_tensor_set_close(set);
}

static void a_vector_is_one_position(void **state)
{
    static const float values[] = {1, 2, 3};
    struct rp_test_zip zip = {.n_members = 0};
    (void)state;
    add_npy(&zip, "emb.npy", "<f4", "(3,)", values, sizeof values);
    write_npz(&zip);
    struct rp_tensor_set *set = open_set();
    assert_values(set, "emb", 1, 3, 1);
    rp_tensor_set_close(set);
}

static void rows_that_nothing_places_are_an_error_of_their_slot(void **state)
{
    struct rp_test_zip zip = {.n_members = 0};
    (void)state;
    add_rows(&zip, "emb.npy", 3, 2, 1, 0);
    add_rows(&zip, "h0.npy", 1, 2, 1, 0);
    add_rows(&zip, "h1.npy", 3, 2, 1, 0);
    add_rows(&zip, "logits.npy", 2, 2, 1, 0);
    write_npz(&zip);
    struct rp_tensor_set *set = open_set();
    assert_values(set, "emb", 3, 2, 1);
    assert_slot_refused(set, "logits", RP_ERR_MISMATCH,
                        "logits has 2 rows where other slots have 3, and nothing says at which "
                        "positions these are");
    assert_int_equal(rp_tensor_set_find(set, "logits")->n_positions, 0);
    assert_slot_refused(set, "h0", RP_ERR_MISMATCH,
                        "h0 has 1 rows where other slots have 3, and nothing says at which "
                        "positions these are");
    rp_tensor_set_close(set);
}

static void one_row_of_logits_is_the_last_position(void **state)
{
    static const int64_t positions[] = {2, 5, 9};
    struct rp_test_zip zip = {.n_members = 0};
    (void)state;
    add_npy(&zip, "positions.npy", "<i8", "(3,)", positions, sizeof positions);
    add_rows(&zip, "emb.npy", 3, 2, 1, 0);
    add_rows(&zip, "logits.npy", 1, 2, 1, 0);
    write_npz(&zip);
    struct rp_tensor_set *set = open_set();
    assert_int_equal(rp_tensor_set_find(set, "logits")->n_positions, 1);
    assert_int_equal(rp_tensor_set_find(set, "logits")->positions[0], 9);
    assert_string_equal(rp_tensor_set_note(set, 0),
                        "logits has one row: it is read as position 9, the last");
    rp_tensor_set_close(set);
}

static void wrong_slots_do_not_keep_the_others_from_being_read(void **state)
{
    static const int64_t positions[] = {0, 1};
    static const float values[] = {1, 2, 3, 4};
    struct rp_test_zip zip = {.n_members = 0};
    (void)state;
    add_npy(&zip, "positions.npy", "<i8", "(2,)", positions, sizeof positions);
    add_rows(&zip, "emb.npy", 2, 2, 1, 0);
    add_npy(&zip, "h0.npy", "|b1", "(2, 2)", values, 4);
    add_npy(&zip, "h1.npy", "<u2", "(2, 2)", values, 8);
    add_npy(&zip, "h2.npy", "|O", "(2, 2)", "\x80\x04\x95.", 4);
    add_npy(&zip, "h3.npy", "<f4", "(2, 2)", values, 12);
    add_rows(&zip, "h4.npy", 3, 2, 1, 0);
    add_npy(&zip, "h5.npy", "<f4", "(2, 2, 1)", values, sizeof values);
    add_npy(&zip, "h6.npy", "<f4", "(0, 2)", values, 0);
    rp_test_zip_add(&zip, "h7.npy", "not an npy", 10, 0);
    write_npz(&zip);
    struct rp_tensor_set *set = open_set();
    assert_values(set, "emb", 2, 2, 1);
    assert_slot_refused(set, "h0", RP_ERR_UNSUPPORTED,
                        "expected float32, float16, bfloat16 or float64, found '|b1'");
    assert_slot_refused(set, "h1", RP_ERR_UNSUPPORTED,
                        "expected float32, float16, bfloat16 or float64, found '<u2' (uint16; of "
                        "bfloat16's bits? then save it with ml_dtypes' bfloat16, or as float32)");
    assert_slot_refused(
        set, "h2", RP_ERR_UNSUPPORTED,
        "expected float32, float16, bfloat16 or float64, found '|O' (pickled Python "
        "objects, which are never loaded)");
    assert_slot_refused(set, "h3", RP_ERR_FORMAT,
                        "shape (2, 2) of '<f4' needs 16 bytes of data, found 12");
    assert_slot_refused(set, "h4", RP_ERR_MISMATCH,
                        "h4: expected a row for each of the 2 positions, found 3");
    assert_slot_refused(set, "h5", RP_ERR_UNSUPPORTED,
                        "expected shape (positions, dim), (dim,), (1, positions, dim) or "
                        "(positions, 1, dim), found (2, 2, 1)");
    assert_slot_refused(set, "h6", RP_ERR_MISSING, "there is nothing in it: shape (0, 2)");
    assert_slot_refused(set, "h7", RP_ERR_FORMAT,
                        "expected an npy header, found other bytes among the first 6");
    const struct rp_error *err = &rp_tensor_set_find(set, "h3")->error;
    assert_string_equal(err->where + strlen(path), ":h3.npy");
    assert_int_equal(err->offset, 128);
    rp_tensor_set_close(set);
}

static void a_slot_that_is_not_there_is_missing(void **state)
{
    struct rp_tensor tensor;
    struct rp_error err;
    (void)state;
    write_fixture();
    struct rp_tensor_set *set = open_set();
    assert_null(rp_tensor_set_find(set, "h1"));
    assert_int_equal(rp_tensor_load(set, "h1", &tensor, &err), RP_ERR_MISSING);
    assert_string_equal(err.message, "there is no slot h1");
    rp_tensor_set_close(set);
}

static void positions_that_do_not_ascend_are_refused(void **state)
{
    static const struct {
        int64_t positions[3];
        const char *message;
    } cases[] = {
        {{0, 2, 2},
         "positions: expected them to ascend from 0 or more, found 2 after 2 at index 2"},
        {{3, 1, 4},
         "positions: expected them to ascend from 0 or more, found 1 after 3 at index 1"},
        {{-1, 0, 1},
         "positions: expected them to ascend from 0 or more, found -1 after -1 at index 0"},
        {{0, 1, INT64_MAX},
         "positions: expected them to ascend from 0 or more, found 9223372036854775807 after 1 at "
         "index 2"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct rp_test_zip zip = {.n_members = 0};
        add_npy(&zip, "positions.npy", "<i8", "(3,)", cases[i].positions, 24);
        add_rows(&zip, "emb.npy", 3, 2, 1, 0);
        write_npz(&zip);
        assert_refused(RP_ERR_FORMAT, "", cases[i].message);
    }
}

static void manifests_of_other_formats_are_refused(void **state)
{
    static const struct {
        const char *text;
        enum rp_status code;
        const char *where, *message;
    } cases[] = {
        {"[]", RP_ERR_FORMAT, ":manifest.npy:1:1", "expected an object"},
        {"{\"version\": 1}", RP_ERR_FORMAT, ":manifest.npy:1:1",
         "expected \"format\": \"refparity-fixture\""},
        {"{\"format\": \"refparity-dump\", \"version\": 1}", RP_ERR_FORMAT, ":manifest.npy:1:12",
         "expected \"format\": \"refparity-fixture\""},
        {"{\"format\": \"refparity-fixture\"}", RP_ERR_FORMAT, ":manifest.npy:1:1",
         "expected \"version\": 1"},
        {"{\"format\": \"refparity-fixture\",\n\"version\": 2}", RP_ERR_UNSUPPORTED,
         ":manifest.npy:2:12", "expected \"version\": 1, found 2"},
        {"{\"format\": \"refparity-fixture\", \"version\": 1, \"n_layers\": 1.5}", RP_ERR_FORMAT,
         ":manifest.npy:1:59", "n_layers: expected a number of layers from 0 to 1000000"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct rp_test_zip zip = {.n_members = 0};
        add_text(&zip, cases[i].text);
        add_rows(&zip, "emb.npy", 3, 2, 1, 0);
        write_npz(&zip);
        assert_refused(cases[i].code, cases[i].where, cases[i].message);
    }
}

static void damaged_tokens_are_an_error_when_they_are_asked_for(void **state)
{
    static const float values[] = {1, 2, 3};
    struct rp_test_zip zip = {.n_members = 0};
    struct rp_error err;
    const int64_t *ids;
    size_t n;
    (void)state;
    add_npy(&zip, "tokens.npy", "<f4", "(3,)", values, sizeof values);
    add_rows(&zip, "emb.npy", 3, 2, 1, 0);
    write_npz(&zip);
    struct rp_tensor_set *set = open_set();
    assert_int_equal(rp_tensor_set_tokens(set, &ids, &n, &err), RP_ERR_UNSUPPORTED);
    assert_string_equal(err.message, "expected an integer type, found '<f4'");
    assert_string_equal(err.where + strlen(path), ":tokens.npy");
    assert_values(set, "emb", 3, 2, 1);
    rp_tensor_set_close(set);
}

static void nothing_and_no_npz_are_refused(void **state)
{
    struct rp_test_zip zip = {.n_members = 0};
    (void)state;
    assert_refused(RP_ERR_MISSING, "", "cannot open: No such file or directory");
    write_npz(&zip);
    assert_refused(RP_ERR_MISSING, "", "no slot is in it");
    rp_test_write_file(folder, "x.npz", NULL, 0);
    assert_refused(RP_ERR_FORMAT, "",
                   "not a complete zip file: no end of central directory in its 0 bytes");
    rp_test_write_file(folder, "x.npz", "version https://git-lfs.github.com/spec/v1\n", 43);
    assert_refused(RP_ERR_FORMAT, "",
                   "not a complete zip file: no end of central directory in its 43 bytes");
}

static void data_at_any_alignment_is_read(void **state)
{
    static const char *const names[] = {"x", "xx", "xxx", "xxxx"};
    (void)state;
    for (size_t i = 0; i < 4; i++) {
        struct rp_test_zip zip = {.n_members = 0};
        rp_test_zip_add(&zip, names[i], "", 0, 0);
        add_rows(&zip, "emb.npy", 3, 2, 1, 0);
        write_npz(&zip);
        struct rp_tensor_set *set = open_set();
        assert_values(set, "emb", 3, 2, 1);
        rp_tensor_set_close(set);
    }
}

static void a_header_longer_than_the_first_look_is_read(void **state)
{
    static const char dict[] = "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }";
    static const float values[] = {1, 2};
    struct rp_test_zip zip = {.n_members = 0};
    struct rp_test_bytes npy = {NULL, 0, 0};
    char *padded = malloc(5001);
    (void)state;
    assert_non_null(padded);
    memset(padded, ' ', 5000);
    memcpy(padded, dict, sizeof dict - 1);
    padded[5000] = '\0';
    rp_test_npy_dict(&npy, 1, padded, values, sizeof values);
    rp_test_zip_add(&zip, "emb.npy", npy.data, npy.n, RP_TEST_DEFLATED);
    rp_test_zip_add(&zip, "h0.npy", npy.data, npy.n, 0);
    rp_test_free(&npy);
    free(padded);
    write_npz(&zip);
    struct rp_tensor_set *set = open_set();
    assert_values(set, "emb", 1, 2, 1);
    assert_values(set, "h0", 1, 2, 1);
    rp_tensor_set_close(set);
}

/* Whatever is left of write_fixture's file: an error, or exactly what was written. */
static size_t count_intact_slots(void)
{
    static const char *const slots[] = {"emb", "h0", "logits"};
    static const float first[] = {1, 10, 100};
    static const size_t dims[] = {3, 3, 5};
    struct rp_tensor_set *set;
    const int64_t *ids;
    size_t n_intact = 0, n;
    if (rp_tensor_set_open(path, RP_LAYOUT_NPZ, 0, &set, NULL) != RP_OK)
        return 0;
    for (size_t i = 0; i < 3; i++) {
        struct rp_tensor tensor;
        if (rp_tensor_load(set, slots[i], &tensor, NULL) != RP_OK)
            continue;
        rp_tensor_release(&tensor);
        assert_values(set, slots[i], 2, dims[i], first[i]);
        n_intact++;
    }
    if (rp_tensor_set_tokens(set, &ids, &n, NULL) == RP_OK && ids) {
        assert_int_equal(n, 6);
        for (size_t i = 0; i < n; i++)
            assert_int_equal(ids[i], 7 + (int)i);
    }
    rp_tensor_set_close(set);
    return n_intact;
}

static void a_truncated_npz_is_an_error_at_every_byte(void **state)
{
    char *bytes;
    size_t n;
    (void)state;
    write_fixture();
    assert_int_equal(rp_file_read(path, 1 << 20, &bytes, &n, NULL), RP_OK);
    assert_int_equal(count_intact_slots(), 3);
    for (size_t cut = 0; cut < n; cut++) {
        rp_test_write_file(folder, "x.npz", bytes, cut);
        assert_int_equal(count_intact_slots(), 0);
    }
    free(bytes);
}

static void a_flipped_bit_is_an_error_or_changes_nothing(void **state)
{
    size_t n, n_refused = 0;
    char *bytes;
    (void)state;
    write_fixture();
    assert_int_equal(rp_file_read(path, 1 << 20, &bytes, &n, NULL), RP_OK);
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    setvbuf(file, NULL, _IONBF, 0);
    for (size_t bit = 0; bit < 8 * n; bit++) {
        int flipped = (unsigned char)bytes[bit / 8] ^ 1 << bit % 8;
        assert_int_equal(fseek(file, (long)(bit / 8), SEEK_SET), 0);
        assert_int_equal(fputc(flipped, file), flipped);
        n_refused += count_intact_slots() < 3;
        assert_int_equal(fseek(file, (long)(bit / 8), SEEK_SET), 0);
        fputc((unsigned char)bytes[bit / 8], file);
    }
    fclose(file);
    assert_int_equal(count_intact_slots(), 3);
    /* At least every bit of the three slots' data and of positions and manifest. */
    assert_true(n_refused > 8 * (24 + 24 + 40 + 16 + strlen(MANIFEST)));
    free(bytes);
}

/* Reads every committed fixture, all slots. */
static size_t read_all_below(const char *root)
{
    size_t n_read = 0;
    DIR *opened = opendir(root);
    const struct dirent *entry;
    if (!opened)
        return 0;
    while ((entry = readdir(opened)) != NULL) {
        char name[1024];
        struct stat info;
        struct rp_tensor_set *set;
        if (entry->d_name[0] == '.' ||
            rp_path_join(name, sizeof name, root, entry->d_name, NULL) != RP_OK ||
            stat(name, &info) != 0)
            continue;
        if (S_ISDIR(info.st_mode)) {
            n_read += read_all_below(name);
            continue;
        }
        size_t length = strlen(name);
        if (length < 4 || strcmp(name + length - 4, ".npz") != 0)
            continue;
        assert_int_equal(rp_tensor_set_open(name, RP_LAYOUT_AUTO, 0, &set, NULL), RP_OK);
        assert_int_equal(rp_tensor_set_n_layers(set), rp_tensor_set_n_layers_seen(set));
        for (size_t i = 0; i < rp_tensor_set_n_slots(set); i++) {
            struct rp_tensor tensor;
            struct rp_error err;
            char text[2200];
            const char *slot = rp_tensor_set_slot(set, i)->name;
            if (rp_tensor_load(set, slot, &tensor, &err) != RP_OK)
                fail_msg("%s", rp_error_text(&err, text, sizeof text));
            rp_tensor_release(&tensor);
            n_read++;
        }
        rp_tensor_set_close(set);
    }
    closedir(opened);
    return n_read;
}

static void what_numpy_wrote_is_read(void **state)
{
    size_t n_read = read_all_below(RP_SOURCE_DIR "/fixtures/store");
    (void)state;
    assert_true(n_read > 0);
}

int main(void)
{
#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)
    const struct CMUnitTest tests[] = {
        IN_FOLDER(a_fixture_is_read),
        IN_FOLDER(a_plain_npz_has_positions_from_0),
        IN_FOLDER(a_vector_is_one_position),
        IN_FOLDER(rows_that_nothing_places_are_an_error_of_their_slot),
        IN_FOLDER(one_row_of_logits_is_the_last_position),
        IN_FOLDER(wrong_slots_do_not_keep_the_others_from_being_read),
        IN_FOLDER(a_slot_that_is_not_there_is_missing),
        IN_FOLDER(positions_that_do_not_ascend_are_refused),
        IN_FOLDER(manifests_of_other_formats_are_refused),
        IN_FOLDER(damaged_tokens_are_an_error_when_they_are_asked_for),
        IN_FOLDER(nothing_and_no_npz_are_refused),
        IN_FOLDER(data_at_any_alignment_is_read),
        IN_FOLDER(a_header_longer_than_the_first_look_is_read),
        IN_FOLDER(a_truncated_npz_is_an_error_at_every_byte),
        IN_FOLDER(a_flipped_bit_is_an_error_or_changes_nothing),
        cmocka_unit_test(what_numpy_wrote_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL) ? 1 : 0;
}
