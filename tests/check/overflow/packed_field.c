// SPDX-License-Identifier: BSD-2-Clause
// A packed header whose length field lies over the end, at an odd address.
// kind: heap-buffer-overflow
// access: read
// object: 6 bytes
#include "twin.h"
#include <stdint.h>
#include <stdlib.h>

struct __attribute__((packed)) header {
    uint8_t version;
    uint16_t kind;
    uint32_t length;
};

int main(void)
{
    uint8_t *packet = calloc(1, TWIN(6, sizeof(struct header)));  // @allocated
    struct header *header = (struct header *)HIDE(packet);
    uint32_t length = header->length;  // @access
    USE(length);
    free(packet);
    return 0;
}
