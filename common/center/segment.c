/* SPDX-License-Identifier: BSD-3-Clause */
/* Segments: raw bytes, as they are stored in a pack (docs/formats.md,
 * "segments").
 *
 * The way back is what clients wait for, and copies nothing that need not be
 * copied: a segment that is neither compressed nor encrypted is one memcpy;
 * one that is only encrypted is decrypted into the caller's buffer; one that
 * is both is decrypted into a buffer of the packer, and decompressed from
 * there.  Nothing is decompressed that was not authenticated.  What a frame
 * says about its own size is not asked: the output is as long as the caller
 * says, and must be filled.
 *
 * libzstd's contexts are made when they are first needed, and kept.
 */

#include <config.h>

#include <string.h>
#include <zstd.h>

#include "center/cleanups.h"
#include "center/format-internal.h"
#include "util/endian.h"

#define RAW_MAX ((size_t) 1 << ESP_SEGMENT_SHIFT_MAX)

enum method { METHOD_RAW, METHOD_ZSTD };

struct esp_packer {
  enum esp_codec codec;
  int level;
  EVP_CIPHER_CTX *seal, *open;  /* NULL: not encrypted */
  ZSTD_CCtx *cctx;
  ZSTD_DCtx *dctx;
  uint8_t *buf;                 /* decrypted, still compressed */
  size_t buf_len;
};

void
esp_packer_free (struct esp_packer *p)
{
  if (!p)
    return;
  EVP_CIPHER_CTX_free (p->seal);
  EVP_CIPHER_CTX_free (p->open);
  ZSTD_freeCCtx (p->cctx);
  ZSTD_freeDCtx (p->dctx);
  free (p->buf);
  free (p);
}

struct esp_packer *
esp_packer_new (enum esp_codec codec, int level,
                const struct esp_segment_key *key)
{
  ESP_CLEANUP (packer) struct esp_packer *p = calloc (1, sizeof *p);

  if (p) {
    p->codec = codec;
    p->level = level;
  }
  if (!p || (key && (!(p->seal = aead_new (key->aes, true)) ||
                     !(p->open = aead_new (key->aes, false))))) {
    format_no_memory ("segments");
    return NULL;
  }
  return ESP_STEAL (p);
}

/* --- packing ----------------------------------------------------------- */

static bool
make_cctx (struct esp_packer *p)
{
  if (p->cctx)
    return true;
  p->cctx = ZSTD_createCCtx ();
  return p->cctx &&
    !ZSTD_isError (ZSTD_CCtx_setParameter (p->cctx, ZSTD_c_compressionLevel,
                                           p->level));
}

/* Compress RAW to OUT; 0 where it does not save 1/16. */
static size_t
compress (struct esp_packer *p, const void *raw, size_t len, uint8_t *out)
{
  size_t n;

  if (len < 16)
    return 0;
  n = ZSTD_compress2 (p->cctx, out, len - len / 16, raw, len);
  return ZSTD_isError (n) ? 0 : n;
}

int
esp_pack_segment (struct esp_packer *p, uint32_t number, const void *raw,
                  size_t len, void *out, size_t *stored, esp_digest *digest)
{
  uint8_t *text = (uint8_t *) out + (p->seal ? AEAD_NONCE : 0), aad[8];
  size_t n = 0;

  if (len == 0 || len > RAW_MAX) {
    errno = EINVAL;
    esp_error ("segment %u: %zu bytes: %m", number, len);
    return -1;
  }
  if (p->codec == ESP_CODEC_ZSTD) {
    if (!make_cctx (p))
      return format_no_memory ("segments");
    n = compress (p, raw, len, text + 1);
  }
  text[0] = n ? METHOD_ZSTD : METHOD_RAW;
  if (n == 0)
    memcpy (text + 1, raw, n = len);
  *stored = n + 1;
  esp_digest_of (raw, len, digest);
  if (!p->seal)
    return 0;
  *stored += AEAD_OVERHEAD;
  esp_put64 (aad, number);
  if (aead_seal (p->seal, aad, sizeof aad, text, n + 1, out) == 0)
    return 0;
  esp_error ("segment %u: encryption: %m", number);
  return -1;
}

