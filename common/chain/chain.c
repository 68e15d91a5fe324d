/* SPDX-License-Identifier: BSD-3-Clause */
/* Chain maps: open, check, close.  find.c has the look-ups, build.c makes
 * the files; docs/chain-map.md is the page of the design.
 *
 * The header, the owners and the table of checksums are read and checked
 * when the chain is opened; they are a few KiB.  The body is mapped, and
 * each of its chunks of 64 KiB is checked when it is first touched: a byte
 * for each says so.  The bytes are atomic and relaxed: what they guard never
 * changes, and two threads that check a chunk at once find the same.  A
 * chunk whose checksum is that of zeroes is a hole, and answers without
 * being read.
 *
 * A right checksum does not make a number right: every sub-table's number
 * and every owner is compared with its bound before it is used.
 *
 * The file may be cut short, or its disk fail, at any time: all reads of
 * the mapping stand within esp_guard_call.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "chain/chainpriv.h"
#include "util/cleanup.h"
#include "util/file.h"
#include "util/guard.h"
#include "util/host.h"
#include "util/sum.h"

ESP_DEFINE_CLEANUP (chain, struct esp_chain *, esp_chain_close)

static uint64_t
round_up (uint64_t n, uint64_t unit)
{
  return (n + unit - 1) / unit * unit;
}

void
chain_layout (struct chain_layout *l, uint64_t size, unsigned depth,
              uint64_t nsubs)
{
  l->size = size;
  l->depth = depth;
  l->nsubs = nsubs;
  l->ntiles = esp_tiles (size);
  l->table_chunks = round_up (l->ntiles * 4, CHAIN_CHUNK) / CHAIN_CHUNK;
  l->body_at = round_up (CHAIN_HEAD + depth * UINT64_C (16), 4096);
  l->body_len = l->table_chunks * CHAIN_CHUNK + nsubs * CHAIN_SUB_BYTES;
  l->nchunks = round_up (l->body_len, CHAIN_CHUNK) / CHAIN_CHUNK;
  l->sums_at = l->body_at + l->body_len;
  l->file_len = l->sums_at + l->nchunks * 8;
}

/* --- opening ---------------------------------------------------------- */

static int
damaged (const char *name, const char *what)
{
  errno = EBADMSG;
  esp_error ("%s: the chain map is damaged: %s: run 'espalier store check "
             "--repair'", name, what);
  return -1;
}

static bool
layout_matches (const struct chain_layout *l, const uint8_t *h)
{
  return esp_get64 (h + C_NTILES) == l->ntiles &&
    esp_get64 (h + C_OWNERS_AT) == CHAIN_HEAD &&
    esp_get64 (h + C_OWNERS_LEN) == l->depth * UINT64_C (16) &&
    esp_get64 (h + C_SUMS_AT) == l->sums_at &&
    esp_get64 (h + C_SUMS_LEN) == l->nchunks * 8 &&
    esp_get64 (h + C_BODY_AT) == l->body_at &&
    esp_get64 (h + C_BODY_LEN) == l->body_len;
}

static int
parse_header (struct esp_chain *chain, const uint8_t *h, const char *name)
{
  uint64_t size = esp_get64 (h + C_SIZE), nsubs = esp_get64 (h + C_NSUBS);
  uint32_t depth = esp_get32 (h + C_DEPTH);

  if (memcmp (h + C_MAGIC, CHAIN_MAGIC, 8) != 0)
    return damaged (name, "this is no chain map");
  if (esp_get64 (h + C_SUM) != esp_sum (h, C_SUM))
    return damaged (name, "the header's checksum is wrong");
  if (esp_get32 (h + C_VERSION) != ESP_CHAIN_VERSION) {
    errno = ENOTSUP;
    esp_error ("%s: the chain map has version %u, which this Espalier does "
               "not know: use a newer one", name, esp_get32 (h + C_VERSION));
    return -1;
  }
  if (esp_get32 (h + C_HEAD) != CHAIN_HEAD ||
      esp_get32 (h + C_BLOCK_SHIFT) != ESP_BLOCK_SHIFT ||
      esp_get32 (h + C_TILE_SHIFT) != ESP_TILE_SHIFT ||
      esp_get32 (h + C_CHUNK_SHIFT) != CHAIN_CHUNK_SHIFT ||
      size > ESP_DISK_MAX || depth < 1 || depth > ESP_CHAIN_DEPTH_MAX ||
      nsubs > esp_tiles (size))
    return damaged (name, "the header makes no sense");
  chain_layout (&chain->l, size, depth, nsubs);
  if (!layout_matches (&chain->l, h))
    return damaged (name, "the header makes no sense");
  return 0;
}

