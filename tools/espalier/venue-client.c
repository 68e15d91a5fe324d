/* SPDX-License-Identifier: BSD-3-Clause */
/* espalier venue show --uri | --qemu | --libvirt-xml CLIENT: what a virtual
 * machine needs to have a venue's disks, with tickets where they are asked for.
 */

#include <config.h>

#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "boot/address.h"
#include "servers.h"
#include "ticket.h"
#include "util/sum.h"
#include "venue.h"

/* How long a ticket can be used where --expires does not say: a machine's
 * definition is written once and used for a while.
 */
#define EXPIRES_DEFAULT 86400u
/* Seconds for which a guest's requests wait for a server that is gone. */
#define RECONNECT "30"

struct target {
  struct server server;
  const char *venue, *client;
  unsigned n;
  char (*name)[ESP_EXPORT_MAX]; /* export names, with tickets */
  uint64_t expires;             /* 0: no tickets */
};

static void
target_clear (struct target *t)
{
  free (t->name);
}

/* --- options ---------------------------------------------------------------- */

static const char *const forms[] = { "uri", "qemu", "libvirt-xml", NULL };
static const char *const details[] = {
  "server", "socket", "ticket", "expires", "address", NULL
};

bool
venue_client_asked (const struct args *args)
{
  for (unsigned i = 0; forms[i]; i++)
    if (opt_has (args, forms[i]))
      return true;
  /* Options that only go with one of them: venue_client_run says so. */
  for (unsigned i = 0; details[i]; i++)
    if (opt_has (args, details[i]))
      return true;
  return false;
}

/* The client, in the one form that was asked for. */
static const char *
the_form (const struct args *args, const char **form)
{
  const char *client = NULL;

  for (unsigned i = 0; forms[i]; i++)
    if (opt_has (args, forms[i])) {
      if (client)
        return NULL;
      *form = forms[i];
      client = opt_value (args, forms[i]);
    }
  return client;
}

static int
check (const struct args *args, struct target *t, const char **form)
{
  if (!(t->client = the_form (args, form)))
    return usage (args->cmd, "for whom? give one of --uri, --qemu and "
                  "--libvirt-xml, with the client's name");
  if (esp_client_check (t->client) == -1)
    return CLI_USAGE;
  if (opt_has (args, "server") && opt_has (args, "socket"))
    return usage (args->cmd, "give --server or --socket, not both");
  if (opt_has (args, "socket") && opt_has (args, "address"))
    return usage (args->cmd, "a ticket for a Unix socket is for no address: "
                  "leave out --address");
  return 0;
}

/* --- the server --------------------------------------------------------------- */

static int
take_socket (const struct args *args, struct server *s)
{
  const char *path = opt_value (args, "socket");
  char here[4096] = "";

  if (*path != '/' && !getcwd (here, sizeof here)) {
    esp_error ("getcwd: %m");
    return CLI_FAILED;
  }
  CLEANUP_FREE char *whole = xasprintf ("%s%s%s", here, *here ? "/" : "", path);
  if (!*path || strlen (whole) >= sizeof s->socket)
    return usage (args->cmd, "--socket %s: a socket's path has 1 to %zu bytes",
                  path, sizeof s->socket - 1);
  strcpy (s->socket, whole);
  return 0;
}

/* The server: as the options say, else the one that runs, else NBD's port of
 * this host.  What a running one asks for (tickets, TLS) counts for an address
 * that was given, too: a site's servers are alike.
 */
static int
find_server (const struct args *args, struct server *s)
{
  const char *text = opt_value (args, "server");
  struct server running;
  unsigned more;
  bool found = server_find (&running, &more);
  int r = 0;

  *s = found ? running : (struct server) { .host = "localhost", .port = NBD_PORT };
  if (text && server_parse (text, s) == -1)
    return usage (args->cmd, "--server %s: write HOST or HOST:PORT, "
                  "[ADDRESS]:PORT for IPv6", text);
  if (opt_has (args, "socket")) {
    *s = (struct server) { 0 };
    r = take_socket (args, s);
  }
  if (!text && !opt_has (args, "socket") && more > 0)
    esp_warning ("%u servers of this store run: this is for the one at %s; choose "
                 "by --server or --socket", more + 1,
                 *s->host ? s->host : s->socket);
  s->tickets = found && running.tickets;
  s->tls = found && running.tls;
  return r;
}