/* --- unpacking: each returns NULL, or what is wrong -------------------- */

static const char *const wrong_length = "it has a wrong length";
static const char *const no_memory = "no memory";

static const char *
decompress (struct esp_packer *p, const uint8_t *in, size_t n, void *raw,
            size_t len)
{
  if (!p->dctx && !(p->dctx = ZSTD_createDCtx ()))
    return no_memory;
  return ZSTD_decompressDCtx (p->dctx, raw, len, in, n) == len ? NULL
    : "it cannot be decompressed";
}

/* The bytes are in RAW, or, where they are stored as they are, in IN: *AT. */
static const char *
unpack_plain (struct esp_packer *p, const uint8_t *in, size_t n, void *raw,
              size_t len, const void **at)
{
  if (n < 2)
    return wrong_length;
  if (in[0] == METHOD_ZSTD)
    return decompress (p, in + 1, n - 1, raw, len);
  if (in[0] != METHOD_RAW)
    return "its method is unknown";
  if (n - 1 != len)
    return wrong_length;
  *at = in + 1;
  return NULL;
}

static bool
make_buf (struct esp_packer *p, size_t len)
{
  if (p->buf_len < len) {
    free (p->buf);
    p->buf = malloc (len);
    p->buf_len = p->buf ? len : 0;
  }
  return p->buf != NULL;
}

static const char *
unpack_sealed (struct esp_packer *p, uint32_t number, const uint8_t *in,
               size_t n, void *raw, size_t len)
{
  size_t payload = n - AEAD_OVERHEAD - 1;
  uint8_t method, aad[8], *to = raw;

  if (n < AEAD_OVERHEAD + 2)
    return wrong_length;
  /* Raw segments have exactly this length; compressed ones are shorter. */
  if (payload != len) {
    if (!make_buf (p, payload))
      return no_memory;
    to = p->buf;
  }
  esp_put64 (aad, number);
  if (!aead_open (p->open, aad, sizeof aad, in, n, &method, 1, to))
    return "it was not encrypted with this variant's key, or was changed";
  if (method == METHOD_ZSTD && to != raw)
    return decompress (p, to, payload, raw, len);
  return method == METHOD_RAW && to == raw ? NULL : wrong_length;
}

const void *
esp_unpack_segment_at (struct esp_packer *p, uint32_t number,
                       const void *stored, size_t nstored, void *raw,
                       size_t len, const esp_digest *digest, bool quiet,
                       const char *where)
{
  const char *why = wrong_length;
  const void *at = raw;
  esp_digest found;

  if (len <= RAW_MAX && nstored <= len + ESP_SEGMENT_OVERHEAD)
    why = p->open ? unpack_sealed (p, number, stored, nstored, raw, len)
      : unpack_plain (p, stored, nstored, raw, len, &at);
  if (!why && digest) {
    esp_digest_of (at, len, &found);
    if (!esp_digest_eq (digest, &found))
      why = "its bytes are not those that the index names";
  }
  if (!why)
    return at;
  errno = why == no_memory ? ENOMEM : EBADMSG;
  if (!quiet)
    esp_error ("%s: segment %u is damaged: %s", where, number, why);
  return NULL;
}

int
esp_unpack_segment (struct esp_packer *p, uint32_t number,
                    const void *stored, size_t nstored, void *raw,
                    size_t len, const esp_digest *digest, bool quiet,
                    const char *where)
{
  const void *at = esp_unpack_segment_at (p, number, stored, nstored, raw,
                                          len, digest, quiet, where);

  if (!at)
    return -1;
  if (at != raw)
    memcpy (raw, at, len);
  return 0;
}