static int
read_part (int fd, const char *name, void *buf, uint64_t len, uint64_t at)
{
  if (esp_pread_all (fd, buf, len, at) == -1) {
    esp_error ("read: %s: %m", name);
    return -1;
  }
  return 0;
}

static int
check_length (const struct esp_chain *chain, int fd, const char *name)
{
  struct stat st;

  if (fstat (fd, &st) == -1) {
    esp_error ("stat: %s: %m", name);
    return -1;
  }
  if ((uint64_t) st.st_size < chain->l.file_len) {
    errno = EIO;
    esp_error ("%s: the chain map was cut short: it has %jd of %ju bytes: run "
               "'espalier store check --repair'", name, (intmax_t) st.st_size, (uintmax_t) chain->l.file_len);
    return -1;
  }
  if ((uint64_t) st.st_size > chain->l.file_len)
    return damaged (name, "it is too long");
  return 0;
}

/* Read owners and checksums; H is the header. */
static int
load_tables (struct esp_chain *chain, int fd, const char *name,
             const uint8_t *h)
{
  const struct chain_layout *l = &chain->l;

  chain->owners = malloc (l->depth * sizeof (esp_uuid));
  chain->sums = malloc (l->nchunks * 8 + 1);
  chain->chunks = calloc (l->nchunks + 1, 1);
  if (!chain->owners || !chain->sums || !chain->chunks) {
    esp_error ("chain: out of memory: %m");
    return -1;
  }
  if (read_part (fd, name, chain->owners, l->depth * 16, CHAIN_HEAD) == -1 ||
      read_part (fd, name, chain->sums, l->nchunks * 8, l->sums_at) == -1)
    return -1;
  if (esp_sum (chain->owners, l->depth * 16) != esp_get64 (h + C_OWNERS_SUM))
    return damaged (name, "the owners' checksum is wrong");
  if (esp_sum (chain->sums, l->nchunks * 8) != esp_get64 (h + C_SUMS_SUM))
    return damaged (name, "the checksums' checksum is wrong");
  for (uint64_t i = 0; i < l->nchunks; ++i)
    chain->sums[i] = esp_get64 (&chain->sums[i]);
  return 0;
}

static int
open_file (struct esp_chain *chain, int fd, const char *name)
{
  uint8_t h[CHAIN_HEAD];

  if (read_part (fd, name, h, sizeof h, 0) == -1 ||
      parse_header (chain, h, name) == -1 ||
      check_length (chain, fd, name) == -1 ||
      load_tables (chain, fd, name, h) == -1)
    return -1;

  /* Chain maps are small against layers: they do not take from the address
   * space that esp_guard_reserve shares out.
   */
  void *p = mmap (NULL, chain->l.file_len, PROT_READ, MAP_SHARED, fd, 0);
  if (p == MAP_FAILED) {
    esp_error ("mmap: %s: %m", name);
    return -1;
  }
  chain->map = p;
  return 0;
}

