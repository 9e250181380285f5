// SPDX-License-Identifier: BSD-2-Clause
#include <endian.h>
#include <string.h>

#include "update/frame.h"

// Where a header has what.
enum { AT_MAGIC = 0, AT_TYPE = 2, AT_LENGTH = 4, AT_HANDLE = 8 };

static uint16_t frame_get16(const uint8_t *bytes)
{
    uint16_t value;

    memcpy(&value, bytes, sizeof(value));
    return le16toh(value);
}

uint32_t frame_get32(const uint8_t *bytes)
{
    uint32_t value;

    memcpy(&value, bytes, sizeof(value));
    return le32toh(value);
}

uint64_t frame_get64(const uint8_t *bytes)
{
    uint64_t value;

    memcpy(&value, bytes, sizeof(value));
    return le64toh(value);
}

void frame_put16(uint8_t *bytes, uint16_t value)
{
    value = htole16(value);
    memcpy(bytes, &value, sizeof(value));
}

void frame_put64(uint8_t *bytes, uint64_t value)
{
    value = htole64(value);
    memcpy(bytes, &value, sizeof(value));
}

void frame_header(uint8_t header[UPDATE_FRAME_HEADER_BYTES], enum update_frame type,
                  uint64_t handle, uint32_t bytes)
{
    const uint32_t length = htole32(bytes);

    frame_put16(header + AT_MAGIC, UPDATE_FRAME_MAGIC);
    frame_put16(header + AT_TYPE, (uint16_t)type);
    memcpy(header + AT_LENGTH, &length, sizeof(length));
    frame_put64(header + AT_HANDLE, handle);
}

enum frame_found frame_reader_look(const struct frame_reader *reader, struct frame *frame)
{
    const uint8_t *header = reader->bytes;

    if (reader->held < UPDATE_FRAME_HEADER_BYTES)
        return FRAME_NONE;
    *frame = (struct frame){.type = frame_get16(header + AT_TYPE),
                            .handle = frame_get64(header + AT_HANDLE),
                            .payload = header + UPDATE_FRAME_HEADER_BYTES,
                            .bytes = frame_get32(header + AT_LENGTH)};
    if (frame_get16(header + AT_MAGIC) != UPDATE_FRAME_MAGIC ||
        frame->bytes > UPDATE_FRAME_PAYLOAD_MAX)
        return FRAME_LOST;
    return reader->held - UPDATE_FRAME_HEADER_BYTES < frame->bytes ? FRAME_NONE : FRAME_WHOLE;
}

size_t frame_reader_take(struct frame_reader *reader, const void *bytes, size_t count)
{
    const uint8_t *from = bytes;
    size_t taken = 0, wanted = UPDATE_FRAME_HEADER_BYTES;
    struct frame frame;

    // The header first: it says how much belongs to the frame.
    while (taken < count && frame_reader_look(reader, &frame) == FRAME_NONE) {
        if (reader->held >= UPDATE_FRAME_HEADER_BYTES)
            wanted = UPDATE_FRAME_HEADER_BYTES + frame.bytes;
        size_t part = wanted - reader->held < count - taken ? wanted - reader->held : count - taken;
        memcpy(reader->bytes + reader->held, from + taken, part);
        reader->held += part;
        taken += part;
    }
    return taken;
}

void frame_reader_next(struct frame_reader *reader)
{
    reader->held = 0;
}
