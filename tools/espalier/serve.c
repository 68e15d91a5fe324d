/* SPDX-License-Identifier: BSD-3-Clause */
/* espalier serve: nbdkit with the whole stack, as it should be run.
 *
 * The command line is printed, then this process becomes nbdkit (exec, no
 * fork): its pid and environment stay, so that systemd's socket activation
 * and a service's main process work.
 */

#include <config.h>

#include <errno.h>
#include <sched.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "center/center.h"
#include "espalier.h"
#include "servers.h"

#define THREADS_MAX 16u

/* The command line in the making. */
struct line { char **arg; size_t n; };

static void __attribute__ ((format (printf, 2, 3)))
put (struct line *l, const char *fmt, ...)
{
  va_list args;
  char *text;

  va_start (args, fmt);
  if (vasprintf (&text, fmt, args) < 0)
    abort ();
  va_end (args);
  l->arg = realloc (l->arg, (l->n + 2) * sizeof *l->arg);
  if (!l->arg)
    abort ();
  l->arg[l->n++] = text;
  l->arg[l->n] = NULL;
}

static void
line_clear (struct line *l)
{
  for (size_t i = 0; i < l->n; i++)
    free (l->arg[i]);
  free (l->arg);
}

/* --- where things are --------------------------------------------------- */

/* The path DIR BETWEEN FILE where it is a readable file, else NULL. */
static char *
if_file (const char *dir, const char *between, const char *file)
{
  char *path = xasprintf ("%s%s%s", dir, between, file);

  if (access (path, R_OK) == 0)
    return path;
  free (path);
  return NULL;
}

/* The top of the build tree that this program runs from (libtool puts the
 * real one into tools/espalier/.libs), or NULL.
 */
static char *
build_tree (void)
{
  static const char tail[] = "/tools/espalier/.libs/";
  char self[4096];
  ssize_t n = readlink ("/proc/self/exe", self, sizeof self - 1);
  char *at;

  if (n <= 0)
    return NULL;
  self[n] = 0;
  for (at = self + n; at > self && *at != '/'; at--)
    ;
  if (at - self + 1 < (ssize_t) sizeof tail - 1)
    return NULL;
  at -= sizeof tail - 2;         /* to the slash that TAIL begins with */
  if (strncmp (at, tail, sizeof tail - 1) != 0)
    return NULL;
  *at = 0;
  return xstrdup (self);
}

/* What to call a module: a file of $ESPALIER_MODULES, of the build tree, of
 * the directory that configure was given; else its name, which nbdkit finds
 * among its own.  NULL: $ESPALIER_MODULES has none (reported).
 */
static char *
module (const char *kind, const char *name, const char *installed_in)
{
  const char *dir = getenv ("ESPALIER_MODULES");
  CLEANUP_FREE char *file = xasprintf ("/nbdkit-%s-%s.so", name, kind);
  CLEANUP_FREE char *top = build_tree ();
  CLEANUP_FREE char *libs = xasprintf ("/%ss/%s/.libs", kind, name);
  char *path = NULL;

  if (dir && *dir) {
    path = if_file (dir, "", file);
    if (!path)
      esp_error ("access: %s%s: %m (see $ESPALIER_MODULES)", dir, file);
    return path;
  }
  if (top)
    path = if_file (top, libs, file);
  if (!path && *installed_in)
    path = if_file (installed_in, "", file);
  return path ? path : xstrdup (name);
}

/* Can a client that goes away while it is being answered end nbdkit when the
 * connection has several threads?  (raw_send_socket's assertion, mended in
 * 1.34.)
 */
static bool
threads_are_fragile (void)
{
  unsigned minor;

  return sscanf (NBDKIT_BUILD_VERSION, "1.%u.", &minor) == 1 && minor < 34;
}

/* Half the cores that this process may use: each connection has its own
 * threads, and with one alone nbdkit serves it without handing requests from
 * thread to thread, which on two cores saves a third of the CPU time of a
 * warm 4 KiB read (docs/performance.md).
 */
static unsigned
default_threads (void)
{
  cpu_set_t set;
  int n = sched_getaffinity (0, sizeof set, &set) == 0 ? CPU_COUNT (&set) / 2 : 1;

  if (n < 1 || threads_are_fragile ())
    return 1;
  return (unsigned) n > THREADS_MAX ? THREADS_MAX : (unsigned) n;
}

/* Did systemd hand us sockets?  (sd_listen_fds(3)) */
static bool
socket_activated (void)
{
  const char *pid = getenv ("LISTEN_PID"), *fds = getenv ("LISTEN_FDS");
  return pid && fds && strtol (pid, NULL, 10) == (long) getpid ();
}

/* A socket that a killed server left is in the way of the next: remove it,
 * if nobody answers there.  0, or CLI_FAILED where somebody does.
 */
