// SPDX-License-Identifier: BSD-2-Clause
// calloc() and delete[].
// kind: mismatched-free
// object: 100 bytes
#include "twin.h"
#include <cstdlib>

int main()
{
    char *text = static_cast<char *>(std::calloc(10, 10));  // @allocated
    HIDE(text)[99] = 'z';
    if (TWIN(1, 0))
        delete[] HIDE(text);  // @access
    else
        std::free(text);
    return 0;
}
