/* SPDX-License-Identifier: BSD-3-Clause */
/* Credentials for S3, where other programs have them: the environment
 * (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN), then a
 * profile of the file $AWS_SHARED_CREDENTIALS_FILE or ~/.aws/credentials:
 *
 *   [PROFILE]
 *   aws_access_key_id = ...
 *   aws_secret_access_key = ...
 *   aws_session_token = ...
 *
 * They are never printed, and wiped when they are freed.
 */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "center/remote-internal.h"
#include "util/file.h"

#define FILE_MAX (1u << 20)

static void
wipe (char **s)
{
  if (*s) {
    explicit_bzero (*s, strlen (*s));
    free (*s);
    *s = NULL;
  }
}

void
esp_s3_credentials_clear (struct esp_s3_credentials *c)
{
  wipe (&c->access);
  wipe (&c->secret);
  wipe (&c->token);
}

/* getenv, but empty is not set. */
static const char *
env (const char *name)
{
  const char *s = getenv (name);

  return s && *s ? s : NULL;
}

static int
no_memory (void)
{
  esp_error ("malloc: %m");
  return -1;
}

/* 1 when the environment has them, 0, or -1. */
static int
from_environment (struct esp_s3_credentials *out)
{
  const char *access = env ("AWS_ACCESS_KEY_ID");
  const char *secret = env ("AWS_SECRET_ACCESS_KEY");
  const char *token = env ("AWS_SESSION_TOKEN");

  if (!access || !secret)
    return 0;
  out->access = strdup (access);
  out->secret = strdup (secret);
  out->token = token ? strdup (token) : NULL;
  return out->access && out->secret && (!token || out->token) ? 1
    : no_memory ();
}

static char *
trim (char *s)
{
  size_t n;

  s += strspn (s, " \t\r");
  n = strlen (s);
  while (n > 0 && strchr (" \t\r", s[n - 1]))
    s[--n] = 0;
  return s;
}

/* Is LINE "[PROFILE]"? */
static bool
is_section (char *line, const char *profile)
{
  size_t n = strlen (line);

  if (line[n - 1] != ']')
    return false;
  line[n - 1] = 0;
  return strcmp (trim (line + 1), profile) == 0;
}

static int
take_line (char *line, struct esp_s3_credentials *out)
{
  char *eq = strchr (line, '=');
  char **to;

  if (!eq)
    return 0;
  *eq = 0;
  const char *key = trim (line), *value = trim (eq + 1);
  if (strcmp (key, "aws_access_key_id") == 0)
    to = &out->access;
  else if (strcmp (key, "aws_secret_access_key") == 0)
    to = &out->secret;
  else if (strcmp (key, "aws_session_token") == 0)
    to = &out->token;
  else
    return 0;
  wipe (to);
  *to = strdup (value);
  return *to ? 0 : no_memory ();
}

/* 1 when TEXT has the profile with both keys, 0, or -1. */
static int
from_text (char *text, const char *profile, struct esp_s3_credentials *out)
{
  bool inside = false;
  char *save, *at = text;

  for (char *line; (line = strtok_r (at, "\n", &save)) != NULL; at = NULL) {
    line = trim (line);
    if (*line == 0 || *line == '#' || *line == ';')
      continue;
    if (*line == '[')
      inside = is_section (line, profile);
    else if (inside && take_line (line, out) < 0)
      return -1;
  }
  if (out->access && out->secret && *out->access && *out->secret)
    return 1;
  esp_s3_credentials_clear (out);
  return 0;
}

static int
from_file (const char *file, const char *profile, bool asked,
           struct esp_s3_credentials *out)
{
  char *text = NULL;
  size_t len;

  if (esp_read_file (AT_FDCWD, file, FILE_MAX, &text, &len) < 0) {
    if (errno == ENOENT && !asked)
      return 0;
    esp_error ("credentials: %s: %m", file);
    errno = EINVAL;
    return -1;
  }
  int found = from_text (text, profile, out);
  explicit_bzero (text, len);
  free (text);
  if (found != 0 || !asked)
    return found < 0 ? -1 : 0;
  esp_error ("credentials: %s: no profile [%s] with aws_access_key_id and "
             "aws_secret_access_key", file, profile);
  errno = EINVAL;
  return -1;
}

int
esp_s3_credentials_load (const char *file, const char *profile,
                         struct esp_s3_credentials *out)
{
  CLEANUP_FREE char *own = NULL;
  bool asked = file || profile;
  int found = asked ? 0 : from_environment (out);

  if (found != 0)
    return found < 0 ? -1 : 0;
  if (!profile) {
    profile = env ("AWS_PROFILE");
    asked = asked || profile;
  }
  if (!file)
    file = env ("AWS_SHARED_CREDENTIALS_FILE");
  if (!file) {
    if (!env ("HOME"))
      return 0;
    own = esp_asprintf ("%s/.aws/credentials", env ("HOME"));
    if (!own)
      return no_memory ();
    file = own;
  }
  return from_file (file, profile ? profile : "default", asked, out);
}
