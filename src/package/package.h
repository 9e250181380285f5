// SPDX-License-Identifier: BSD-2-Clause
// package: what an update is carried in. A manifest (JSON) says what belongs to it, a signature
// (minisign's) who made it; payloads (zstd, whole or as a delta to an earlier program) hold the
// program, .deb files what goes into guests. docs/package.md has the format.
//
// Trust: everything that is read here may have been made by somebody hostile. Nothing read makes a
// function crash, loop, or take more memory or space than its limits say. That a thing was parsed
// or unpacked does not mean that it is to be trusted: package_verify_signature says that, and
// it is asked before the manifest is looked at.
//
// Threads: none of the types is shared; functions may run in any thread.
#ifndef STRAKE_PACKAGE_H
#define STRAKE_PACKAGE_H

#include "base/base.h"

// Security epoch of this program. It is raised by one in a release that closes a hole through which
// a guest could harm its host, and never lowered: a host that runs epoch N refuses to go back to
// what has less, however well it is signed.
#define STRAKE_EPOCH 1

#define PACKAGE_FORMAT 1
#define PACKAGE_PRODUCT "strake"
#define PACKAGE_ARCHITECTURE "x86_64"
#define PACKAGE_SUFFIX ".strake"
#define PACKAGE_MANIFEST_NAME "manifest.json"
#define PACKAGE_SIGNATURE_NAME "manifest.json.minisig"

// Where a host keeps the keys that it trusts, unless it is told otherwise.
#define PACKAGE_TRUSTED_FOLDER "/etc/strake/trusted.d"

// Manifest and signature travel to the host together in one frame of 64 KiB, behind a length of 4.
#define PACKAGE_MANIFEST_MAX_BYTES 61440u
#define PACKAGE_SIGNATURE_MAX_BYTES 4092u
#define PACKAGE_NOTES_MAX_BYTES 16384u
#define PACKAGE_FILE_MAX_BYTES (1ull << 33)   // what a tar member can say in octal; policy is less
#define PACKAGE_PROGRAM_MAX_BYTES (1u << 30)  // that `strake package` packs and unpacks
#define PACKAGE_NAME_MAX 99u                  // of a file, so that a tar header holds it
#define PACKAGE_VERSION_MAX 31u
#define PACKAGE_PAYLOADS_MAX 16u
#define PACKAGE_EXTENSIONS_MAX 64u
#define PACKAGE_MEMBERS_MAX (2 + PACKAGE_PAYLOADS_MAX + PACKAGE_EXTENSIONS_MAX)

#define PACKAGE_DIGEST_CHARS 65u  // SHA-256 in lower-case hexadecimal, and a NUL
#define PACKAGE_KEY_ID_CHARS 17u  // a key's id as minisign prints it, and a NUL

// ---- Manifest -----------------------------------------------------------------------------------

struct package_file {
    const char *name;  // in the package: "monitor-full.zst", "guest/strake-guest_0.2.0_riscv64.deb"
    uint64_t bytes;
    char sha256[PACKAGE_DIGEST_CHARS];
};

// The monitor's program, packed.
struct package_payload {
    struct package_file file;
    const char *base_version;  // delta: the version that the program is told by; NULL: whole
    char base_sha256[PACKAGE_DIGEST_CHARS];  // delta: and its digest, which is what counts
};

// A Debian package for guests.
struct package_extension {
    struct package_file file;
    const char *package, *version, *architecture;
};

struct package_manifest {
    const char *product;       // not compared with PACKAGE_PRODUCT by the parser: the host has a
    const char *architecture;  // refusal of its own for each
    const char *version;       // numbers with dots between them: a safe name for a folder
    unsigned epoch;
    unsigned state_oldest, state_newest;  // STATE_SET_VERSIONs that the program can load
    uint64_t program_bytes;               // of the program itself, unpacked
    char program_sha256[PACKAGE_DIGEST_CHARS];
    struct package_payload *payloads;  // at least one
    size_t payload_count;
    struct package_extension *extensions;
    size_t extension_count;
    int64_t expires_s;  // seconds since 1970
    const char *notes;  // UTF-8 without control characters but line feed and tab
};

// Checks all that docs/manifest.schema.json says and what a schema cannot say: no key unknown,
// missing or doubled, no file named twice, a date that exists. 0; -EINVAL, -E2BIG or -ENOMEM with
// *err set.
BASE_NODISCARD int package_manifest_parse(struct package_manifest **out, const void *bytes,
                                          size_t length_bytes, struct error *err);
