/* SPDX-License-Identifier: BSD-3-Clause */
/* Asking the cluster for a segment.
 *
 * One question in the good case, and for a miss that comes behind another
 * one; the data is received right into the caller's memory and opened there.
 * Where there are more parts, all their questions are sent before the first
 * answer is taken.
 */

#include <config.h>

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cache/cluster-internal.h"
#include "cache/cluster-put.h"

struct ask {
  struct esp_cluster *cluster;
  struct node *node;
  const struct esp_cache_key *key;
  uint8_t *buf;
  size_t len;
  unsigned flags;
  struct esp_shared_ticket *ticket;
};

enum opened { WHOLE, OTHER, BAD, LOST };

/* --- values -------------------------------------------------------------------- */

/* What was received: its data to BUF's AT (where most of it may lie already),
 * their length to *LEN.
 */
static enum esp_value_result
open_part (const struct ask *a, const struct esp_wire_op *op, size_t at,
           size_t *len, struct esp_value_part *part)
{
  const struct esp_sealer *sealer = a->cluster->sealer;

  if (op->rest == 0)
    return esp_value_open (sealer, a->key, op->value, op->value_len,
                           a->buf + at, a->len - at, len, part);
  enum esp_value_result r = esp_value_peek (sealer, a->key, op->value, len,
                                            part);
  if (r != ESP_VALUE_OK)
    return r;
  if (*len != op->rest)
    return ESP_VALUE_BAD;
  return esp_value_open_apart (sealer, a->key, op->value, a->buf + at, *len);
}

static void
want_at (const struct ask *a, struct esp_wire_op *op, size_t at)
{
  op->head_len = ESP_VALUE_HEAD;
  op->into = a->buf + at;
  op->room = a->len - at;
}

/* Part I of the value whose head is HEAD; *DONE bytes came before. */
static enum opened
open_next (const struct ask *a, const struct esp_wire_op *op, unsigned i,
           const struct esp_value_part *head, size_t *done)
{
  struct esp_value_part part;
  size_t n;

  if (open_part (a, op, *done, &n, &part) != ESP_VALUE_OK)
    return BAD;
  if (part.length != head->length || part.parts != head->parts ||
      part.put != head->put || part.part != i || n == 0)
    return BAD;
  *done += n;
  return WHOLE;
}

/* All parts but the first.  *R: the last result. */
static enum opened
open_rest (const struct ask *a, struct esp_wire *wire,
           const struct esp_value_part *head, size_t done,
           enum esp_wire_result *r)
{
  char text[PART_KEY_TEXT];
  struct esp_wire_op op = { .verb = ESP_WIRE_GET, .key = text };

  for (unsigned i = 1; i < head->parts && *r == ESP_WIRE_OK; ++i) {
    part_key_text (a->cluster, a->key, head->put, i, text);
    *r = esp_wire_send (wire, &op);
  }
  enum opened o = *r == ESP_WIRE_OK ? WHOLE : LOST;
  for (unsigned i = 1; i < head->parts && node_sound (*r); ++i) {
    part_key_text (a->cluster, a->key, head->put, i, text);
    want_at (a, &op, done);
    *r = esp_wire_recv (wire, &op);
    if (*r != ESP_WIRE_OK)
      o = o == BAD ? BAD : LOST;        /* all answers must be taken */
    else if (o == WHOLE)
      o = open_next (a, &op, i, head, &done);
  }
  return o == WHOLE && done != a->len ? BAD : o;
}

static enum opened
open_value (const struct ask *a, const struct esp_wire_op *op,
            struct esp_wire *wire, enum esp_wire_result *r)
{
  struct esp_value_part head;
  size_t n;

  switch (open_part (a, op, 0, &n, &head)) {
  case ESP_VALUE_OTHER: return OTHER;
  case ESP_VALUE_BAD: return BAD;
  case ESP_VALUE_OK: break;
  }
  if (head.length != a->len || head.part != 0 || head.parts == 0 ||
      head.parts > PARTS_MAX)
    return BAD;
  if (head.parts == 1)
    return n == a->len ? WHOLE : BAD;
  return open_rest (a, wire, &head, n, r);
}

/* --- misses -------------------------------------------------------------------- */

static enum esp_shared_answer
busy (const struct ask *a)
{
  struct esp_shared_ticket *t = a->ticket;
  uint64_t now = mono_ms ();

  if (!t->waited_since) {
    t->waited_since = now;
    COUNT (a->cluster->waits, 1);
  }
  if (now - t->waited_since >= a->cluster->wait_ms) {
    SET_TO (a->node->no_wait_until, now + NODE_NO_WAIT_MS);
    COUNT (a->cluster->takeovers, 1);
    return ESP_SHARED_MISS;
  }
  if (now < COUNTED (a->node->no_wait_until))
    return ESP_SHARED_MISS;
  t->again_ms = UINT64_C (2) << (t->tries < 4 ? t->tries : 4);
  t->tries++;
  return ESP_SHARED_BUSY;
}

/* Nothing is there (CAS 0), or what is of no use. */
static enum esp_shared_answer
take_lease (const struct ask *a, uint64_t cas)
{
  enum esp_wire_result r;

  if (a->flags & ESP_SHARED_LOOK || node_is_full (a->node, mono_ms ()))
    return ESP_SHARED_MISS;
  r = lease_take (a->node, a->key, cas, a->ticket);
  if (r == ESP_WIRE_OK && a->ticket->tries)
    COUNT (a->cluster->takeovers, 1);
  return r == ESP_WIRE_KEPT_OUT ? busy (a) : ESP_SHARED_MISS;
}

