// SPDX-License-Identifier: BSD-2-Clause
// Fuzz target for the reader of manifests. What it takes is written and read again: the same, and
// its names are safe and its numbers within their bounds.
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "package/package.h"
#include "replay.h"

static void promise(bool kept)
{
    if (!kept)
        abort();
}

static void look_at_file(const struct package_file *file)
{
    promise(strlen(file->name) <= PACKAGE_NAME_MAX && isalnum((unsigned char)*file->name));
    promise(!strstr(file->name, "/.") && !strstr(file->name, "//"));
    promise(file->bytes > 0 && file->bytes < PACKAGE_FILE_MAX_BYTES);
    promise(strlen(file->sha256) == PACKAGE_DIGEST_CHARS - 1);
}

static void look_at(const struct package_manifest *manifest)
{
    promise(package_version_valid(manifest->version) && manifest->epoch > 0);
    promise(manifest->state_oldest > 0 && manifest->state_oldest <= manifest->state_newest);
    promise(manifest->payload_count > 0 && manifest->payload_count <= PACKAGE_PAYLOADS_MAX);
    promise(manifest->extension_count <= PACKAGE_EXTENSIONS_MAX);
    promise(!strchr(manifest->notes, '\x1b'));
    for (size_t i = 0; i < manifest->payload_count; i++)
        look_at_file(&manifest->payloads[i].file);
    for (size_t i = 0; i < manifest->extension_count; i++)
        look_at_file(&manifest->extensions[i].file);
}

// Written it may be longer than it was, by white space, and then too long.
static void write_again(const struct package_manifest *manifest)
{
    struct package_manifest *again;
    struct error err = {0};
    char *text, *text_again;

    int rc = package_manifest_write(manifest, &text, &err);
    promise(rc == 0 || rc == -E2BIG);
    if (rc < 0)
        return;
    promise(package_manifest_parse(&again, text, strlen(text), &err) == 0);
    promise(package_manifest_write(again, &text_again, &err) == 0);
    promise(strcmp(text, text_again) == 0);
    package_manifest_destroy(again);
    free(text);
    free(text_again);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t count)
{
    struct package_manifest *manifest;
    struct error err = {0};
    uint8_t *bytes = malloc(count + !count);

    promise(bytes);
    if (count > 0)
        memcpy(bytes, input, count);
    if (package_manifest_parse(&manifest, bytes, count, &err) == 0) {
        look_at(manifest);
        write_again(manifest);
        package_manifest_destroy(manifest);
    } else {
        promise(err.code < 0 && err.message[0]);
        for (const char *c = err.message; *c; c++)
            promise(isprint((unsigned char)*c));
    }
    free(bytes);
    return 0;
}
