// SPDX-License-Identifier: BSD-2-Clause
// Walks folders by the functions of libc that allocate for their caller.
// kind: none
#include "twin.h"
#include <dirent.h>
#include <ftw.h>
#include <glob.h>
#include <stdlib.h>
#include <unistd.h>

static int seen;

static int on_file(const char *path, const struct stat *about, int kind, struct FTW *place)
{
    seen += path && about && kind >= 0 && place->level >= 0;
    return 0;
}

int main(void)
{
    glob_t found;
    if (glob(HIDE("/*"), 0, NULL, &found) == 0)
        globfree(&found);
    struct dirent **entries;
    int count = scandir("/", &entries, NULL, alphasort);
    for (int i = 0; i < count; i++)
        free(HIDE(entries[i]));
    free(entries);
    char *path = realpath("/proc/../tmp/.", NULL);
    free(path);
    char *folder = getcwd(NULL, 0);
    nftw(folder, on_file, 5, FTW_PHYS);
    free(folder);
    return seen < 1 || count < 1;
}
