// SPDX-License-Identifier: BSD-2-Clause
// A function of one's own for messages that passes a wrong size on.
// kind: heap-buffer-overflow
// access: write
// object: 30 bytes
#include "twin.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

struct message {
    char *text;
    size_t bytes;
};

__attribute__((format(printf, 2, 3))) static void say(struct message *message, const char *format,
                                                      ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(message->text, message->bytes, format, arguments);  // @access
    va_end(arguments);
}

int main(void)
{
    struct message message = {malloc(30), TWIN(300, 30)};  // @allocated
    say(HIDE(&message), "%s: cannot open '%s'", "program", HIDE("/a/file/with/a/long/name"));
    free(message.text);
    return 0;
}