static int
clear_socket (const char *path)
{
  CLEANUP_CLOSE int fd = socket (AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct sockaddr_un addr = { .sun_family = AF_UNIX };
  struct stat st;

  if (fd == -1 || strlen (path) >= sizeof addr.sun_path ||
      lstat (path, &st) == -1 || !S_ISSOCK (st.st_mode))
    return CLI_OK;              /* nbdkit tells what is wrong */
  strcpy (addr.sun_path, path);
  if (connect (fd, (struct sockaddr *) &addr, sizeof addr) == 0) {
    esp_error ("%s: a server listens there already: end it, or choose another "
               "--socket", path);
    return CLI_FAILED;
  }
  if (errno == ECONNREFUSED && unlink (path) == 0)
    esp_debug ("removed %s: nobody listened there", path);
  return CLI_OK;
}

/* --- options ------------------------------------------------------------- */

static bool
one_of (const char *value, const char *const *words)
{
  for (; *words; words++)
    if (strcmp (value, *words) == 0)
      return true;
  return false;
}

static int
check_word (const struct args *args, const char *name, const char *const *words,
            const char *text)
{
  const char *value = opt_value (args, name);

  if (value && !one_of (value, words))
    return usage (args->cmd, "--%s %s: %s", name, value, text);
  return 0;
}

/* A whole number from MIN to MAX. */
static int
check_number (const struct args *args, const char *name, long min, long max)
{
  const char *value = opt_value (args, name);
  char *end;
  long n;

  if (!value)
    return 0;
  errno = 0;
  n = strtol (value, &end, 10);
  if (errno || *end || end == value || n < min || n > max)
    return usage (args->cmd, "--%s %s: a number from %ld to %ld", name, value,
                  min, max);
  return 0;
}

static int
check_words (const struct args *args)
{
  static const char *const modes[] = { "keep", "discard", "memory", NULL };
  static const char *const clients[] = { "peer", "export", "connection", NULL };
  static const char *const on_off[] = { "on", "off", NULL };
  static const char *const tls[] = { "off", "on", "require", NULL };
  uint64_t size;

  if (check_word (args, "mode", modes, "keep, discard or memory") != 0 ||
      check_word (args, "client", clients, "peer, export or connection") != 0 ||
      check_word (args, "tls", tls, "off, on or require") != 0 ||
      check_number (args, "port", 1, 65535) != 0 ||
      check_number (args, "threads", 1, 1024) != 0 ||
      check_number (args, "grace", 0, 31536000) != 0 ||
      check_word (args, "background", on_off, "on or off") != 0 ||
      check_word (args, "profile", on_off, "on or off") != 0 ||
      opt_size (args, "rate", &size) != 0 ||
      opt_size (args, "max", &size) != 0 ||
      opt_size (args, "readahead", &size) != 0 ||
      opt_size (args, "cache-max", &size) != 0 ||
      opt_size (args, "cache-memory", &size) != 0 ||
      opt_size (args, "quota", &size) != 0 ||
      opt_size (args, "min-free", &size) != 0)
    return CLI_USAGE;
  return 0;
}

static int
check_options (const struct args *args)
{
  bool address = opt_has (args, "address") || opt_has (args, "port");
  bool tls = opt_has (args, "tls-certificates") || opt_has (args, "tls-psk");

  if (check_words (args) != 0)
    return CLI_USAGE;
  if (opt_has (args, "socket") && address)
    return usage (args->cmd, "--socket goes without --address and --port");
  if (socket_activated () && (opt_has (args, "socket") || address))
    return usage (args->cmd, "systemd has passed a socket: leave out --socket, "
                  "--address and --port");
  if (opt_has (args, "tls-certificates") && opt_has (args, "tls-psk"))
    return usage (args->cmd, "give --tls-certificates or --tls-psk, not both");
  if (tls && opt_has (args, "tls") && strcmp (opt_value (args, "tls"), "off") == 0)
    return usage (args->cmd, "--tls off goes without certificates and keys");
  return 0;
}

/* Look at the store before nbdkit does, whose messages know less. */
static int
check_store (const struct args *args)
{
  CLEANUP_RP struct esp_rp rp = { 0 };
  CLEANUP_VENUE struct esp_venue venue = { 0 };
  const char *start = opt_value (args, "start"), *id = opt_value (args, "venue");

  if (cli_open () != 0 ||
      (start && esp_catalog_rp_find (cli_catalog (), start, &rp) == -1) ||
      (id && esp_catalog_venue_get (cli_catalog (), id, &venue) == -1))
    return CLI_FAILED;
  return CLI_OK;
}

/* --- the command line ------------------------------------------------------ */

static void
put_listener (struct line *l, const struct args *args)
{
  if (opt_has (args, "socket")) {
    put (l, "-U");
    put (l, "%s", opt_value (args, "socket"));
  }
  if (opt_has (args, "address")) {
    put (l, "-i");
    put (l, "%s", opt_value (args, "address"));
  }
  if (opt_has (args, "port")) {
    put (l, "-p");
    put (l, "%s", opt_value (args, "port"));
  }
}

static void
put_tls (struct line *l, const struct args *args)
{
  const char *certificates = opt_value (args, "tls-certificates");
  const char *psk = opt_value (args, "tls-psk");

  if (opt_has (args, "tls"))
    put (l, "--tls=%s", opt_value (args, "tls"));
  else if (certificates || psk)
    put (l, "--tls=require");
  if (certificates)
    put (l, "--tls-certificates=%s", certificates);
  if (psk)
    put (l, "--tls-psk=%s", psk);
}

static void
put_server (struct line *l, const struct args *args)
{
  if (!opt_has (args, "daemon"))
    put (l, "-f");
  if (cli.verbose)
    put (l, "-v");
  if (opt_has (args, "pidfile")) {
    put (l, "-P");
    put (l, "%s", opt_value (args, "pidfile"));
  }
  put (l, "-t");
  if (opt_has (args, "threads"))
    put (l, "%s", opt_value (args, "threads"));
  else
    put (l, "%u", default_threads ());
}

/* Is there, or may there be, something to fetch? */
static bool
needs_delayload (void)
{
  __attribute__ ((cleanup (esp_center_config_list_clear)))
    struct esp_center_config_list centers = { 0 };
  CLEANUP_RP_LIST struct esp_rp_list rps = { 0 };

  if (esp_center_list (cli.store, &centers) == 0 && centers.n > 0)
    return true;
  if (esp_catalog_rp_list (cli_catalog (), NULL, &rps) == -1)
    return true;
  for (size_t i = 0; i < rps.n; i++)
    if (rps.rp[i].kind == ESP_RP_DELAYED)
      return true;
  return false;
}

static int
put_rest (struct line *l, const struct args *args)
{
  for (unsigned i = 0; i < args->nrest; i++)
    put (l, "%s", args->rest[i]);
  return CLI_OK;
}

/* Which options are which parameters, of the module in whose stack. */
struct parameter { const char *option, *parameter; };

static const struct parameter always[] = {
  { "venue", "venue" },
  { "start", "start" },
  { "audit", "audit" },
  { "mode", "overlay-mode" },
  { "client", "overlay-client" },
  { "quota", "overlay-quota" },
  { "min-free", "overlay-min-free" },
  { "grace", "overlay-grace" },
  { 0 },
};
static const struct parameter of_delayload[] = {
  { "rate", "delayload-rate" },
  { "max", "delayload-max" },
  { "background", "delayload-background" },
  { "profile", "delayload-profile" },
  { "readahead", "delayload-readahead" },
  { 0 },
};
static const struct parameter of_segcache[] = {
  { "cache-nodes", "segcache-nodes" },
  { "cache-dir", "segcache-dir" },
  { "cache-max", "segcache-max" },
  { "cache-memory", "segcache-memory" },
  { "cache-key-file", "segcache-key-file" },
  { "cache-sasl-file", "segcache-sasl-file" },
  { "cache-tls-ca", "segcache-tls-ca" },
  { "cache-tls-certificate", "segcache-tls-certificate" },
  { "cache-tls-key", "segcache-tls-key" },
  { 0 },
};

static void
put_parameters (struct line *l, const struct args *args,
                const struct parameter *p)
{
  for (; p->option; p++)
    if (opt_has (args, p->option))
      put (l, "%s=%s", p->parameter, opt_value (args, p->option));
}

static bool
has_any (const struct args *args, const struct parameter *p)
{
  while (p->option && !opt_has (args, p->option))
    p++;
  return p->option != NULL;
}

static int
put_filter (struct line *l, const char *name)
{
  CLEANUP_FREE char *file = module ("filter", name, INSTALLED_FILTERS);

  if (!file)
    return CLI_FAILED;
  put (l, "--filter=%s", file);
  return CLI_OK;
}

static int
build_line (struct line *l, const struct args *args)
{
  CLEANUP_FREE char *venue = module ("plugin", "venue", INSTALLED_PLUGINS);
  bool delayed = needs_delayload ();
  bool cached = delayed && has_any (args, of_segcache);

  put (l, "%s", NBDKIT);
  put_server (l, args);
  put_listener (l, args);
  put_tls (l, args);
  if (!venue || put_filter (l, "overlay") != 0 ||
      (cached && put_filter (l, "segcache") != 0) ||
      (delayed && put_filter (l, "delayload") != 0))
    return CLI_FAILED;
  put (l, "%s", venue);
  put (l, "store=%s", esp_store_path (cli.store));
  if (opt_has (args, "require-ticket"))
    put (l, "require-ticket=on");
  put_parameters (l, args, always);
  if (delayed)
    put_parameters (l, args, of_delayload);
  if (cached)
    put_parameters (l, args, of_segcache);
  return put_rest (l, args);
}

static void
print_line (FILE *f, const struct line *l)
{
  for (size_t i = 0; i < l->n; i++) {
    CLEANUP_FREE char *word = shell_word (l->arg[i]);
    fprintf (f, "%s%s", i ? " " : "", word);
  }
  fputc ('\n', f);
}

static int
serve_run (const struct args *args)
{
  __attribute__ ((cleanup (line_clear))) struct line line = { 0 };

  if (check_options (args) != 0)
    return CLI_USAGE;
  if (check_store (args) != 0 || build_line (&line, args) != 0)
    return CLI_FAILED;
  if (opt_has (args, "print")) {
    print_line (stdout, &line);
    return CLI_OK;
  }
  if (opt_has (args, "socket") && clear_socket (opt_value (args, "socket")) != 0)
    return CLI_FAILED;
  server_leave (line.arg, line.n);
  esp_store_close (cli.store);
  cli.store = NULL;
  if (!cli.quiet)
    print_line (stderr, &line);
  execvp (line.arg[0], line.arg);
  esp_error ("exec: %s: %m (is nbdkit installed?)", line.arg[0]);
  return CLI_FAILED;
}

static const struct opt serve_options[] = {
  { "socket", 0, "PATH", "listen on a Unix socket instead of TCP", false },
  { "address", 0, "ADDRESS", "listen on this address only (else on all)", false },
  { "port", 0, "PORT", "TCP port (10809)", false },
  { "venue", 0, "ID", "the venue of clients that name none", false },
  { "start", 0, "RP", "serve this restore point and what descends from it only", false },
  { "require-ticket", 0, NULL, "open nothing without a ticket", false },
  { "audit", 0, "FILE", "append a line for each open, refused or not", false },
  { "mode", 0, "MODE", "keep, discard or memory: what becomes of clients' writes", false },
  { "client", 0, "HOW", "peer, export or connection: who a client without a name is", false },
  { "quota", 0, "SIZE", "what one client may write", false },
  { "min-free", 0, "SIZE", "what stays free on the file system", false },
  { "grace", 0, "SECONDS", "how long a discarded overlay waits for its client", false },
  { "rate", 0, "SIZE", "bytes a second that are fetched in the background", false },
  { "max", 0, "SIZE", "what fetched restore points may take in all", false },
  { "background", 0, "on|off", "fetch in the background what nobody reads yet (on)", false },
  { "profile", 0, "on|off", "learn and use the order of boots (on)", false },
  { "readahead", 0, "SIZE", "how far ahead of a client is fetched at most (16M)", false },
  { "cache-nodes", 0, "LIST|FILE", "memcached nodes that servers share what they fetch by", false },
  { "cache-dir", 0, "DIR", "where servers of this host share what they fetch", false },
  { "cache-max", 0, "SIZE", "what that directory may take (10G)", false },
  { "cache-memory", 0, "SIZE", "memory for what a store with --max gave back", false },
  { "cache-key-file", 0, "FILE", "the key that encrypts what nodes and the directory hold", false },
  { "cache-sasl-file", 0, "FILE", "user:password for the nodes", false },
  { "cache-tls-ca", 0, "FILE", "TLS to the nodes: who signed their certificates", false },
  { "cache-tls-certificate", 0, "FILE", "this server's certificate for nodes that want one", false },
  { "cache-tls-key", 0, "FILE", "and its key", false },
  { "threads", 0, "N", "threads of each connection (else half the cores, 1 to 16; 1 before nbdkit 1.34)", false },
  { "tls", 0, "off|on|require", "may or must clients use TLS", false },
  { "tls-certificates", 0, "DIR", "certificates for TLS", false },
  { "tls-psk", 0, "FILE", "pre-shared keys for TLS", false },
  { "daemon", 0, NULL, "go into the background", false },
  { "pidfile", 0, "FILE", "write the process id there when it listens", false },
  { "print", 0, NULL, "print nbdkit's command line, and do not run it", false },
  { 0 },
};

const struct command serve_commands[] = {
  { "serve", "[OPTIONS] [-- NBDKIT-ARGUMENTS]",
    "Serve all venues over NBD: run nbdkit with the whole stack",
    "nbdkit's command line is printed on standard error.  It takes over this\n"
    "process, in the foreground.  What stands behind -- is added to it.",
    serve_options, 0, 0, CMD_PASS_REST | CMD_NO_JSON, serve_run },
  { 0 },
};
