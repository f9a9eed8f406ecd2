/* test_readme.c - the state diagrams of csrc/README.md are those of states.def. `test_readme -p` prints what should stand there. */
#include <stdbool.h>

#include "check.h"

typedef struct edge {
  const char *machine, *from, *input, *to;
} edge;

static const edge edges[] = {
#define UAM_EDGE(machine, state, input, next) {#machine, #state, #input, #next},
#include "states.def"
#undef UAM_EDGE
};

static const struct {
  const char *machine, *first, *last;
} machines[] = {{"conn", "START", "END"}, {"session", "UNMAPPED", "UNMAPPED"}, {"link", "DETACHED", "DETACHED"}};

static void render(size_t m, char *out, size_t room) {
  size_t at = (size_t)snprintf(out, room, "```mermaid\nstateDiagram-v2\n  [*] --> %s\n", machines[m].first);
  for (size_t i = 0; i < sizeof edges / sizeof edges[0]; i++)
    if (strcmp(edges[i].machine, machines[m].machine) == 0)
      at += (size_t)snprintf(out + at, room - at, "  %s --> %s: %s\n", edges[i].from, edges[i].to, edges[i].input);
  snprintf(out + at, room - at, "  %s --> [*]\n```\n", machines[m].last);
}

int main(int argc, char **argv) {
  static char path[4096], text[1 << 17], diagram[1 << 14];
  const char *tests = argc > 1 ? argv[1] : "../tests";
  bool print = argc > 1 && strcmp(argv[1], "-p") == 0;
  snprintf(path, sizeof path, "%s/../csrc/README.md", tests);
  FILE *f = print ? NULL : fopen(path, "r");
  size_t n = f != NULL ? fread(text, 1, sizeof text - 1, f) : 0;
  if (f != NULL) fclose(f);
  text[n] = '\0';
  for (size_t m = 0; m < sizeof machines / sizeof machines[0]; m++) {
    render(m, diagram, sizeof diagram);
    if (print) printf("%s\n", diagram);
    else if (strstr(text, diagram) == NULL)
      FAIL("%s has no such diagram of %s:\n%s", path, machines[m].machine, diagram);
    CHECK(strlen(diagram) > 100);
  }
  return print ? 0 : done("readme");
}
