/* SPDX-License-Identifier: BSD-3-Clause */
/* What lies at an image center (docs/formats.md, "image centers"):
 *
 *   restore-points/UUID/manifest        document, signed
 *   restore-points/UUID/map             the layer's map, packed
 *   restore-points/UUID/VARIANT.index   a table of segments
 *   restore-points/UUID/VARIANT.pack    the segments, one after another
 *   restore-points/UUID/boot-profile    document-like, binary, not signed
 *   venues/ID                           document, signed: a reference
 *   refs                                document: what is here, for remotes
 *                                       that cannot be listed (HTTP)
 *
 * A segment of a restore point is the part of its *own* data within
 * [N * size, (N+1) * size) of the disk: the blocks in state data, in order,
 * one after another without gaps ("raw").  Segments without data are in no
 * table.  Its digest is the SHA-256 of raw, so that it is the same in every
 * variant with that segment size, compressed and encrypted or not.
 *
 * This header is bytes <-> structures only: no files, no network.  All
 * parsers trust nothing (fuzzed), report one error that names WHERE, and
 * set errno to EBADMSG (damage, lies), ENOTSUP (a newer version), ENOKEY (a
 * key is missing), EKEYREJECTED (wrong key, bad or untrusted signature).
 */

#ifndef ESPALIER_FORMAT_H
#define ESPALIER_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "catalog/catalog.h"
#include "store/map.h"
#include "util/name.h"

#pragma GCC visibility push(default)

#define ESP_SEGMENT_SHIFT_MIN 16u       /* 64 KiB */
#define ESP_SEGMENT_SHIFT_MAX 22u       /* 4 MiB */
#define ESP_SEGMENT_SHIFT_DEFAULT 18u   /* 256 KiB; docs/performance.md */
#define ESP_DIGEST_SIZE 32u

typedef struct { uint8_t b[ESP_DIGEST_SIZE]; } esp_digest;
extern void esp_digest_of (const void *buf, size_t len, esp_digest *out);
extern bool esp_digest_eq (const esp_digest *a, const esp_digest *b);
/* 64 hexadecimal digits. */
extern const char *esp_digest_hex (const esp_digest *d, char buf[65]);
extern bool esp_digest_parse (const char *hex, esp_digest *out);

/* --- variants --------------------------------------------------------- */
enum esp_codec { ESP_CODEC_NONE, ESP_CODEC_ZSTD };

#define ESP_KEY_NAME_MAX 64
#define ESP_SALT_SIZE 32u

/* One packing of a restore point. */
struct esp_variant {
  char id[40];                  /* "256K-zstd", "64K-none", "256K-zstd-KEY";
                                 * names its objects: [A-Za-z0-9._-] */
  unsigned shift;               /* of the segment size */
  enum esp_codec codec;
  char key[ESP_KEY_NAME_MAX + 1];       /* "": not encrypted */
  uint8_t key_check[8];         /* tells a wrong key early: HKDF of it */
  uint8_t salt[ESP_SALT_SIZE];  /* random for each pack; with a key only */
  uint64_t segments;            /* entries of the index */
  uint64_t pack_size;           /* bytes */
  uint64_t index_size;
  esp_digest index_digest;      /* of the index's bytes at the center */
};

/* Parse "256K", "256K,zstd:3", "64K,none", "1M,zstd,key=NAME" (what --variant
 * takes) into shift, codec, *LEVEL (1 to 22; 0 without zstd), key, and id;
 * the rest of *OUT is zeroed.  EINVAL, reported.
 */
extern int esp_variant_parse (const char *text, struct esp_variant *out,
                              int *level);

/* --- manifests -------------------------------------------------------- */
struct esp_manifest {
  struct esp_rp rp;             /* uuid, name, parent, size, created, blocks,
                                 * note, resources (depth, path: not) */
  uint64_t map_size;            /* bytes of the object map */
  esp_digest map_digest;        /* of its bytes */
  struct esp_variant *variants;
  size_t nvariants;
  char *pushed_by;              /* host and program, for people */
  uint64_t pushed;              /* seconds since the epoch */
};
extern void esp_manifest_clear (struct esp_manifest *m);
#define CLEANUP_MANIFEST __attribute__ ((cleanup (esp_manifest_clear)))

