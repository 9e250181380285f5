// SPDX-License-Identifier: BSD-2-Clause
// A view of a string that grew.
// kind: heap-use-after-free
// access: read 1
#include "twin.h"
#include <string>
#include <string_view>

int main()
{
    std::string text(50, 'a');  // @allocated
    std::string_view view(text);
    text.append(5000, 'b');  // @freed
    if (TWIN(0, 1))
        view = text;
    const char *at = HIDE(view.data());
    USE(at[10]);  // @access
    return 0;
}
