// SPDX-License-Identifier: BSD-2-Clause
// A pointer in memory that holds the pattern of something else.
// kind: wild-pointer
// access: write 4
#include "twin.h"
#include <stdlib.h>
#include <string.h>

struct request {
    char head[8];
    int *answer;
};

int main(void)
{
    struct request *request = malloc(sizeof(*request));
    int answer;
    memset(request, 0x5a, sizeof(*request));
    if (TWIN(0, 1))
        request->answer = &answer;
    *HIDE(request->answer) = 1;  // @access
    free(request);
    return 0;
}
