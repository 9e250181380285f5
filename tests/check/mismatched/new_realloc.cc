// SPDX-License-Identifier: BSD-2-Clause
// What new gave is made larger by realloc().
// kind: mismatched-free
// object: 16 bytes
#include "twin.h"
#include <cstdlib>
#include <cstring>

int main()
{
    char *text = new char[16];  // @allocated
    char *longer;
    if (TWIN(1, 0)) {
        longer = static_cast<char *>(realloc(HIDE(text), 64));  // @access
        free(longer);
    } else {
        longer = new char[64];
        memcpy(longer, HIDE(text), 16);
        delete[] text;
        delete[] HIDE(longer);
    }
    return 0;
}
