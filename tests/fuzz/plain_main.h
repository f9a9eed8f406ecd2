/* plain_main.h - a main for fuzz targets where there is no libFuzzer: every file given is run as it is, and so many
 * mutations of it: program ROUNDS FILE... The same arguments give the same runs. With libFuzzer it is empty. */
#ifndef PLAIN_MAIN_H
#define PLAIN_MAIN_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

#ifndef UAM_LIBFUZZER
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PLAIN_ROOM = 1 << 16 };

static uint64_t plain_seed = 1;
static uint32_t plain_dice(size_t sides) {
  plain_seed = plain_seed * 6364136223846793005u + 1442695040888963407u;
  return (uint32_t)((plain_seed >> 33) % sides);
}

/* One small damage: a byte, a bit, a size made extreme, a piece cut out, doubled or moved in from elsewhere. */
static size_t plain_mutate(uint8_t *b, size_t n) {
  static const uint8_t extremes[] = {0x00, 0x01, 0x40, 0x45, 0x7f, 0x80, 0xc0, 0xd0, 0xe0, 0xf0, 0xfe, 0xff};
  if (n == 0) return 0;
  size_t at = plain_dice(n), len = 1 + plain_dice(n - at < 16 ? n - at : 16), from = plain_dice(n - len + 1);
  switch (plain_dice(7)) {
    case 0: b[at] = (uint8_t)plain_dice(256); return n;
    case 1: b[at] ^= (uint8_t)(1u << plain_dice(8)); return n;
    case 2: b[at] = extremes[plain_dice(sizeof extremes)]; return n;
    case 3: b[at] = (uint8_t)(b[at] + (plain_dice(2) != 0 ? 1 : -1)); return n;
    case 4: memmove(b + at, b + at + len, n - at - len); return n - len;
    case 5: memmove(b + at, b + from, len); return n;
    default:
      if (n + len > PLAIN_ROOM) return n;
      memmove(b + at + len, b + at, n - at);
      return n + len;
  }
}

/* In memory of its own size, so that the sanitizer sees every byte read past the end. */
static void plain_run(const uint8_t *b, size_t n) {
  uint8_t *copy = malloc(n != 0 ? n : 1);
  if (copy == NULL) exit(2);
  if (n != 0) memcpy(copy, b, n);
  (void)LLVMFuzzerTestOneInput(copy, n);
  free(copy);
}

int main(int argc, char **argv) {
  static uint8_t original[PLAIN_ROOM], b[PLAIN_ROOM];
  unsigned long rounds = argc > 1 ? strtoul(argv[1], NULL, 10) : 0, runs = 0;
  for (int i = 2; i < argc; i++) {
    FILE *f = fopen(argv[i], "rb");
    if (f == NULL) {
      fprintf(stderr, "cannot open %s\n", argv[i]);
      return 2;
    }
    size_t whole = fread(original, 1, sizeof original, f), n = whole;
    fclose(f);
    plain_run(original, whole);
    for (unsigned long r = 0; r < rounds; r++, runs++) {
      if (r % 8 == 0) {
        memcpy(b, original, whole);
        n = whole;
      }
      n = plain_mutate(b, n);
      plain_run(b, n);
    }
    runs++;
  }
  const char *name = strrchr(argv[0], '/');
  printf("%s: %d files, %lu runs\n", name != NULL ? name + 1 : argv[0], argc > 2 ? argc - 2 : 0, runs);
  return runs == 0;
}
#endif
#endif
