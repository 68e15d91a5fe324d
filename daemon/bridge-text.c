/* SPDX-License-Identifier: BSD-3-Clause */
/* The bridge's names, and what tgtd answers: no I/O, for tests and fuzzing. */

#include <config.h>

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bridge-internal.h"

#define PREFIX "iqn.2026-11.org.espalier"
#define PART_MAX 80             /* bytes of a venue's or client's name */

/* Append NAME as a part of an IQN: what it may not have becomes one '-'. */
static char *
iqn_part (char *p, const char *name)
{
  char *start = p;

  for (; *name && p - start < PART_MAX; name++) {
    unsigned char c = (unsigned char) *name;

    if (c < 0x80 && (isalnum (c) || c == '.'))
      *p++ = (char) tolower (c);
    else if (p > start && p[-1] != '-')
      *p++ = '-';
  }
  while (p > start && p[-1] == '-')
    p--;
  if (p == start)
    *p++ = 'x';
  return p;
}

void
bridge_iqn (const char *venue, const char *client, uint64_t nonce,
            char iqn[224])
{
  char *p = stpcpy (iqn, PREFIX ":");

  p = iqn_part (p, venue);
  *p++ = ':';
  p = iqn_part (p, client);
  sprintf (p, ":%016" PRIx64, nonce);
}

/* The number behind LABEL at the beginning of LINE, which is a whole line. */
static bool
number_line (const char *line, const char *label, uint64_t *n)
{
  size_t len = strlen (label);
  char *end;

  line += strspn (line, " ");
  if (strncmp (line, label, len) != 0 || !isdigit ((unsigned char) line[len]))
    return false;
  errno = 0;
  *n = strtoull (line + len, &end, 10);
  return errno == 0 && (*end == '\n' || *end == '\0');
}

size_t
bridge_conns_parse (const char *text, struct bridge_conn *out, size_t max)
{
  uint64_t session = 0, n;
  bool have = false;
  size_t count = 0;

  for (const char *end; text; text = end ? end + 1 : NULL) {
    end = strchr (text, '\n');
    if (number_line (text, "Session: ", &n)) {
      session = n;
      have = true;
    }
    else if (have && number_line (text, "Connection: ", &n)
             && n <= UINT32_MAX) {
      if (count < max)
        out[count] = (struct bridge_conn) { session, (uint32_t) n };
      count++;
      have = false;
    }
  }
  return count;
}
