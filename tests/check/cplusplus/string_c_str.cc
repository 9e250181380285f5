// SPDX-License-Identifier: BSD-2-Clause
// The characters of a string that does not exist any more.
// kind: heap-use-after-free
// access: read 1
#include "twin.h"
#include <string>

static std::string text()
{
    return std::string(HIDE(100), 'a');  // @allocated
}

int main()
{
    std::string kept = text();                                 // @allocated
    const char *letters = TWIN(text().c_str(), kept.c_str());  // @freed @allocated
    USE(HIDE(letters)[50]);                                    // @access
    return 0;
}