/* --- names, with tickets ------------------------------------------------------ */

static int
fill_names (const struct args *args, struct target *t)
{
  bool wanted = t->server.tickets || opt_has (args, "ticket") ||
    opt_has (args, "expires") || opt_has (args, "address");
  CLEANUP_TICKET_KEY struct esp_ticket_key *key = NULL;
  uint32_t seconds = EXPIRES_DEFAULT;
  int r;

  if ((r = opt_duration (args, "expires", &seconds)) != 0)
    return r;
  if (wanted && !(key = esp_ticket_key_load (cli.store, true)))
    return CLI_FAILED;
  for (unsigned i = 0; i < t->n; i++) {
    struct esp_ticket ticket = { .export = { .disk = i } };

    strcpy (ticket.export.name, t->venue);
    strcpy (ticket.export.client, t->client);
    if (!wanted) {
      esp_export_format (&ticket.export, t->name[i], sizeof t->name[i]);
      continue;
    }
    if ((r = ticket_address (args, &ticket)) != 0)
      return r;
    if (esp_ticket_issue (key, &ticket, seconds, seconds, t->name[i]) == -1)
      return CLI_FAILED;
    t->expires = ticket.valid_until;
  }
  return 0;
}

/* --- writing ------------------------------------------------------------------ */

/* TEXT for a URI's path (or query): what is not plain there as %XX. */
static void
put_uri (FILE *f, const char *text, const char *plain)
{
  for (; *text; text++) {
    unsigned char c = (unsigned char) *text;
    if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
        (c >= 'A' && c <= 'Z') || strchr (plain, c))
      putc (c, f);
    else
      fprintf (f, "%%%02X", c);
  }
}

static void
put_host (FILE *f, const char *host)
{
  fprintf (f, strchr (host, ':') ? "[%s]" : "%s", host);
}

static char *
uri_of (const struct target *t, unsigned i)
{
  char *text = NULL;
  size_t size;
  FILE *f = open_memstream (&text, &size);

  if (!f)
    abort ();
  if (*t->server.host) {
    fputs (t->server.tls ? "nbds://" : "nbd://", f);
    put_host (f, t->server.host);
    fprintf (f, ":%u/", t->server.port);
  }
  else
    fputs (t->server.tls ? "nbds+unix:///" : "nbd+unix:///", f);
  put_uri (f, t->name[i], "-._~/@:+");
  if (!*t->server.host) {
    fputs ("?socket=", f);
    put_uri (f, t->server.socket, "-._~/@:");
  }
  fclose (f);
  return text;
}

/* TEXT as the value of one of QEMU's options: commas are written twice. */
static char *
qemu_value (const char *text)
{
  char *value = xcalloc (2 * strlen (text) + 1, 1), *p = value;

  for (; *text; text++) {
    if (*text == ',')
      *p++ = ',';
    *p++ = *text;
  }
  return value;
}

/* The block device, and the card that the guest sees; boots in this order. */
static char *
qemu_blockdev (const struct target *t, unsigned i)
{
  CLEANUP_FREE char *name = qemu_value (t->name[i]);
  CLEANUP_FREE char *socket = qemu_value (t->server.socket);
  CLEANUP_FREE char *server = *t->server.host
    ? xasprintf ("server.type=inet,server.host=%s,server.port=%u",
                 t->server.host, t->server.port)
    : xasprintf ("server.type=unix,server.path=%s", socket);

  return xasprintf ("driver=nbd,node-name=venue%u,%s,export=%s,discard=unmap,"
                    "reconnect-delay=" RECONNECT, i, server, name);
}

static char *
qemu_device (unsigned i)
{
  return xasprintf ("virtio-blk-pci,drive=venue%u,bootindex=%u", i, i + 1);
}

static json_t *
qemu_words (const struct target *t)
{
  json_t *words = json_array ();

  for (unsigned i = 0; i < t->n; i++) {
    CLEANUP_FREE char *blockdev = qemu_blockdev (t, i);
    CLEANUP_FREE char *device = qemu_device (i);
    json_array_append_new (words, json_string ("-blockdev"));
    json_array_append_new (words, json_text (blockdev));
    json_array_append_new (words, json_string ("-device"));
    json_array_append_new (words, json_text (device));
  }
  return words;
}

/* --- libvirt -------------------------------------------------------------------- */

