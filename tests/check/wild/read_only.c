// SPDX-License-Identifier: BSD-2-Clause
// A literal is written to.
// kind: wild-pointer
// access: write 1
#include "twin.h"

int main(void)
{
    char copy[] = "constant";
    char *text = HIDE(TWIN((char *)"constant", &copy[0]));
    text[0] = 'C';  // @access
    return 0;
}
