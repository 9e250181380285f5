// SPDX-License-Identifier: BSD-2-Clause
// The byte behind a literal's end.
// kind: global-buffer-overflow
// access: read 1
// missed-by: memcheck
#include "twin.h"

int main(void)
{
    const char *text = HIDE("seven b");
    USE(text[HIDE(TWIN(8, 7))]);  // @access
    return 0;
}