void package_manifest_destroy(struct package_manifest *manifest);  // NULL is ignored
// A new reference to Jansson's object, or NULL without memory.
struct json_t *package_manifest_to_json(const struct package_manifest *manifest);
// The text that goes into a package, the same for the same manifest. *text is the caller's to free.
// What the parser would refuse is refused here.
BASE_NODISCARD int package_manifest_write(const struct package_manifest *manifest, char **text,
                                          struct error *err);

// Whether it is a version: one to eight decimal numbers without leading zeros, joined by dots.
bool package_version_valid(const char *version);
// Less than, equal to or greater than 0 as `a` is to `b`, number by number; "1.2" is before
// "1.2.0". Both are valid.
int package_version_compare(const char *a, const char *b);
// "2027-11-22T00:00:00Z" and back. -EINVAL with *err set.
#define PACKAGE_TIME_CHARS 21u
BASE_NODISCARD int package_time_parse(int64_t *seconds, const char *text, struct error *err);
void package_time_format(char text[PACKAGE_TIME_CHARS], int64_t seconds);

// ---- Signatures: https://jedisct1.github.io/minisign/, "Signature format" -----------------------

// The public keys that a host trusts.
struct package_trust;

BASE_NODISCARD int package_trust_create(struct package_trust **out);
// All of a folder: *.pub are trusted, unless a file *.revoked has the same key. A folder that does
// not exist trusts nobody; a file that cannot be read or understood is an error, because it might
// revoke something. 0 or a negative errno with *err set; -EPERM: others than the caller and root
// may write to the folder or to one of these files.
BASE_NODISCARD int package_trust_load(struct package_trust **out, const char *folder,
                                      struct error *err);
// One more key, of a file.
BASE_NODISCARD int package_trust_add(struct package_trust *trust, const char *path,
                                     struct error *err);
void package_trust_destroy(struct package_trust *trust);  // NULL is ignored

// What the set is made of: a key for each file, by the files' names.
struct package_trust_key {
    char id[PACKAGE_KEY_ID_CHARS];
    const char *file;  // its name, the set's
    bool revoked;      // by this file or another
};
size_t package_trust_count(const struct package_trust *trust);
struct package_trust_key package_trust_key(const struct package_trust *trust, size_t index);

enum package_signature {
    PACKAGE_SIGNATURE_GOOD,
    PACKAGE_SIGNATURE_MALFORMED,    // not minisign's format: -EBADMSG
    PACKAGE_SIGNATURE_UNKNOWN_KEY,  // a key that is not in the set: -ENOKEY
    PACKAGE_SIGNATURE_REVOKED_KEY,  // -EKEYREVOKED
    PACKAGE_SIGNATURE_BAD,          // not of these bytes, or of this trusted comment: -EKEYREJECTED
};

// Verifies manifest.json.minisig over manifest.json's bytes. Both of minisign's algorithms are
// taken ("Ed" over the bytes, "ED" over their BLAKE2b digest). *verdict is set in any case, key_id
// to "" when the signature is malformed. 0 when it is good, else what the verdict says, *err set.
BASE_NODISCARD int package_verify_signature(const void *manifest, size_t manifest_bytes,
                                            const void *signature, size_t signature_bytes,
                                            const struct package_trust *trust,
                                            char key_id[PACKAGE_KEY_ID_CHARS],
                                            enum package_signature *verdict, struct error *err);
// Whose signature it says it is, unchecked. 0 or -EBADMSG.
BASE_NODISCARD int package_signature_key_id(const void *signature, size_t signature_bytes,
                                            char key_id[PACKAGE_KEY_ID_CHARS], struct error *err);

// A key to sign with; its memory is locked where that is allowed, and wiped at the end.
struct package_key;

BASE_NODISCARD int package_key_generate(struct package_key **out, struct error *err);
// From the text of minisign's secret key file. `password` is needed when it is encrypted; NULL:
// none is known, and -EACCES says that one is needed. -EKEYREJECTED: it is wrong. -EBADMSG: no such
// file.
BASE_NODISCARD int package_key_parse(struct package_key **out, const void *bytes,
                                     size_t length_bytes, const char *password, struct error *err);
void package_key_destroy(struct package_key *key);  // NULL is ignored
void package_key_id(const struct package_key *key, char key_id[PACKAGE_KEY_ID_CHARS]);
// The texts of minisign's files, the caller's to free. A secret one is encrypted with `password`
// (scrypt, which takes 1 GiB of memory and a second or more); NULL leaves it in the clear.
BASE_NODISCARD int package_key_public_text(const struct package_key *key, char **text);
BASE_NODISCARD int package_key_secret_text(const struct package_key *key, const char *password,
                                           char **text, struct error *err);
