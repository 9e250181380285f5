// SPDX-License-Identifier: BSD-2-Clause
// strake package build: packs a program, and what goes with it.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/package.h"

// A program read, or packed.
struct blob {
    char name[PACKAGE_NAME_MAX + 1];
    void *bytes;
    size_t count;
};

// What a Debian package's file name says: NAME_VERSION_ARCHITECTURE.deb.
struct deb {
    char name[PACKAGE_NAME_MAX + 1];
    char package[PACKAGE_NAME_MAX + 1], version[PACKAGE_NAME_MAX + 1],
        architecture[PACKAGE_NAME_MAX + 1];
    int fd;
};

struct build {
    struct package_manifest manifest;
    struct package_payload payloads[PACKAGE_PAYLOADS_MAX];
    struct package_extension extensions[PACKAGE_EXTENSIONS_MAX];
    struct blob program, notes, packed[PACKAGE_PAYLOADS_MAX];
    struct deb debs[PACKAGE_EXTENSIONS_MAX];
    char *text, *signature;
};

// ---- Payloads -----------------------------------------------------------------------------------

static int add_payload(struct build *build, const struct blob *base, struct error *err)
{
    size_t at = build->manifest.payload_count;
    struct package_payload *payload = &build->payloads[at];
    struct blob *packed = &build->packed[at];
    int rc = package_pack_program(build->program.bytes, build->program.count, base->bytes,
                                  base->count, &packed->bytes, &packed->count, err);

    if (rc < 0)
        return rc;
    payload->file.name = packed->name;
    payload->file.bytes = packed->count;
    package_digest(packed->bytes, packed->count, payload->file.sha256);
    build->manifest.payload_count++;
    return 0;
}

static int add_whole(struct build *build, struct error *err)
{
    const struct blob nothing = {0};

    strcpy(build->packed[0].name, "monitor-full.zst");
    return add_payload(build, &nothing, err);
}

static int add_delta(struct build *build, const struct cli_package_base *base, struct error *err)
{
    size_t at = build->manifest.payload_count;
    struct blob program = {0};
    int rc = cli_package_read_file(base->path, PACKAGE_PROGRAM_MAX_BYTES, &program.bytes,
                                   &program.count, err);

    if (rc < 0)
        return rc;
    snprintf(build->packed[at].name, sizeof(build->packed[at].name), "monitor-from-%s.zst",
             base->version);
    build->payloads[at].base_version = base->version;
    package_digest(program.bytes, program.count, build->payloads[at].base_sha256);
    if (program.count == 0)
        rc = error_set(err, -EINVAL, "\"%s\" is empty", base->path);
    else
        rc = add_payload(build, &program, err);
    free(program.bytes);
    return rc;
}

// ---- Packages for guests ------------------------------------------------------------------------

static int parse_deb_name(struct deb *deb, const char *path, struct error *err)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    int end = 0;

    if (strlen(name) < sizeof(deb->name) - strlen("guest/") &&
        sscanf(name, "%99[^_]_%99[^_]_%99[^_.].deb%n", deb->package, deb->version,
               deb->architecture, &end) == 3 &&
        end > 0 && !name[end]) {
        snprintf(deb->name, sizeof(deb->name), "guest/%.90s", name);
        return 0;
    }
    return error_set(err, -EINVAL, "\"%s\" is not named NAME_VERSION_ARCHITECTURE.deb", path);
}

static int add_deb(struct build *build, const char *path, struct error *err)
{
    size_t at = build->manifest.extension_count;
    struct package_extension *extension = &build->extensions[at];
    struct deb *deb = &build->debs[at];
    int rc = parse_deb_name(deb, path, err);

    if (rc < 0)
        return rc;
    deb->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (deb->fd < 0)
        return error_set_errno(err, -errno, "cannot open \"%s\"", path);
    build->manifest.extension_count++;
    extension->file.name = deb->name;
    extension->package = deb->package;
    extension->version = deb->version;
    extension->architecture = deb->architecture;
    rc = package_measure(deb->fd, &extension->file.bytes, extension->file.sha256, err);
    if (rc < 0)
        error_prefix(err, "\"%s\"", path);
    return rc;
}

// ---- All of it ----------------------------------------------------------------------------------

