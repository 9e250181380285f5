// SPDX-License-Identifier: BSD-2-Clause
// Frames of the guest channel (docs/guest-channel.md, "Frames"): put together from the bytes of a
// stream, in whatever pieces they come. Private to this room.
#ifndef STRAKE_UPDATE_FRAME_H
#define STRAKE_UPDATE_FRAME_H

#include "update/update.h"

struct frame {
    uint16_t type;
    uint64_t handle;
    const uint8_t *payload;
    uint32_t bytes;
};

enum frame_found {
    FRAME_NONE,  // more bytes are needed
    FRAME_WHOLE,
    FRAME_LOST,  // no magic, or a length that is not allowed: where the next begins nobody knows
};

struct frame_reader {
    size_t held;
    uint8_t bytes[UPDATE_FRAME_HEADER_BYTES + UPDATE_FRAME_PAYLOAD_MAX];
};

// Takes bytes of the frame that is being read, not of the one behind it; returns how many.
size_t frame_reader_take(struct frame_reader *reader, const void *bytes, size_t count);
// Whether a frame is there. Its payload is good until frame_reader_next.
enum frame_found frame_reader_look(const struct frame_reader *reader, struct frame *frame);
void frame_reader_next(struct frame_reader *reader);

void frame_header(uint8_t header[UPDATE_FRAME_HEADER_BYTES], enum update_frame type,
                  uint64_t handle, uint32_t bytes);

// Little-endian numbers in payloads.
uint32_t frame_get32(const uint8_t *bytes);
uint64_t frame_get64(const uint8_t *bytes);
void frame_put16(uint8_t *bytes, uint16_t value);
void frame_put64(uint8_t *bytes, uint64_t value);

#endif