/* Nobody waits for a value that he could not open. */
static enum esp_shared_answer
on_lease (const struct ask *a, const struct lease_item *item)
{
  if (a->flags & ESP_SHARED_LOOK || item->kind == LEASE_WRITER ||
      item->id == a->ticket->lease ||
      item->sealer != esp_sealer_id (a->cluster->sealer))
    return ESP_SHARED_MISS;
  return busy (a);
}

static enum esp_shared_answer
on_opened (const struct ask *a, enum opened o, uint64_t cas)
{
  switch (o) {
  case WHOLE:
    node_honest (a->node);
    a->ticket->from = ESP_FROM_CLUSTER;
    a->ticket->node = a->node->id;
    return ESP_SHARED_HIT;
  case BAD:
    node_lied (a->node);
    /* fall through */
  case LOST:                    /* a part: the head alone is of no use */
  case OTHER:                   /* nor is what another secret sealed */
    break;
  }
  return a->node->good ? take_lease (a, cas) : ESP_SHARED_MISS;
}

/* Of a node that had nothing when it was asked last a lease is asked for at once:
 * one question for a miss, not two.  True: *ANSWER is the answer.
 */
static bool
lease_first (const struct ask *a, bool *failed, enum esp_shared_answer *answer)
{
  if (!COUNTED (a->node->cold) || a->key->kind != ESP_CACHE_RP ||
      a->ticket->tries || a->flags & ESP_SHARED_LOOK ||
      node_is_full (a->node, mono_ms ()))
    return false;
  enum esp_wire_result r = lease_take (a->node, a->key, 0, a->ticket);
  if (r == ESP_WIRE_KEPT_OUT)
    return false;
  *failed = !node_sound (r);
  *answer = ESP_SHARED_MISS;
  return true;
}

/* *FAILED: the node did not answer. */
static enum esp_shared_answer
ask_node (const struct ask *a, bool *failed)
{
  char text[NODE_KEY_TEXT];
  struct esp_wire_op op = {
    .verb = ESP_WIRE_GET, .key = node_key_text (a->cluster, a->key, text)
  };
  struct esp_wire *wire;
  enum esp_wire_result r;
  struct lease_item item;
  enum esp_shared_answer answer;
  enum opened o;

  if (lease_first (a, failed, &answer))
    return answer;
  want_at (a, &op, 0);
  r = node_do_held (a->node, &op, &wire);
  SET_TO (a->node->cold, r == ESP_WIRE_ABSENT);
  if (r == ESP_WIRE_OK && !lease_decode (op.value, op.value_len, &item)) {
    o = open_value (a, &op, wire, &r);
    node_done (a->node, wire, r);
    node_failed (a->node, r);
    *failed = !node_sound (r);
    return on_opened (a, o, op.cas);
  }
  node_done (a->node, wire, r);
  *failed = !node_sound (r);
  if (r == ESP_WIRE_OK)
    return on_lease (a, &item);
  return r == ESP_WIRE_ABSENT ? take_lease (a, 0) : ESP_SHARED_MISS;
}

static void
end_wait (struct esp_cluster *cluster, struct esp_shared_ticket *ticket)
{
  if (ticket->waited_since)
    COUNT (cluster->waited_us, (mono_ms () - ticket->waited_since) * 1000);
  ticket->waited_since = 0;
  ticket->tries = 0;
}

static void
count (const struct ask *a, enum esp_shared_answer answer)
{
  if (answer == ESP_SHARED_BUSY)
    return;
  end_wait (a->cluster, a->ticket);
  if (answer == ESP_SHARED_HIT) {
    COUNT (a->cluster->hits, 1);
    COUNT (a->cluster->bytes_read, a->len);
    COUNT (a->node->hits, 1);
    return;
  }
  COUNT (a->cluster->misses, 1);
  if (a->node)
    COUNT (a->node->misses, 1);
}

enum esp_shared_answer
esp_cluster_get (struct esp_cluster *cluster, const struct esp_cache_key *key,
                 void *buf, size_t len, unsigned flags,
                 struct esp_shared_ticket *ticket)
{
  CLEANUP_LIST struct list *list = list_current (cluster);
  struct ask a = {
    .cluster = cluster, .key = key, .buf = buf, .len = len, .flags = flags,
    .ticket = ticket,
  };
  enum esp_shared_answer answer = ESP_SHARED_MISS;
  bool clear = flags & ESP_SHARED_SECRET &&
    !esp_sealer_secret (cluster->sealer);

  if (!clear && len > 0 && len <= PUT_MAX)
    /* Each turn leaves a node out. */
    for (size_t i = 0; i < list->n; ++i) {
      bool failed = false;
      a.node = list_pick (list, key);
      if (!a.node)
        break;
      answer = ask_node (&a, &failed);
      if (!failed || key->kind != ESP_CACHE_RP)
        break;
    }
  count (&a, answer);
  return answer;
}

void
esp_cluster_lied (struct esp_cluster *cluster,
                  const struct esp_cache_key *key,
                  struct esp_shared_ticket *ticket)
{
  CLEANUP_LIST struct list *list = list_current (cluster);
  struct node *node = list_find (list, ticket->node);
  char text[NODE_KEY_TEXT];
  struct esp_wire_op op = {
    .verb = ESP_WIRE_GET, .key = node_key_text (cluster, key, text)
  };
  struct esp_wire *wire;
  struct lease_item item;

  if (!node)
    return;
  node_lied (node);
  enum esp_wire_result r = node_do_held (node, &op, &wire);
  bool lease = r == ESP_WIRE_OK &&
    lease_decode (op.value, op.value_len, &item);
  node_done (node, wire, r);
  if (r == ESP_WIRE_ABSENT || (r == ESP_WIRE_OK && !lease))
    /* Without a lease the caller fetches and does not put. */
    (void) lease_take (node, key, r == ESP_WIRE_OK ? op.cas : 0, ticket);
}