/* A venue as a center has it. */
struct esp_reference {
  struct esp_venue venue;       /* id, description, created, changed,
                                 * revision, disks */
  char *pushed_by;
  uint64_t pushed;
};
extern void esp_reference_clear (struct esp_reference *r);
#define CLEANUP_REFERENCE __attribute__ ((cleanup (esp_reference_clear)))

/* Signing: SIGNER NULL writes it unsigned.  The text is malloced, with a NUL
 * that *LEN does not count.  What would be refused when it is read is
 * refused here (EINVAL, EFBIG; reported).
 */
struct esp_signer;              /* center/keys.h */
struct esp_trust;
extern char *esp_manifest_format (const struct esp_manifest *m,
                                  const struct esp_signer *signer,
                                  size_t *len);
extern char *esp_reference_format (const struct esp_reference *r,
                                   const struct esp_signer *signer,
                                   size_t *len);
/* TRUST NULL: a signature is neither needed nor looked at.  UUID (ID) is what
 * was asked for: another one's manifest is EBADMSG.
 */
extern int esp_manifest_parse (const char *text, size_t len,
                               const esp_uuid *uuid,
                               const struct esp_trust *trust,
                               const char *where, struct esp_manifest *out);
extern int esp_reference_parse (const char *text, size_t len, const char *id,
                                const struct esp_trust *trust,
                                const char *where,
                                struct esp_reference *out);
#define ESP_MANIFEST_MAX (1u << 20)     /* bytes; larger ones are refused */

/* --- maps ------------------------------------------------------------- */
/* The packed form of a map: header, zstd of the states of its pages that
 * are not wholly absent.  Malloced.
 */
extern void *esp_map_pack (const struct esp_map *map, size_t *len);
/* A map in memory for a disk of SIZE bytes.  Checks itself against damage
 * only: who has a manifest calls esp_manifest_map.
 */
extern struct esp_map *esp_map_unpack (const void *buf, size_t len,
                                       uint64_t size, const char *where);
/* The object map of M: its length and digest, and what it holds, must be what
 * the manifest says.
 */
extern struct esp_map *esp_manifest_map (const struct esp_manifest *m,
                                         const void *buf, size_t len,
                                         const char *where);

/* --- indexes ---------------------------------------------------------- */
/* One segment; in the file 48 bytes, by rising number; the segments' places
 * in the pack follow each other in the same order without gaps, from 0.
 */
struct esp_segment {
  uint32_t number;
  uint32_t stored;              /* bytes in the pack */
  uint64_t offset;              /* in the pack */
  esp_digest digest;            /* of raw */
};
/* At most so many: choose larger segments beyond (2 TiB at 64 KiB). */
#define ESP_INDEX_SEGMENTS_MAX (1u << 25)
struct esp_index {
  unsigned shift;
  size_t n;
  struct esp_segment *segments;
};
extern void esp_index_clear (struct esp_index *index);
#define CLEANUP_INDEX __attribute__ ((cleanup (esp_index_clear)))

struct esp_segment_key;         /* a variant's key; center/keys.h */
/* The bytes of an index of N segments, in the clear or encrypted. */
extern uint64_t esp_index_bytes (uint64_t n, bool encrypted);
/* The bytes of an index, malloced; encrypted as a whole where KEY is not
 * NULL.
 */
extern void *esp_index_pack (const struct esp_index *index,
                             const struct esp_segment_key *key, size_t *len);
/* MAP is the layer's: the index must have exactly the segments in which it
 * has data.  VARIANT gives what it must agree with: sizes, the digest, so
 * that no other index passes, and whether KEY is needed (ENOKEY: it is, and
 * is NULL).
 */
extern int esp_index_unpack (const void *buf, size_t len,
                             const struct esp_variant *variant,
                             const struct esp_map *map,
                             const struct esp_segment_key *key,
                             const char *where, struct esp_index *out);
