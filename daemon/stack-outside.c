/* SPDX-License-Identifier: BSD-3-Clause */
/* An NBD server that is not ours: does it answer? */

#include <config.h>

#include <errno.h>
#include <libnbd.h>
#include <stdio.h>
#include <string.h>

#include "stack-internal.h"
#include "util/cleanup.h"
#include "util/clock.h"

ESP_DEFINE_CLEANUP (nbd, struct nbd_handle *, nbd_close)

static int
say (char *why, size_t size)
{
  const char *error = nbd_get_error ();

  snprintf (why, size, "%s", error ? error : "no answer");
  return -1;
}

/* Until the options are being talked about. */
static int
negotiate (struct nbd_handle *nbd, int timeout, char *why, size_t size)
{
  uint64_t end = esp_now_us () + (uint64_t) timeout * 1000;

  while (nbd_aio_is_connecting (nbd) == 1) {
    uint64_t now = esp_now_us ();
    if (now >= end) {
      snprintf (why, size, "no answer within %d s", timeout / 1000);
      return -1;
    }
    if (nbd_poll (nbd, (int) ((end - now) / 1000) + 1) == -1)
      return say (why, size);
  }
  return nbd_aio_is_negotiating (nbd) == 1 ? 0 : say (why, size);
}

int
stack_ask (const char *uri, int timeout, char *why, size_t size)
{
  ESP_CLEANUP (nbd) struct nbd_handle *nbd = nbd_create ();

  if (!nbd || nbd_set_opt_mode (nbd, true) == -1 ||
      nbd_set_uri_allow_local_file (nbd, true) == -1 ||
      nbd_aio_connect_uri (nbd, uri) == -1)
    return say (why, size);
  if (negotiate (nbd, timeout, why, size) == -1)
    return -1;
  /* A good end; what it answers does not matter. */
  nbd_aio_opt_abort (nbd);
  nbd_poll (nbd, 100);
  return 0;
}
