/* See base/numbers.h. */
#include "base/numbers.h"

#include <stdbool.h>
#include <stdlib.h>

size_t rp_number_parse(const char *text, size_t length, int64_t max, int64_t *number)
{
    size_t n = 0;
    int64_t value = 0;
    while (n < length && text[n] >= '0' && text[n] <= '9') {
        value = value * 10 + (text[n++] - '0');
        if (value > max)
            return 0;
    }
    *number = value;
    return n;
}

enum rp_status rp_numbers_parse(const char *text, size_t length, char separator, int64_t max,
                                const char *what, const char *item, int64_t **numbers, size_t *n,
                                struct rp_error *err)
{
    size_t at = 0, count = 0;
    int64_t *list = calloc(length / 2 + 1, sizeof *list);
    if (!list)
        return rp_fail(err, RP_ERR_MEMORY, what, -1, "no memory for %zu numbers", length / 2 + 1);
    while (at < length) {
        size_t used = rp_number_parse(text + at, length - at, max, &list[count]);
        bool ends = at + used == length || text[at + used] == separator;
        if (used == 0 || !ends) {
            free(list);
            return rp_fail(err, RP_ERR_FORMAT, what, -1,
                           "%s %zu is not a decimal number from 0 to %lld", item, count + 1,
                           (long long)max);
        }
        at += used + 1;
        count++;
    }
    if (count == 0) {
        free(list);
        return rp_fail(err, RP_ERR_FORMAT, what, -1, "there are no numbers");
    }
    *numbers = list;
    *n = count;
    return RP_OK;
}
