// SPDX-License-Identifier: BSD-2-Clause
// An object is deleted by its container and by itself.
// kind: double-free
// object: 24 bytes, at 0
#include "twin.h"

struct widget {
    widget *parent, *child;
    int state;
    explicit widget(widget *above) : parent(above), child(nullptr), state(0)
    {
        if (above)
            above->child = this;
    }
};

int main()
{
    widget window(nullptr);
    widget *button = new widget(&window);  // @allocated
    delete HIDE(button);                   // @freed
    if (TWIN(0, 1))
        window.child = nullptr;
    delete HIDE(window.child);  // @access
    return 0;
}
