/* json.h - as much of JSON as tests/vectors.json needs: objects, arrays, strings, true, false, null; no numbers. */
#ifndef JSON_H
#define JSON_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct json {
  char kind;  /* { [ s t f n */
  char *text; /* of a string, UTF-8, `len` bytes and a 0 */
  size_t len;
  char *key; /* in an object */
  struct json *first, *next;
} json;

typedef struct json_reader {
  const char *p, *end;
} json_reader;

static inline void json_die(const char *why) {
  fprintf(stderr, "json: %s\n", why);
  exit(2);
}

static inline void *json_alloc(size_t n) {
  void *p = calloc(1, n);
  if (p == NULL) json_die("no memory");
  return p;
}

static inline char json_peek(json_reader *r) {
  while (r->p != r->end && strchr(" \t\r\n", *r->p) != NULL) r->p++;
  if (r->p == r->end) json_die("ends too early");
  return *r->p;
}

static inline void json_expect(json_reader *r, const char *text) {
  (void)json_peek(r);
  size_t n = strlen(text);
  if ((size_t)(r->end - r->p) < n || memcmp(r->p, text, n) != 0) json_die("something else was expected");
  r->p += n;
}

static inline unsigned json_unit(json_reader *r) {
  unsigned v = 0;
  if (r->end - r->p < 4 || sscanf(r->p, "%4x", &v) != 1) json_die("bad \\u");
  r->p += 4;
  return v;
}

/* \uXXXX below 0x80, as json.dumps writes control characters. */
static inline char json_escape(json_reader *r) {
  static const char from[] = "ntrbf\"\\/", to[] = "\n\t\r\b\f\"\\/";
  char c = *r->p++;
  if (c == 'u') {
    unsigned v = json_unit(r);
    if (v >= 0x80) json_die("\\u above ASCII");
    return (char)v;
  }
  const char *at = c != '\0' ? strchr(from, c) : NULL;
  if (at == NULL) json_die("unknown escape");
  return to[at - from];
}

static inline char *json_string(json_reader *r, size_t *len) {
  json_expect(r, "\"");
  char *text = json_alloc((size_t)(r->end - r->p) < 4096 ? (size_t)(r->end - r->p) : 4096);
  size_t n = 0;
  while (r->end - r->p > 1 && *r->p != '"') {
    char c = *r->p++;
    if (n == 4095) json_die("string too long");
    text[n++] = c == '\\' ? json_escape(r) : c;
  }
  json_expect(r, "\"");
  *len = n;
  return text;
}

static inline json *json_value(json_reader *r) {
  json *v = json_alloc(sizeof *v);
  v->kind = json_peek(r);
  if (v->kind == '"') {
    v->kind = 's';
    v->text = json_string(r, &v->len);
  } else if (v->kind == '{' || v->kind == '[') {
    char close = v->kind == '{' ? '}' : ']';
    json **last = &v->first;
    r->p++;
    while (json_peek(r) != close) {
      size_t len;
      char *key = NULL;
      if (v->first != NULL) json_expect(r, ",");
      if (close == '}') {
        key = json_string(r, &len);
        json_expect(r, ":");
      }
      *last = json_value(r);
      (*last)->key = key;
      last = &(*last)->next;
    }
    r->p++;
  } else {
    json_expect(r, v->kind == 't' ? "true" : v->kind == 'f' ? "false" : "null");
  }
  return v;
}

static inline json *json_get(const json *object, const char *key) {
  for (json *v = object->first; v != NULL; v = v->next) {
    if (strcmp(v->key, key) == 0) return v;
  }
  return NULL;
}

static inline const char *json_text(const json *object, const char *key) {
  const json *v = json_get(object, key);
  if (v == NULL || v->kind != 's') json_die(key);
  return v->text;
}

static inline void json_free(json *v) {
  while (v != NULL) {
    json *next = v->next;
    json_free(v->first);
    free(v->text);
    free(v->key);
    free(v);
    v = next;
  }
}

static inline json *json_load(const char *path) {
  static char text[1 << 20];
  FILE *f = fopen(path, "rb");
  if (f == NULL) json_die(path);
  size_t n = fread(text, 1, sizeof text, f);
  fclose(f);
  if (n == sizeof text) json_die("file too long");
  return json_value(&(json_reader){text, text + n});
}

#endif