static void
put_xml (FILE *f, const char *text)
{
  for (; *text; text++)
    switch (*text) {
    case '<': fputs ("&lt;", f); break;
    case '>': fputs ("&gt;", f); break;
    case '&': fputs ("&amp;", f); break;
    case '\'': fputs ("&apos;", f); break;
    case '"': fputs ("&quot;", f); break;
    default: putc (*text, f);
    }
}

/* vda, ..., vdz, vdaa, ... */
static void
put_target (FILE *f, unsigned i)
{
  fputs ("vd", f);
  if (i >= 26)
    putc ('a' + (int) (i / 26) - 1, f);
  putc ('a' + (int) (i % 26), f);
}

static void
put_disk (FILE *f, const struct target *t, unsigned i)
{
  fputs ("    <disk type='network' device='disk'>\n"
         "      <driver name='qemu' type='raw' discard='unmap' "
         "error_policy='stop' rerror_policy='stop'/>\n"
         "      <source protocol='nbd' name='", f);
  put_xml (f, t->name[i]);
  fputs (t->server.tls ? "' tls='yes'>\n        <host " : "'>\n        <host ", f);
  if (*t->server.host)
    fprintf (f, "name='%s' port='%u'/>\n", t->server.host, t->server.port);
  else {
    fputs ("transport='unix' socket='", f);
    put_xml (f, t->server.socket);
    fputs ("'/>\n", f);
  }
  fputs ("      </source>\n      <target dev='", f);
  put_target (f, i);
  fprintf (f, "' bus='virtio'/>\n      <boot order='%u'/>\n    </disk>\n", i + 1);
}

/* The same machine has the same UUID and card each time that it is written: to
 * define it again (with a new ticket, say) replaces it.
 */
static void
put_identity (FILE *f, const struct target *t, uint8_t mac[6])
{
  CLEANUP_FREE char *text = xasprintf ("espalier machine %s@%s", t->venue,
                                       t->client);
  uint64_t a = esp_sum (text, strlen (text));
  uint64_t b = esp_sum (text + 1, strlen (text) - 1);
  esp_uuid uuid;
  char buf[ESP_UUID_TEXT];

  memcpy (uuid.b, &a, 8);
  memcpy (uuid.b + 8, &b, 8);
  uuid.b[6] = (uint8_t) ((uuid.b[6] & 0x0f) | 0x80);  /* version 8: our own */
  uuid.b[8] = (uint8_t) ((uuid.b[8] & 0x3f) | 0x80);
  fprintf (f, "  <uuid>%s</uuid>\n", esp_uuid_text (&uuid, buf));
  memcpy (mac, (uint8_t[]) { 0x52, 0x54, 0, uuid.b[0], uuid.b[1], uuid.b[2] }, 6);
}

static void
put_devices (FILE *f, const struct target *t, const uint8_t mac[6])
{
  enum esp_client_kind kind = ESP_CLIENT_NETWORK;
  char key[ESP_CLIENT_KEY_MAX + 1], hidden[256];
  struct esp_catch before = esp_catch_begin (hidden, sizeof hidden);
  bool is_mac = esp_client_key_parse (t->client, &kind, key) == 0 &&
    kind == ESP_CLIENT_MAC;

  esp_catch_end (before);
  fputs ("  <devices>\n", f);
  for (unsigned i = 0; i < t->n; i++)
    put_disk (f, t, i);
  fputs ("    <interface type='network'>\n", f);
  if (is_mac)
    fprintf (f, "      <mac address='%s'/>\n", key);
  else
    fprintf (f, "      <mac address='%02x:%02x:%02x:%02x:%02x:%02x'/>\n", mac[0],
             mac[1], mac[2], mac[3], mac[4], mac[5]);
  fputs ("      <source network='default'/>\n"
         "      <model type='virtio'/>\n"
         "    </interface>\n"
         "    <console type='pty'/>\n"
         "    <graphics type='vnc'/>\n"
         "    <rng model='virtio'>\n"
         "      <backend model='random'>/dev/urandom</backend>\n"
         "    </rng>\n"
         "  </devices>\n", f);
}

