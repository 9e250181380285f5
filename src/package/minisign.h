// SPDX-License-Identifier: BSD-2-Clause
// What minisign's files have in common, for the files of this room: lines, of which the one after
// the untrusted comment is base64 of a struct below.
#ifndef STRAKE_PACKAGE_MINISIGN_H
#define STRAKE_PACKAGE_MINISIGN_H

#include <sodium.h>

#include "package/package.h"

#define MINISIGN_ID_BYTES 8
#define MINISIGN_FILE_MAX_BYTES 4096u

// All members are bytes: no padding, no alignment.
struct minisign_public {
    uint8_t algorithm[2];  // "Ed"
    uint8_t id[MINISIGN_ID_BYTES];
    uint8_t key[crypto_sign_PUBLICKEYBYTES];
};

struct minisign_signature {
    uint8_t algorithm[2];  // "Ed": of the file, "ED": of its BLAKE2b digest
    uint8_t id[MINISIGN_ID_BYTES];
    uint8_t signature[crypto_sign_BYTES];
};

// The part of a secret key that a password encrypts.
struct minisign_sealed {
    uint8_t id[MINISIGN_ID_BYTES];
    uint8_t key[crypto_sign_SECRETKEYBYTES];
    uint8_t check[crypto_generichash_BYTES];  // BLAKE2b of algorithm, id and key
};

struct minisign_secret {
    uint8_t algorithm[2];  // "Ed"
    uint8_t kdf[2];        // "Sc": scrypt; 0, 0: not encrypted
    uint8_t check[2];      // "B2"
    uint8_t salt[crypto_pwhash_scryptsalsa208sha256_SALTBYTES];
    uint8_t operations[8], memory_bytes[8];  // scrypt's limits, little-endian
    struct minisign_sealed sealed;
};

// Reads a file of lines from its beginning.
struct minisign_reader {
    const char *at, *end;
};

// "PREFIXtext\n" -> text and its length; NULL when the line does not look like that. No NUL and no
// carriage return is in a line.
const char *minisign_line(struct minisign_reader *reader, const char *prefix, size_t *length);
// A line of base64 that is exactly `length` bytes.
bool minisign_line_bytes(struct minisign_reader *reader, void *bytes, size_t length);
// Base64 of `bytes`, which has room for it.
void minisign_encode(char *text, size_t capacity, const void *bytes, size_t length);

void minisign_id_format(char text[PACKAGE_KEY_ID_CHARS], const uint8_t id[MINISIGN_ID_BYTES]);

#endif
