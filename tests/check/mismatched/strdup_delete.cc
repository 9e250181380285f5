// SPDX-License-Identifier: BSD-2-Clause
// strdup() and delete[].
// kind: mismatched-free
// object: 6 bytes
#include "twin.h"
#include <cstdlib>
#include <cstring>

int main()
{
    char *copy = strdup(HIDE("tools"));  // @allocated
    if (TWIN(1, 0))
        delete[] HIDE(copy);  // @access
    else
        free(copy);
    return 0;
}
