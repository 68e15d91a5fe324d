/* SPDX-License-Identifier: BSD-3-Clause */
/* CHAP accounts of tgtd.  It knows them by their names only, for all its
 * targets: so targets share one where user and secret are the same, and the last one
 * takes it along.
 */

#include <config.h>

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "bridge-internal.h"
#include "bridge-tgt.h"
#include "util/cleanup.h"
#include "util/host.h"

/* tgtd knows an account by its name only; this is what it has of ours. */
struct account {
  struct account *next;
  char *user, *secret;
  unsigned targets;
};
static pthread_mutex_t account_lock = PTHREAD_MUTEX_INITIALIZER;
static struct account *accounts;

static struct account **
account_find_locked (const char *user)
{
  struct account **p = &accounts;

  while (*p && strcmp ((*p)->user, user) != 0)
    p = &(*p)->next;
  return p;
}

static void
account_free (struct account *a)
{
  if (a->secret)
    explicit_bzero (a->secret, strlen (a->secret));
  free (a->secret);
  free (a->user);
  free (a);
}

void
tgt_chap_forget_all (void)
{
  struct account *a;

  ESP_LOCK_SCOPE (&account_lock);
  while ((a = accounts)) {
    accounts = a->next;
    account_free (a);
  }
}

static int
account_add_locked (const char *user, const char *secret)
{
  struct account *a = calloc (1, sizeof *a);

  if (!a || !(a->user = strdup (user)) || !(a->secret = strdup (secret))) {
    esp_error ("malloc: %m");
    if (a)
      account_free (a);
    return -1;
  }
  if (tgt_ask ("new account", (struct tgt_header) { .mode = MODE_ACCOUNT,
                                            .op = OP_NEW },
           "user=%s,password=%s", user, secret) == -1) {
    account_free (a);
    return -1;
  }
  a->next = accounts;
  accounts = a;
  return 0;
}

/* One target less has USER; the last one takes the account along. */
static void
account_put_locked (const char *user)
{
  struct account **p = account_find_locked (user), *a = *p;

  if (!a || --a->targets)
    return;
  tgt_ask ("remove an account", (struct tgt_header) {
      .mode = MODE_ACCOUNT, .op = OP_DELETE }, "user=%s", user);
  *p = a->next;
  account_free (a);
}

int
tgt_chap (int tid, const char *user, const char *secret)
{
  ESP_LOCK_SCOPE (&account_lock);
  struct account *a;

  if (!*user || strchr (user, ',') || !*secret) {
    esp_error ("CHAP: a user has a name without a comma, and a secret");
    errno = EINVAL;
    return -1;
  }
  a = *account_find_locked (user);
  if (a && strcmp (a->secret, secret) != 0) {
    esp_error ("CHAP: another client that is running has the user \"%s\" with "
               "another secret: give each client a user of its own", user);
    errno = EEXIST;
    return -1;
  }
  if (!a && account_add_locked (user, secret) == -1)
    return -1;
  (*account_find_locked (user))->targets++;
  if (tgt_ask ("bind an account", (struct tgt_header) {
        .mode = MODE_ACCOUNT, .op = OP_BIND, .tid = tid },
      "user=%s", user) == 0)
    return 0;
  account_put_locked (user);
  return -1;
}

void
tgt_chap_forget (const char *user)
{
  ESP_LOCK_SCOPE (&account_lock);
  account_put_locked (user);
}
