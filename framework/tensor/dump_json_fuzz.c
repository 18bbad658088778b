/* libFuzzer target: any bytes as the dump.json of a folder with five slots, which are loaded. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "refparity/tensor_set.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static char folder[64];

static void write_file(const char *name, const void *bytes, size_t n)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    unlink(path); /* truncating it instead makes ext4 wait for the disk */
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (fd < 0 || write(fd, bytes, n) != (ssize_t)n)
        abort();
    close(fd);
}

static void remove_folder(void)
{
    rp_remove_tree(folder, NULL);
}

/* Slots of 4 rows; the first call writes them. */
static void make_folder(void)
{
    static const char *const names[] = {"emb.npy", "h0.npy", "h0_q.npy", "h1_z.npy", "logits.npy"};
    char npy[10 + 70 + 128 + 1];
    char data[128 + 1];
    memset(data, '.', 128);
    data[128] = '\0';
    int n = snprintf(npy, sizeof npy, "%cNUMPY%c%c%c%c%-69s\n%s", 0x93, 1, 0, 70, 0,
                     "{'descr': '<f4', 'fortran_order': False, 'shape': (4, 8), }", data);
    if (n != 10 + 70 + 128 || !mkdtemp(folder) || atexit(remove_folder) != 0)
        abort();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        write_file(names[i], npy, 10 + 70 + 128);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct rp_tensor_set *set;
    struct rp_error err;
    char text[2200];
    if (!folder[0]) {
        snprintf(folder, sizeof folder, "/tmp/refparity-dump-fuzz-XXXXXX");
        make_folder();
    }
    write_file("dump.json", bytes, n);
    if (rp_tensor_set_open(folder, RP_LAYOUT_NPY, 0, &set, &err) != RP_OK) {
        rp_error_text(&err, text, sizeof text);
        return 0;
    }
    for (size_t i = 0; i < rp_tensor_set_n_slots(set); i++) {
        const struct rp_slot_info *info = rp_tensor_set_slot(set, i);
        for (size_t row = 0; row < info->n_positions; row++)
            if (info->positions[row] < 0 ||
                (row > 0 && info->positions[row] <= info->positions[row - 1]))
                abort();
        struct rp_tensor tensor;
        if (rp_tensor_load(set, info->name, &tensor, &err) == RP_OK)
            rp_tensor_release(&tensor);
    }
    rp_tensor_set_close(set);
    return 0;
}
