/* See old_reports.h. */
#include "report/old_reports.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "report/html_text.h"

static bool begins_with(const char *text, const char *beginning)
{
    return strncmp(text, beginning, strlen(beginning)) == 0;
}

/* How text.c, results.c, junit.c and html_text.c begin. A .diff is named for its pair: "e/batched/p0", where the
 * prompt may have an id, is e__batched__p0.diff. */
static bool is_ours(const char *name, const char *text)
{
    const size_t length = strlen(name);
    if (strcmp(name, "results.json") == 0 || strcmp(name, "shard.json") == 0)
        return begins_with(text, "{\n\t\"format\":\t\"refparity-results\"");
    if (strcmp(name, "junit.xml") == 0)
        return begins_with(text, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
                                 "<testsuites name=\"refparity\"");
    if (length > 5 && strcmp(name + length - 5, ".html") == 0)
        return begins_with(text, RP_HTML_BEGINNING);
    if (length <= 5 || strcmp(name + length - 5, ".diff") != 0 || !begins_with(text, "pair "))
        return false;
    const char *entry = text + strspn(text + 4, " ") + 4;
    const size_t n = strcspn(entry, "/\n");
    return entry[n] == '/' && strncmp(name, entry, n) == 0 && begins_with(name + n, "__");
}

void rp_remove_old_reports(const char *reports_dir)
{
    DIR *folder = opendir(reports_dir);
    const struct dirent *item;
    while (folder && (item = readdir(folder)) != NULL) {
        char text[1024];
        const int fd =
            openat(dirfd(folder), item->d_name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        const ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
        if (fd >= 0)
            close(fd);
        if (n <= 0)
            continue;
        text[n] = '\0';
        if (is_ours(item->d_name, text))
            (void)unlinkat(dirfd(folder), item->d_name, 0);
    }
    if (folder)
        closedir(folder);
}