/* The segment NUMBER, or NULL. */
extern const struct esp_segment *esp_index_find (const struct esp_index *index,
                                                 uint32_t number);

/* How many blocks of MAP are data in segment NUMBER: raw has 4096 times as
 * many bytes.
 */
extern unsigned esp_segment_blocks (const struct esp_map *map, unsigned shift,
                                    uint32_t number);

/* --- segments --------------------------------------------------------- */
/* raw -> stored: compressed (kept as it is where that does not save 1/16:
 * each stored segment says so in its first byte), then sealed.
 *   stored = method (1 byte: 0 raw, 1 zstd) | payload                 no key
 *   stored = nonce (12) | AES-256-GCM (method | payload) | tag (16)   key
 * with the segment's number (8 bytes, little endian) as associated data.
 */
#define ESP_SEGMENT_OVERHEAD 64u        /* stored <= raw + this */

/* A context for one thread (zstd, cipher); KEY stays the caller's. */
struct esp_packer;
extern struct esp_packer *esp_packer_new (enum esp_codec codec, int level,
                                          const struct esp_segment_key *key);
extern void esp_packer_free (struct esp_packer *packer);
/* OUT has room for LEN + ESP_SEGMENT_OVERHEAD bytes, LEN is 1 to 4 MiB.
 * DIGEST is filled.
 */
extern int esp_pack_segment (struct esp_packer *packer, uint32_t number,
                             const void *raw, size_t len, void *out,
                             size_t *stored, esp_digest *digest);
/* RAW has room for LEN bytes, which the segment must have; its digest must
 * be DIGEST (NULL: is not looked at).  EBADMSG: reported unless QUIET (the
 * caller tries another source, and says more); RAW is undefined then.  (A
 * wrong key does not come so far: esp_segment_key_load refuses it.)
 */
extern int esp_unpack_segment (struct esp_packer *packer, uint32_t number,
                               const void *stored, size_t nstored, void *raw,
                               size_t len, const esp_digest *digest,
                               bool quiet, const char *where);
/* The same, and returns where the bytes are: in RAW, or in STORED where they
 * lie there as they are, so that they are not copied.  NULL for an error.
 */
extern const void *esp_unpack_segment_at (struct esp_packer *packer,
                                          uint32_t number, const void *stored,
                                          size_t nstored, void *raw,
                                          size_t len,
                                          const esp_digest *digest,
                                          bool quiet, const char *where);

/* --- boot profiles ---------------------------------------------------- */
/* The order in which boots of a tip first touch the disk, in units of
 * 64 KiB.  Units by rising mean rank.
 */
#define ESP_PROFILE_SHIFT 16u
#define ESP_PROFILE_UNITS_MAX (1u << 17)        /* 8 GiB of touches */
#define ESP_PROFILE_BYTES_MAX (32u + 12u * ESP_PROFILE_UNITS_MAX)
struct esp_profile_unit {
  uint32_t unit;                /* disk offset / 64 KiB; each once */
  uint16_t boots;               /* of the last 16: a bit each, newest lowest;
                                 * not 0, no bit beyond the boots there were */
  uint32_t rank;                /* mean of its places in those boots, * 16;
                                 * below ESP_PROFILE_UNITS_MAX * 16 */
};
struct esp_profile {
  unsigned boots;               /* merged so far; saturates at 65535 */
  size_t n;
  struct esp_profile_unit *units;
};
extern void esp_profile_clear (struct esp_profile *p);
#define CLEANUP_PROFILE __attribute__ ((cleanup (esp_profile_clear)))
/* A profile that would not be read is EINVAL, reported. */
extern void *esp_profile_pack (const struct esp_profile *p, size_t *len);
extern int esp_profile_unpack (const void *buf, size_t len,
                               uint64_t disk_size, const char *where,
                               struct esp_profile *out);

#pragma GCC visibility pop
#endif /* ESPALIER_FORMAT_H */
