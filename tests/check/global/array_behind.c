// SPDX-License-Identifier: BSD-2-Clause
// The element behind a static array.
// kind: global-buffer-overflow
// access: read 4
// missed-by: memcheck
#include "twin.h"

static int primes[] = {2, 3, 5, 7, 11};

int main(void)
{
    int sum = 0;
    for (int i = 0; i TWIN(<=, <) 5; i++)
        sum += HIDE(&primes[0])[i];  // @access
    USE(sum);
    return 0;
}
