// SPDX-License-Identifier: BSD-2-Clause
// What libc allocates for itself: locale, time zone, environment, groups.
// kind: none
#include "twin.h"
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int main(void)
{
    setlocale(LC_ALL, HIDE("C.UTF-8"));
    char name[32], text[64];
    for (int i = 0; i < 50; i++) {
        snprintf(name, sizeof(name), "SUITE_%d", i);
        setenv(name, name, 1);
    }
    setenv("TZ", "CET-1CEST", 1);
    tzset();
    time_t start = 86400 * 365;
    struct tm *local = localtime(&start);
    if (!strftime(text, sizeof(text), "%c %Z", local) || strcmp(getenv("SUITE_49"), "SUITE_49"))
        return 1;
    for (int i = 0; i < 50; i += 2) {
        snprintf(name, sizeof(name), "SUITE_%d", i);
        unsetenv(name);
    }
    locale_t other = newlocale(LC_ALL_MASK, "C", NULL);
    freelocale(other);
    return clearenv();
}
