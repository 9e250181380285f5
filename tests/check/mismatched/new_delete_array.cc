// SPDX-License-Identifier: BSD-2-Clause
// new and delete[].
// kind: mismatched-free
// object: 1 bytes
#include "twin.h"

int main()
{
    char *letter = new char('a');  // @allocated
    if (TWIN(1, 0))
        delete[] HIDE(letter);  // @access
    else
        delete HIDE(letter);
    return 0;
}
