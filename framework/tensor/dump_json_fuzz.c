/* libFuzzer target: any bytes as the dump.json of a folder with three slots. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "refparity/tensor_set.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

static void write_file(const char *folder, const char *name, const void *bytes, size_t n)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    if (fd < 0 || write(fd, bytes, n) != (ssize_t)n)
        abort();
    close(fd);
}

/* Slots of 4 rows, which a first call writes; later ones find the folder. */
static void make_folder(const char *folder)
{
    static const char *const names[] = {"emb.npy", "h0.npy", "logits.npy"};
    char npy[10 + 70 + 16];
    int n =
        snprintf(npy, sizeof npy, "%cNUMPY%c%c%c%c%-69s\n%s", 0x93, 1, 0, 70, 0,
                 "{'descr': '<f4', 'fortran_order': False, 'shape': (4, 1), }", "................");
    if (n != 10 + 70 + 16 || (mkdir(folder, 0700) != 0 && access(folder, W_OK) != 0))
        abort();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        write_file(folder, names[i], npy, sizeof npy);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct rp_tensor_set *set;
    struct rp_error err;
    char folder[64], text[2200];
    snprintf(folder, sizeof folder, "/tmp/refparity-dump-fuzz-%ld", (long)getpid());
    if (access(folder, W_OK) != 0)
        make_folder(folder);
    write_file(folder, "dump.json", bytes, n);
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
    }
    rp_tensor_set_close(set);
    return 0;
}
