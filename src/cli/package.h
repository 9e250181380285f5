// SPDX-License-Identifier: BSD-2-Clause
// What the files of `strake package` share.
#ifndef STRAKE_CLI_PACKAGE_H
#define STRAKE_CLI_PACKAGE_H

#include "cli/cli.h"
#include "package/package.h"

// An earlier program: "VERSION=FILE" on the command line.
struct cli_package_base {
    char version[PACKAGE_VERSION_MAX + 1];
    const char *path;
};

struct cli_package_options {
    const char *key, *public, *trusted;
    bool no_password, json;
    const char *program, *version, *expires, *notes;
    unsigned epoch, state_oldest, state_newest;
    struct cli_package_base bases[PACKAGE_PAYLOADS_MAX - 1];
    size_t base_count;
    const char *guests[PACKAGE_EXTENSIONS_MAX];
    size_t guest_count;
    unsigned verbs;  // those that have all the options that were given
};

int cli_package_build(const struct cli_package_options *options, const char *path,
                      struct error *err);

// A whole file of up to `max_bytes`, the caller's to free; there is a NUL behind it.
int cli_package_read_file(const char *path, size_t max_bytes, void **bytes, size_t *length_bytes,
                          struct error *err);
// Writes a package next to where it is to be, and puts it there when it is whole.
int cli_package_replace(const char *path, const struct package_source *sources, size_t count,
                        struct error *err);
// A key from its file; the password is asked for when one is needed.
int cli_package_load_key(struct package_key **out, const char *path, struct error *err);
// Signs a manifest's text; the signature is the caller's to free.
int cli_package_sign(const struct package_key *key, const char *text, size_t length_bytes,
                     const struct package_manifest *manifest, char **signature, struct error *err);

#endif
