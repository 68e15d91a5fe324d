/* SPDX-License-Identifier: BSD-3-Clause */
/* Tickets: docs/boot.md, "Tickets", has the bytes.
 *
 * Everything that a ticket is for stands beside it in the export name or comes
 * from the peer, so it carries only times, a nonce and a MAC over all of it.
 * Base64 has several spellings of some bytes; only the one that we write
 * is a ticket, so that no ticket exists twice.
 *
 * The nonce's first half is the fraction of the second that the ticket was
 * issued in, its second half is random: so tickets of one client have an
 * order (issued, nonce) which is that of time, and two are never the same.
 *
 * Nothing is looked at before the MAC is right, and the MAC is compared in
 * constant time.  What the state knows is in ticket-state.c.
 */

#include <config.h>

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include "boot/ticket.h"
#include "center/keyfile.h"
#include "center/keys.h"
#include "store/internal.h"
#include "util/cleanup.h"
#include "util/host.h"

#define TICKET_VERSION 1
#define FLAG_BOUND 1u
#define FLAG_READONLY 2u
#define MAC 16
#define BODY 22                 /* bytes before the MAC */
#define BYTES (BODY + MAC)
#define TEXT 51                 /* in base64 without padding */
#define PADDED 52
#define SECRET 32

static const char magic[] = "espalier-ticket-1";

struct esp_ticket_key {
  uint8_t secret[SECRET];
  struct stat file;             /* before it was read */
};

/* --- the key ------------------------------------------------------------- */

struct esp_ticket_key *
esp_ticket_key_from (const uint8_t secret[SECRET])
{
  struct esp_ticket_key *key = calloc (1, sizeof *key);

  if (!key) {
    esp_error ("calloc: %m");
    return NULL;
  }
  memcpy (key->secret, secret, SECRET);
  return key;
}

void
esp_ticket_key_free (struct esp_ticket_key *key)
{
  if (!key)
    return;
  OPENSSL_cleanse (key, sizeof *key);
  free (key);
}

/* secret_load, where no key is no error to be reported. */
static int
load_quietly (struct esp_store *store, uint8_t secret[SECRET])
{
  char why[1024];
  struct esp_catch before = esp_catch_begin (why, sizeof why);
  int r = secret_load (store, ESP_TICKET_KEY, NULL, secret);

  esp_catch_end (before);
  if (r == -1 && errno != ENOKEY)
    esp_error ("%s", why);
  return r;
}

/* Somebody else may make it at the same time: then theirs is the key. */
static int
create (struct esp_store *store, uint8_t secret[SECRET])
{
  char why[1024];
  struct esp_catch before = esp_catch_begin (why, sizeof why);
  int r = esp_key_create (store, ESP_TICKET_KEY);

  esp_catch_end (before);
  if (r == -1 && errno != EEXIST) {
    esp_error ("%s", why);
    return -1;
  }
  return secret_load (store, ESP_TICKET_KEY, NULL, secret);
}

/* All zero where there is none. */
static void
stat_key (struct esp_store *store, struct stat *st)
{
  if (fstatat (store->dirs[STORE_KEYS], ESP_TICKET_KEY ".key", st, 0) == -1)
    memset (st, 0, sizeof *st);
}

bool
esp_ticket_key_changed (struct esp_store *store,
                        const struct esp_ticket_key *key)
{
  const struct stat *a = &key->file;
  struct stat b;

  stat_key (store, &b);
  return a->st_dev != b.st_dev || a->st_ino != b.st_ino ||
    a->st_size != b.st_size || a->st_mtim.tv_sec != b.st_mtim.tv_sec ||
    a->st_mtim.tv_nsec != b.st_mtim.tv_nsec ||
    a->st_ctim.tv_sec != b.st_ctim.tv_sec ||
    a->st_ctim.tv_nsec != b.st_ctim.tv_nsec;
}

struct esp_ticket_key *
esp_ticket_key_load (struct esp_store *store, bool create_it)
{
  struct esp_ticket_key *key = NULL;
  uint8_t secret[SECRET];
  struct stat file;
  int r;

  stat_key (store, &file);
  r = load_quietly (store, secret);

  if (r == -1 && errno == ENOKEY && create_it)
    r = create (store, secret);
  else if (r == -1 && errno == ENOKEY)
    esp_error ("this store has no ticket key yet: the first ticket makes one,"
               " and 'espalier key import " ESP_TICKET_KEY " FILE' takes that"
               " of the site's other servers");
  if (r == 0)
    key = esp_ticket_key_from (secret);
  if (key)
    key->file = file;           /* of one just made: it counts as changed */
  OPENSSL_cleanse (secret, sizeof secret);
  return key;
}

