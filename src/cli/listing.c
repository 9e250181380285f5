// SPDX-License-Identifier: BSD-2-Clause
// Tables and JSON on standard output.
#include <stdio.h>
#include <string.h>

#include "cli/client.h"

#define CELL_BYTES 256

void client_print_json(const json_t *value)
{
    json_dumpf(value, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY);
    putchar('\n');
}

void client_format_bytes(const json_t *value, char *text, size_t bytes)
{
    format_bytes(text, bytes, (uint64_t)json_integer_value(value));
}

static void cell_text(const json_t *row, const struct client_column *column, char *text,
                      size_t bytes)
{
    const json_t *value = json_object_get(row, column->key);
    if (!value || json_is_null(value))
        snprintf(text, bytes, "-");
    else if (column->format)
        column->format(value, text, bytes);
    else if (json_is_string(value))
        snprintf(text, bytes, "%s", json_string_value(value));
    else
        snprintf(text, bytes, "%lld", (long long)json_integer_value(value));
}

static size_t column_width(const json_t *rows, const struct client_column *column)
{
    char text[CELL_BYTES];
    size_t width = strlen(column->heading);
    for (size_t i = 0; i < json_array_size(rows); i++) {
        cell_text(json_array_get(rows, i), column, text, sizeof(text));
        width = strlen(text) > width ? strlen(text) : width;
    }
    return width;
}

void client_print_table(const json_t *rows, const struct client_column *columns, size_t count)
{
    size_t widths[CLIENT_COLUMNS_MAX];
    char text[CELL_BYTES];
    for (size_t c = 0; c < count; c++) {
        widths[c] = column_width(rows, &columns[c]);
        printf("%-*s%s", c + 1 < count ? (int)widths[c] : 0, columns[c].heading,
               c + 1 < count ? "  " : "\n");
    }
    for (size_t i = 0; i < json_array_size(rows); i++) {
        for (size_t c = 0; c < count; c++) {
            cell_text(json_array_get(rows, i), &columns[c], text, sizeof(text));
            printf("%-*s%s", c + 1 < count ? (int)widths[c] : 0, text, c + 1 < count ? "  " : "\n");
        }
    }
}
