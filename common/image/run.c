/* SPDX-License-Identifier: BSD-3-Clause */
/* Running qemu's programs. */

#include <config.h>

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "image/image-internal.h"
#include "util/file.h"
#include "util/host.h"

extern char **environ;

#define TEXT_MAX (16u << 20)

/* Read FD to its end; what is beyond TEXT_MAX is dropped. */
static char *
read_all (int fd)
{
  CLEANUP_FREE char *text = NULL;
  CLEANUP_FREE char *buf = malloc (65536);
  size_t size = 0;
  ssize_t r;
  FILE *f = open_memstream (&text, &size);

  if (f == NULL)
    return NULL;
  while (buf && ((r = read (fd, buf, 65536)) > 0 || (r == -1 && errno == EINTR)))
    if (r > 0 && (size_t) ftell (f) < TEXT_MAX)
      fwrite (buf, 1, (size_t) r, f);
  if (fclose (f) == EOF)
    return NULL;
  return ESP_STEAL (text);
}

static int
spawn (const char *const *argv, int out, bool errors, pid_t *pid)
{
  posix_spawn_file_actions_t fa;
  int r;

  posix_spawn_file_actions_init (&fa);
  posix_spawn_file_actions_addopen (&fa, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2 (&fa, out, 1);
  if (errors)
    posix_spawn_file_actions_adddup2 (&fa, out, 2);
  else
    posix_spawn_file_actions_addopen (&fa, 2, "/dev/null", O_WRONLY, 0);
  r = posix_spawnp (pid, argv[0], &fa, NULL, (char *const *) argv, environ);
  posix_spawn_file_actions_destroy (&fa);
  return r;
}

int
esp_run (const char *const *argv, bool errors, char **text)
{
  CLEANUP_CLOSE int in = -1;
  CLEANUP_CLOSE int out = -1;
  CLEANUP_FREE char *printed = NULL;
  int p[2], status, r;
  pid_t pid;

  if (pipe2 (p, O_CLOEXEC) == -1) {
    esp_error ("pipe: %m");
    return -1;
  }
  in = p[0];
  out = p[1];
  r = spawn (argv, out, errors, &pid);
  if (r != 0) {
    errno = r;
    if (r != ENOENT)
      esp_error ("posix_spawn: %s: %m", argv[0]);
    return r == ENOENT ? 127 : -1;
  }
  close (esp_steal_fd (&out));
  printed = read_all (in);
  while (waitpid (pid, &status, 0) == -1)
    if (errno != EINTR) {
      esp_error ("waitpid: %s: %m", argv[0]);
      return -1;
    }
  if (text)
    *text = printed ? ESP_STEAL (printed) : strdup ("");
  return WIFEXITED (status) ? WEXITSTATUS (status) : 128 + WTERMSIG (status);
}

char *
esp_first_line (char *text)
{
  static const char *const prefixes[] = { "qemu-nbd: ", "qemu-img: " };

  if (text == NULL)
    return NULL;
  for (unsigned i = 0; i < 2; i++)
    if (strncmp (text, prefixes[i], strlen (prefixes[i])) == 0)
      text += strlen (prefixes[i]);
  text[strcspn (text, "\n")] = 0;
  return text;
}

char *
esp_qemu_path (const char *path)
{
  char *r = esp_asprintf ("%s%s", path[0] == '/' ? "" : "./", path);

  if (r == NULL)
    esp_error ("malloc: path: %m");
  return r;
}

bool
esp_is_zero (const void *buf, uint64_t len)
{
  const char *p = buf;

  /* The first 16 bytes by hand, then each byte against the one before. */
  for (unsigned i = 0; i < 16; i++) {
    if (len == 0)
      return true;
    if (*p)
      return false;
    p++;
    len--;
  }
  return memcmp (buf, p, len) == 0;
}