struct esp_chain *
esp_chain_open (int dirfd, const char *name)
{
  if (esp_guard_init () == -1) {
    esp_error ("sigaction: %m");
    return NULL;
  }
  CLEANUP_CLOSE int fd = openat (dirfd, name,
                                 O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
  if (fd == -1) {
    esp_error ("open: %s: %m", name);
    return NULL;
  }
  ESP_CLEANUP (chain) struct esp_chain *chain = calloc (1, sizeof *chain);
  if (!chain) {
    esp_error ("chain: out of memory: %m");
    return NULL;
  }
  if (open_file (chain, fd, name) == -1)
    return NULL;
  return ESP_STEAL (chain);
}

void
esp_chain_close (struct esp_chain *chain)
{
  if (!chain)
    return;
  if (chain->map)
    munmap ((void *) chain->map, chain->l.file_len);
  free (chain->owners);
  free (chain->sums);
  free ((void *) chain->chunks);
  free (chain);
}

/* --- what it is ------------------------------------------------------- */

uint64_t
esp_chain_size (const struct esp_chain *chain)
{
  return chain->l.size;
}

unsigned
esp_chain_depth (const struct esp_chain *chain)
{
  return chain->l.depth;
}

const esp_uuid *
esp_chain_owner (const struct esp_chain *chain, unsigned owner)
{
  assert (owner >= 1 && owner <= chain->l.depth);
  return &chain->owners[owner - 1];
}

unsigned
esp_chain_find_owner (const struct esp_chain *chain, const esp_uuid *uuid)
{
  /* From the tip: what is asked for is mostly young. */
  for (unsigned i = chain->l.depth; i > 0; --i)
    if (memcmp (&chain->owners[i - 1], uuid, sizeof *uuid) == 0)
      return i;
  return 0;
}

uint64_t
esp_chain_bytes (const struct esp_chain *chain)
{
  return chain->l.file_len;
}

uint64_t
esp_chain_subtables (const struct esp_chain *chain)
{
  return chain->l.nsubs;
}

/* --- chunks ----------------------------------------------------------- */

int
chain_fail (struct esp_chain *chain)
{
  int saved = errno;

  if (!atomic_exchange (&chain->reported, true)) {
    char tip[ESP_UUID_TEXT];

    errno = saved;
    esp_error ("restore point %s: its chain map %s: run "
               "'espalier store check --repair'",
               esp_uuid_text (esp_chain_owner (chain, chain->l.depth), tip),
               saved == EBADMSG ? "is damaged" :
               saved == EIO ? "was cut short or cannot be read" :
               "cannot be used");
  }
  errno = saved;
  return -1;
}

static uint64_t
chunk_len (const struct chain_layout *l, uint64_t i)
{
  uint64_t at = i << CHAIN_CHUNK_SHIFT;

  return l->body_len - at < CHAIN_CHUNK ? l->body_len - at : CHAIN_CHUNK;
}

/* The checksum of LEN zeroes, LEN <= CHAIN_CHUNK; no state of ours, so that
 * it can be called anywhere.
 */
static bool
is_sum_of_zeroes (uint64_t sum, uint64_t len)
{
  static uint8_t zeroes[CHAIN_CHUNK];   /* not const: in .bss */
  static _Atomic uint64_t whole;
  uint64_t w;

  if (len != CHAIN_CHUNK)
    return sum == esp_sum (zeroes, len);
  w = atomic_load_explicit (&whole, memory_order_relaxed);
  if (w == 0) {
    w = esp_sum (zeroes, len);
    atomic_store_explicit (&whole, w, memory_order_relaxed);
  }
  return sum == w;
}

int
chain_chunk (struct esp_chain *chain, uint64_t i)
{
  int state = atomic_load_explicit (&chain->chunks[i], memory_order_relaxed);

  if (__builtin_expect (state != CHUNK_UNKNOWN, 1))
    return state;

  uint64_t len = chunk_len (&chain->l, i);
  const uint8_t *p =
    chain->map + chain->l.body_at + (i << CHAIN_CHUNK_SHIFT);
  if (is_sum_of_zeroes (chain->sums[i], len))
    state = CHUNK_HOLE;
  else if (esp_sum (p, len) == chain->sums[i])
    state = CHUNK_GOOD;
  else {
    errno = EBADMSG;
    return -1;
  }
  atomic_store_explicit (&chain->chunks[i], state, memory_order_relaxed);
  return state;
}

struct read_args {
  struct esp_chain *chain;
  uint64_t chunk;
  unsigned offset, len;         /* within the chunk */
  uint8_t *buf;
};

static int
read_guarded (void *arg)
{
  struct read_args *a = arg;
  struct esp_chain *chain = a->chain;
  int state = chain_chunk (chain, a->chunk);

  if (state == CHUNK_GOOD)
    memcpy (a->buf, chain->map + chain->l.body_at +
            (a->chunk << CHAIN_CHUNK_SHIFT) + a->offset, a->len);
  else if (state == CHUNK_HOLE)
    memset (a->buf, 0, a->len);
  return state;
}

int
chain_read_chunk (struct esp_chain *chain, uint64_t i, uint8_t *buf,
                  enum chunk_state *state)
{
  unsigned len = chunk_len (&chain->l, i);
  struct read_args a = { .chain = chain, .chunk = i, .len = len, .buf = buf };
  int r = esp_guard_call (read_guarded, &a);

  if (r == -1)
    return -1;
  memset (buf + len, 0, CHAIN_CHUNK - len);
  *state = r;
  return 0;
}

int
chain_read_sub (struct esp_chain *chain, uint32_t number,
                uint8_t buf[CHAIN_SUB_BYTES])
{
  if (number >= chain->l.nsubs) {
    errno = EBADMSG;
    return -1;
  }
  uint64_t at = chain->l.table_chunks * CHAIN_CHUNK +
    number * (uint64_t) CHAIN_SUB_BYTES;
  struct read_args a = { .chain = chain, .chunk = at >> CHAIN_CHUNK_SHIFT,
                         .offset = at % CHAIN_CHUNK, .len = CHAIN_SUB_BYTES,
                         .buf = buf };
  return esp_guard_call (read_guarded, &a) == -1 ? -1 : 0;
}
