/* map.c - a map from 32-bit keys: the channels and handles that a peer chose, which may be sparse. It knows nothing of AMQP,
 * and is bounded by what its owners put in. */
#include "uam_int.h"

static const char gone_mark = 0;
#define MAP_GONE ((void *)&gone_mark)

static size_t map_slot(const uam_map *m, uint32_t key) {
  uint32_t h = key * 2654435769u;
  h ^= h >> 15;
  return h & (m->cap - 1);
}

void *uam_map_get(const uam_map *m, uint32_t key) {
  if (m->cap == 0) return NULL;
  for (size_t i = map_slot(m, key);; i = (i + 1) & (m->cap - 1)) {
    if (m->values[i] == NULL) return NULL;
    if (m->keys[i] == key && m->values[i] != MAP_GONE) return m->values[i];
  }
}

static void map_insert(uam_map *m, uint32_t key, void *value) {
  size_t i = map_slot(m, key);
  while (m->values[i] != NULL) i = (i + 1) & (m->cap - 1);
  m->keys[i] = key;
  m->values[i] = value;
  m->used++;
  m->filled++;
}

static bool map_rehash(uam_map *m, const uam_mem *mem) {
  uam_map bigger = {0};
  bigger.cap = 8;
  while (bigger.cap < m->used * 4 + 8) bigger.cap *= 2;
  bigger.keys = uam_mem_alloc(mem, bigger.cap * sizeof *bigger.keys);
  bigger.values = uam_mem_alloc(mem, bigger.cap * sizeof *bigger.values);
  if (bigger.keys == NULL || bigger.values == NULL) {
    uam_map_free(&bigger, mem);
    return false;
  }
  for (size_t i = 0; i < m->cap; i++)
    if (m->values[i] != NULL && m->values[i] != MAP_GONE) map_insert(&bigger, m->keys[i], m->values[i]);
  uam_map_free(m, mem);
  *m = bigger;
  return true;
}

/* The key must not be in the map. */
bool uam_map_put(uam_map *m, const uam_mem *mem, uint32_t key, void *value) {
  if ((m->filled + 1) * 2 > m->cap && !map_rehash(m, mem)) return false;
  map_insert(m, key, value);
  return true;
}

void uam_map_remove(uam_map *m, uint32_t key) {
  if (m->cap == 0) return;
  for (size_t i = map_slot(m, key); m->values[i] != NULL; i = (i + 1) & (m->cap - 1)) {
    if (m->keys[i] != key || m->values[i] == MAP_GONE) continue;
    m->values[i] = MAP_GONE;
    m->used--;
    return;
  }
}

void uam_map_free(uam_map *m, const uam_mem *mem) {
  uam_mem_free(mem, m->keys);
  uam_mem_free(mem, m->values);
  memset(m, 0, sizeof *m);
}
