// SPDX-License-Identifier: BSD-2-Clause
// A stream of stdio is freed that is static in libc.
// kind: invalid-free
#include "twin.h"
#include <stdio.h>
#include <stdlib.h>

int main(void)
{
    FILE *stream = HIDE(TWIN(stdout, (FILE *)NULL));
    free(stream);  // @access
    return 0;
}
