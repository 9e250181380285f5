// SPDX-License-Identifier: BSD-2-Clause
// An object deletes itself and goes on.
// kind: heap-use-after-free
// access: write 4
// object: 8 bytes, at 4
#include "twin.h"

class session
{
  public:
    void put()
    {
        if (--references == 0 && TWIN(1, 0))
            delete HIDE(this);  // @freed
        HIDE(this)->state = 2;  // @access
    }

  private:
    int references = 1, state = 0;
};

int main()
{
    session *one = new session;  // @allocated
    HIDE(one)->put();
    if (TWIN(0, 1))
        delete one;
    return 0;
}