/* --- base64url ----------------------------------------------------------- */

static void
swap_chars (char *s, const char *from, const char *to)
{
  for (; *s; s++)
    for (int i = 0; i < 2; i++)
      if (*s == from[i]) {
        *s = to[i];
        break;
      }
}

static void
encode (const uint8_t bytes[BYTES], char text[PADDED + 1])
{
  EVP_EncodeBlock ((uint8_t *) text, bytes, BYTES);
  text[TEXT] = 0;
  swap_chars (text, "+/", "-_");
}

/* Only what encode writes. */
static bool
decode (const char *text, uint8_t bytes[BYTES])
{
  char padded[PADDED + 1];

  if (strlen (text) != TEXT)
    return false;
  memcpy (padded, text, TEXT + 1);
  if (strpbrk (padded, "+/="))
    return false;
  swap_chars (padded, "-_", "+/");
  strcpy (padded + TEXT, "=");
  return base64_decode (padded, PADDED, bytes, BYTES);
}

/* --- bytes --------------------------------------------------------------- */

static void
put_be32 (uint8_t *p, uint32_t v)
{
  for (int i = 0; i < 4; i++)
    p[i] = (uint8_t) (v >> (24 - 8 * i));
}

static uint32_t
get_be32 (const uint8_t *p)
{
  return (uint32_t) p[0] << 24 | (uint32_t) p[1] << 16
    | (uint32_t) p[2] << 8 | p[3];
}

static void
pack (const struct esp_ticket *t, uint8_t body[BODY])
{
  body[0] = TICKET_VERSION;
  body[1] = (t->address[0] ? FLAG_BOUND : 0)
    | (t->readonly ? FLAG_READONLY : 0);
  put_be32 (body + 2, t->issued);
  put_be32 (body + 6, t->opens_until);
  put_be32 (body + 10, t->valid_until);
  memcpy (body + 14, t->nonce, sizeof t->nonce);
}

/* The MAC of BODY for what E names and ADDRESS. */
static int
get_mac (const struct esp_ticket_key *key, const uint8_t body[BODY],
         const struct esp_export *e, const char *address, uint8_t mac[MAC])
{
  uint8_t in[sizeof magic + BODY + ESP_EXPORT_MAX + 64], out[32];
  size_t at = 0, n;
  char *export = (char *) in + sizeof magic + BODY;

  memcpy (in, magic, sizeof magic);
  at += sizeof magic;
  memcpy (in + at, body, BODY);
  at += BODY;
  esp_export_format (e, export, ESP_EXPORT_MAX);
  at += strlen (export) + 1;
  n = strnlen (address, 63);
  memcpy (in + at, address, n);
  in[at + n] = 0;
  at += n + 1;
  if (!HMAC (EVP_sha256 (), key->secret, SECRET, in, at, out, NULL))
    return -1;
  memcpy (mac, out, MAC);
  OPENSSL_cleanse (out, sizeof out);
  return 0;
}

/* --- issuing ------------------------------------------------------------- */

static int
bad_issue (const struct esp_ticket *t, const char *why)
{
  char text[ESP_EXPORT_MAX];

  errno = EINVAL;
  esp_error ("ticket for %s: %s",
             esp_export_format (&t->export, text, sizeof text), why);
  return -1;
}

/* Now, in seconds and 2^-32 of one: later than all that this process was told
 * before, also where the clock was set back a little; where it was set back
 * more, older tickets are no measure any more (ticket-state.c).
 */
static uint64_t
stamp (const struct timespec *now)
{
  static _Atomic uint64_t last;
  uint64_t s = (uint64_t) now->tv_sec << 32 |
    ((uint64_t) now->tv_nsec << 32) / 1000000000;
  uint64_t before = atomic_load (&last), next;

  do
    next = s <= before && before - s < (uint64_t) ESP_TICKET_CLOCK_MAX << 32
      ? before + 1 : s;
  while (!atomic_compare_exchange_weak (&last, &before, next));
  return next;
}