// Signs (algorithm "ED"). `comment` is the trusted comment: signed, one line. The same key, bytes
// and comment give the same text, the caller's to free.
BASE_NODISCARD int package_sign(const struct package_key *key, const void *bytes,
                                size_t length_bytes, const char *comment, char **text,
                                struct error *err);

// ---- Archive: one file (tar) or a folder -----------------------------------------------------

struct package_archive;

struct package_member {
    const char *name;
    uint64_t bytes;
};

// Opens a package and checks its shape, not what is in it: of a tar every header and all padding
// are as package_archive_write makes them, of a folder there are regular files only; names are safe
// and differ. 0, or a negative errno with *err set (-EBADMSG: the shape is wrong).
BASE_NODISCARD int package_archive_open(struct package_archive **out, const char *path,
                                        struct error *err);
void package_archive_close(struct package_archive *archive);  // NULL is ignored
// Checks that it has what the manifest names, in that order if it is a tar, and nothing else but
// manifest and (may be missing) signature. -EBADMSG.
BASE_NODISCARD int package_archive_check(const struct package_archive *archive,
                                         const struct package_manifest *manifest,
                                         struct error *err);
// NULL when there is none of that name.
const struct package_member *package_archive_find(const struct package_archive *archive,
                                                  const char *name);
// A descriptor at the member's first byte. It is the archive's, good until the next call. -ENOENT.
BASE_NODISCARD int package_archive_seek(struct package_archive *archive, const char *name, int *fd,
                                        struct error *err);
// A whole member of up to `max_bytes`, the caller's to free. -ENOENT, -E2BIG, ...
BASE_NODISCARD int package_archive_read(struct package_archive *archive, const char *name,
                                        size_t max_bytes, void **bytes, size_t *length_bytes,
                                        struct error *err);

// What a member is written from: bytes; or, when they are NULL, the member of that name of another
// archive; or, when that is NULL, a descriptor from its position.
struct package_source {
    const char *name;
    const void *bytes;
    struct package_archive *archive;
    int fd;
    uint64_t length_bytes;
};

// Writes a tar to `fd`; the same sources give the same bytes.
BASE_NODISCARD int package_archive_write(int fd, const struct package_source *sources, size_t count,
                                         struct error *err);

// ---- Payloads --------------------------------------------------------------------------------

// Copies `bytes` bytes from one descriptor's position to the other's (-1: nowhere) and tells the
// digest of what was copied. -EBADMSG when there are fewer.
BASE_NODISCARD int package_copy(int from_fd, int to_fd, uint64_t bytes,
                                char sha256[PACKAGE_DIGEST_CHARS], struct error *err);
// The digest of bytes.
void package_digest(const void *bytes, size_t length_bytes, char sha256[PACKAGE_DIGEST_CHARS]);
// Size and digest of a file, from its beginning; its position is left at the end.
BASE_NODISCARD int package_measure(int fd, uint64_t *bytes, char sha256[PACKAGE_DIGEST_CHARS],
                                   struct error *err);

// Packs a program, as a delta if there is a base (`base_bytes` 0: none). The same input gives the
// same bytes with the same libzstd. The result is the caller's to free.
BASE_NODISCARD int package_pack_program(const void *program, size_t program_bytes, const void *base,
                                        size_t base_bytes, void **packed, size_t *packed_bytes,
                                        struct error *err);
// Unpacks a payload of the manifest, read twice from `payload_fd`'s position (a regular file or
// memfd), to `out_fd`'s. A delta needs its base, which is read from its beginning (else -1). The
// digests of payload and base are checked before anything is made of them, the program's at last:
// what came before a failure may have been written. 0;
// -EBADMSG: payload or program is not what the manifest says; -ENOENT: the base is missing or
// another; -EFBIG: program or base is larger than `max_bytes`; else what the host said. Memory: the
// base, and a window of at most twice `max_bytes` rounded up to a power of two.
BASE_NODISCARD int package_unpack_program(const struct package_manifest *manifest,
                                          const struct package_payload *payload, int payload_fd,
                                          int base_fd, int out_fd, uint64_t max_bytes,
                                          struct error *err);

// Whether the file looks like a program for this host: ELF of 64 bits for x86-64, an executable or
// a PIE with an interpreter, its segments within the file. 0, or -ENOEXEC with *err set.
BASE_NODISCARD int package_program_check(int fd, struct error *err);

#endif
