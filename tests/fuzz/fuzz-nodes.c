/* SPDX-License-Identifier: BSD-3-Clause */
/* Any text as a list of nodes: refused with one error, or names that are read
 * again as the same.
 */

#include "fuzz.h"

#include "cache/nodes.h"

static void
check_names (const struct esp_nodes *nodes)
{
  size_t len = 0;
  char *text = malloc (nodes->n * (ESP_NODE_NAME + 1));

  FUZZ_REQUIRE (nodes->n >= 1 && nodes->n <= ESP_NODES_MAX);
  for (size_t i = 0; i < nodes->n; ++i) {
    const struct esp_node_name *n = &nodes->node[i];
    FUZZ_REQUIRE (n->host[0]);
    FUZZ_REQUIRE ((n->port == 0) == (strncmp (n->name, "unix:/", 6) == 0));
    for (size_t j = 0; j < i; ++j)
      FUZZ_REQUIRE (strcmp (n->name, nodes->node[j].name) != 0);
    len += (size_t) sprintf (text + len, "%s,", n->name);
  }
  struct esp_nodes *again = esp_nodes_parse (text, "again");
  FUZZ_REQUIRE (again && again->n == nodes->n);
  for (size_t i = 0; i < nodes->n; ++i)
    FUZZ_REQUIRE (strcmp (again->node[i].name, nodes->node[i].name) == 0 &&
                  strcmp (again->node[i].host, nodes->node[i].host) == 0 &&
                  again->node[i].port == nodes->node[i].port);
  free (again);
  free (text);
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  char *text = malloc (size + 1);
  unsigned before = fuzz_errors;

  memcpy (text, data, size);
  text[size] = 0;
  (void) esp_nodes_is_file (text);
  struct esp_nodes *nodes = esp_nodes_parse (text, "nodes");
  FUZZ_REQUIRE (fuzz_errors == before + !nodes);
  if (nodes)
    check_names (nodes);
  free (nodes);
  free (text);
  return 0;
}