static int
set_times (struct esp_ticket *t, uint32_t opens, uint32_t valid)
{
  struct timespec now;
  uint64_t at;

  if (opens > valid)
    return bad_issue (t, "it cannot open longer than it is valid");
  if (opens > ESP_TICKET_OPENS_MAX)
    return bad_issue (t, "it can wait 31 days at most for its first use");
  clock_gettime (CLOCK_REALTIME, &now);
  if (now.tv_sec < 0 || (uint64_t) now.tv_sec + valid > UINT32_MAX)
    return bad_issue (t, "it would be valid beyond the year 2106");
  at = stamp (&now);
  t->issued = (uint32_t) (at >> 32);
  t->opens_until = t->issued + opens;
  t->valid_until = t->issued + valid;
  put_be32 (t->nonce, (uint32_t) at);
  if (RAND_bytes (t->nonce + 4, 4) == 1)
    return 0;
  errno = EIO;
  esp_error ("ticket: OpenSSL has no random bytes");
  return -1;
}

int
esp_ticket_issue (const struct esp_ticket_key *key, struct esp_ticket *t,
                  uint32_t opens, uint32_t valid, char buf[ESP_EXPORT_MAX])
{
  uint8_t bytes[BYTES];
  char text[PADDED + 1];

  if (!t->readonly && !t->export.client[0])
    return bad_issue (t, "without a client (@CLIENT) it has to be read-only");
  if (set_times (t, opens, valid) == -1)
    return -1;
  pack (t, bytes);
  if (get_mac (key, bytes, &t->export, t->address, bytes + BODY) == -1) {
    errno = EIO;
    esp_error ("ticket: OpenSSL cannot compute HMAC-SHA256");
    return -1;
  }
  encode (bytes, text);
  esp_export_format (&t->export, buf, ESP_EXPORT_MAX);
  snprintf (buf + strlen (buf), ESP_EXPORT_MAX - strlen (buf), "+%s", text);
  return 0;
}

/* --- checking ------------------------------------------------------------ */

const char *
esp_ticket_state_name (enum esp_ticket_state state)
{
  static const char *const names[] = {
    [ESP_TICKET_OK] = "ok", [ESP_TICKET_NONE] = "none",
    [ESP_TICKET_FORGED] = "forged", [ESP_TICKET_EXPIRED] = "expired",
    [ESP_TICKET_REPLAYED] = "replayed", [ESP_TICKET_CLOCK] = "clock",
  };

  return names[state];
}

/* BODY with a right MAC, which is ours: so nothing in it is hostile, but a
 * newer program may have written it.
 */
static bool
unpack (const uint8_t body[BODY], struct esp_ticket *t)
{
  if (body[0] != TICKET_VERSION || (body[1] & ~(FLAG_BOUND | FLAG_READONLY)))
    return false;
  t->readonly = body[1] & FLAG_READONLY;
  t->issued = get_be32 (body + 2);
  t->opens_until = get_be32 (body + 6);
  t->valid_until = get_be32 (body + 10);
  memcpy (t->nonce, body + 14, sizeof t->nonce);
  return t->readonly || t->export.client[0];
}

enum esp_ticket_state
esp_ticket_check (const struct esp_ticket_key *key, const struct esp_export *e,
                  const char *address, uint64_t now, struct esp_ticket *out)
{
  struct esp_ticket t = { .export = *e };
  uint8_t bytes[BYTES], mac[MAC];

  if (!e->ticket[0])
    return ESP_TICKET_NONE;
  if (!decode (e->ticket, bytes))
    return ESP_TICKET_FORGED;
  if (bytes[1] & FLAG_BOUND)
    snprintf (t.address, sizeof t.address, "%s", address);
  if (get_mac (key, bytes, e, t.address, mac) == -1 ||
      CRYPTO_memcmp (mac, bytes + BODY, MAC) != 0 || !unpack (bytes, &t))
    return ESP_TICKET_FORGED;
  if (t.issued > now && t.issued - now > ESP_TICKET_CLOCK_MAX)
    return ESP_TICKET_CLOCK;
  t.export.ticket[0] = 0;
  *out = t;
  return now > t.valid_until ? ESP_TICKET_EXPIRED : ESP_TICKET_OK;
}

int
esp_ticket_use (struct esp_store *store, const struct esp_ticket_key *key,
                const struct esp_export *e, const char *address, uint64_t now,
                enum esp_ticket_state *state)
{
  struct esp_ticket t;
  char before[64];

  *state = esp_ticket_check (key, e, address, now, &t);
  return *state == ESP_TICKET_OK
    ? esp_ticket_take (store, &t, now, state, before) : 0;
}
