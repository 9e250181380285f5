// SPDX-License-Identifier: BSD-2-Clause
// strcpy() into a static buffer that is too small.
// kind: global-buffer-overflow
// access: write
// missed-by: memcheck
#include "twin.h"
#include <string.h>

static char host[TWIN(8, 32)];
static char user[8];

int main(void)
{
    strcpy(user, "me");
    strcpy(HIDE(&host[0]), HIDE("machine.example"));  // @access
    USE(user[0]);
    return 0;
}