static char *
libvirt_xml (const struct target *t)
{
  char *text = NULL, when[32];
  size_t size;
  uint8_t mac[6];
  FILE *f = open_memstream (&text, &size);

  if (!f)
    abort ();
  if (t->expires)
    fprintf (f, "<!-- its tickets are good until %s -->\n",
             esp_time_format (t->expires, when));
  fprintf (f, "<domain type='kvm'>\n  <name>%s-", t->venue);
  put_xml (f, t->client);
  fputs ("</name>\n", f);
  put_identity (f, t, mac);
  fputs ("  <memory unit='MiB'>2048</memory>\n"
         "  <vcpu>2</vcpu>\n"
         "  <os>\n    <type arch='x86_64'>hvm</type>\n  </os>\n"
         "  <features>\n    <acpi/>\n    <apic/>\n  </features>\n", f);
  put_devices (f, t, mac);
  fputs ("</domain>\n", f);
  fclose (f);
  return text;
}

/* --- printing ------------------------------------------------------------------- */

static json_t *
uris (const struct target *t)
{
  json_t *array = json_array ();

  for (unsigned i = 0; i < t->n; i++) {
    CLEANUP_FREE char *uri = uri_of (t, i);
    json_array_append_new (array, json_text (uri));
  }
  return array;
}

static int
print_json (const struct target *t, const char *form)
{
  json_t *o = json_object ();

  json_object_set_new (o, "venue", json_text (t->venue));
  json_object_set_new (o, "client", json_text (t->client));
  json_object_set_new (o, "expires", t->expires ? json_number (t->expires)
                                                : json_null ());
  if (strcmp (form, "uri") == 0)
    json_object_set_new (o, "uris", uris (t));
  else if (strcmp (form, "qemu") == 0)
    json_object_set_new (o, "arguments", qemu_words (t));
  else {
    CLEANUP_FREE char *xml = libvirt_xml (t);
    json_object_set_new (o, "xml", json_text (xml));
  }
  return json_print (o);
}

static void
print_words (json_t *words)
{
  for (size_t i = 0; i < json_array_size (words); i++) {
    CLEANUP_FREE char *word =
      shell_word (json_string_value (json_array_get (words, i)));
    printf ("%s%s", i ? " " : "", word);
  }
  putchar ('\n');
  json_decref (words);
}

static void
print_text (const struct target *t, const char *form)
{
  if (strcmp (form, "qemu") == 0)
    print_words (qemu_words (t));
  else if (strcmp (form, "uri") == 0)
    for (unsigned i = 0; i < t->n; i++) {
      CLEANUP_FREE char *uri = uri_of (t, i);
      puts (uri);
    }
  else {
    CLEANUP_FREE char *xml = libvirt_xml (t);
    fputs (xml, stdout);
  }
}

int
venue_client_run (const struct args *args)
{
  __attribute__ ((cleanup (target_clear))) struct target t = { 0 };
  CLEANUP_VENUE struct esp_venue venue = { 0 };
  const char *form = NULL;
  int r;

  if ((r = check (args, &t, &form)) != 0)
    return r;
  if (cli_open () != 0 ||
      esp_catalog_venue_get (cli_catalog (), args->arg[0], &venue) == -1)
    return CLI_FAILED;
  t.venue = venue.id;
  t.n = venue.ndisks;
  t.name = xcalloc (t.n, sizeof *t.name);
  if ((r = find_server (args, &t.server)) != 0 ||
      (r = fill_names (args, &t)) != 0)
    return r;
  if (t.server.tls && strcmp (form, "qemu") == 0)
    esp_warning ("the server takes TLS only: add -object tls-creds-x509,id=tls,"
                 "endpoint=client,dir=DIR, and tls-creds=tls to each -blockdev");
  if (cli.json)
    return print_json (&t, form);
  print_text (&t, form);
  return CLI_OK;
}

const struct opt venue_show_options[] = {
  { "uri", 0, "CLIENT", "the NBD URI of each disk for this client", false },
  { "qemu", 0, "CLIENT", "options for qemu-system-...: all disks", false },
  { "libvirt-xml", 0, "CLIENT", "a domain for virsh define", false },
  { "server", 0, "HOST[:PORT]", "where clients reach the server (the one that runs)", false },
  { "socket", 0, "PATH", "the server's Unix socket", false },
  { "ticket", 0, NULL, "with tickets, also where no running server asks for them", false },
  { "expires", 0, "TIME", "how long the tickets are good, as 8h or 30d (1d)", false },
  { "address", 0, "ADDRESS", "the only address from which the tickets are good", false },
  { 0 },
};