static int fill_head(struct build *build, const struct cli_package_options *options,
                     struct error *err)
{
    struct package_manifest *manifest = &build->manifest;
    const char *program = options->program ? options->program : "/proc/self/exe";
    int rc = cli_package_read_file(program, PACKAGE_PROGRAM_MAX_BYTES, &build->program.bytes,
                                   &build->program.count, err);

    if (rc == 0 && options->notes)
        rc = cli_package_read_file(options->notes, PACKAGE_NOTES_MAX_BYTES, &build->notes.bytes,
                                   &build->notes.count, err);
    if (rc < 0)
        return rc;
    if (build->notes.bytes && strlen(build->notes.bytes) != build->notes.count)
        return error_set(err, -EINVAL, "\"%s\" is no text", options->notes);
    *manifest = (struct package_manifest){.product = PACKAGE_PRODUCT,
                                          .architecture = PACKAGE_ARCHITECTURE,
                                          .version = options->version,
                                          .epoch = options->epoch,
                                          .state_oldest = options->state_oldest,
                                          .state_newest = options->state_newest,
                                          .program_bytes = build->program.count,
                                          .payloads = build->payloads,
                                          .extensions = build->extensions,
                                          .notes = options->notes ? build->notes.bytes : ""};
    package_digest(build->program.bytes, build->program.count, manifest->program_sha256);
    return package_time_parse(&manifest->expires_s, options->expires, err);
}

static int fill(struct build *build, const struct cli_package_options *options, struct error *err)
{
    struct package_key *key;
    int rc = fill_head(build, options, err);

    if (rc == 0)
        rc = add_whole(build, err);
    for (size_t i = 0; rc == 0 && i < options->base_count; i++)
        rc = add_delta(build, &options->bases[i], err);
    for (size_t i = 0; rc == 0 && i < options->guest_count; i++)
        rc = add_deb(build, options->guests[i], err);
    if (rc == 0)
        rc = package_manifest_write(&build->manifest, &build->text, err);
    if (rc < 0 || !options->key)
        return rc;
    rc = cli_package_load_key(&key, options->key, err);
    if (rc < 0)
        return rc;
    rc = cli_package_sign(key, build->text, strlen(build->text), &build->manifest,
                          &build->signature, err);
    package_key_destroy(key);
    return rc;
}

static int write_package(const struct build *build, const char *path, struct error *err)
{
    struct package_source sources[PACKAGE_MEMBERS_MAX];
    size_t count = 0;

    sources[count++] = (struct package_source){
        .name = PACKAGE_MANIFEST_NAME, .bytes = build->text, .length_bytes = strlen(build->text)};
    if (build->signature)
        sources[count++] = (struct package_source){.name = PACKAGE_SIGNATURE_NAME,
                                                   .bytes = build->signature,
                                                   .length_bytes = strlen(build->signature)};
    for (size_t i = 0; i < build->manifest.payload_count; i++)
        sources[count++] = (struct package_source){.name = build->packed[i].name,
                                                   .bytes = build->packed[i].bytes,
                                                   .length_bytes = build->packed[i].count};
    for (size_t i = 0; i < build->manifest.extension_count; i++) {
        if (lseek(build->debs[i].fd, 0, SEEK_SET) < 0)
            return error_set_errno(err, -errno, "cannot read \"%s\" again", build->debs[i].name);
        sources[count++] = (struct package_source){.name = build->debs[i].name,
                                                   .fd = build->debs[i].fd,
                                                   .length_bytes = build->extensions[i].file.bytes};
    }
    return cli_package_replace(path, sources, count, err);
}

int cli_package_build(const struct cli_package_options *options, const char *path,
                      struct error *err)
{
    struct build *build = calloc(1, sizeof(*build));

    if (!build)
        return error_set_errno(err, -ENOMEM, "cannot build a package");
    int rc = fill(build, options, err);
    if (rc == 0)
        rc = write_package(build, path, err);
    for (size_t i = 0; i < build->manifest.payload_count; i++)
        free(build->packed[i].bytes);
    for (size_t i = 0; i < build->manifest.extension_count; i++)
        close(build->debs[i].fd);
    free(build->program.bytes);
    free(build->notes.bytes);
    free(build->text);
    free(build->signature);
    free(build);
    return rc;
}
