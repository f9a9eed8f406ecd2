/* notation.h - trace notation (see csrc/trace.c) for test programs: text to bytes and back, and what the values of a
 * frame are made of. Everything returned lives in a static buffer until the next call of the same function but three. */
#ifndef NOTATION_H
#define NOTATION_H

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "uam_codec.h"

enum { NOTATION_ROOM = 4 << 20, NOTATION_TURNS = 4 };

/* One line as bytes; ptr NULL when it can't be read. */
static inline uam_span frame_of(const char *text) {
  static uint8_t *room[NOTATION_TURNS];
  static unsigned turn;
  unsigned t = turn++ % NOTATION_TURNS;
  if (room[t] == NULL) room[t] = malloc(NOTATION_ROOM);
  int64_t n = room[t] == NULL ? -1 : uam_undump(text, strlen(text), room[t], NOTATION_ROOM);
  if (n < 0 || n > NOTATION_ROOM) return (uam_span){NULL, 0};
  return (uam_span){room[t], (size_t)n};
}

/* One value as bytes, descriptor included. */
static inline uam_span value_of(const char *text) {
  static char *line;
  size_t n = strlen(text);
  if (line == NULL) line = malloc(NOTATION_ROOM);
  if (line == NULL || n + 8 > NOTATION_ROOM) return (uam_span){NULL, 0};
  memcpy(line, "ch=0 ", 5);
  memcpy(line + 5, text, n + 1);
  uam_span f = frame_of(line);
  return f.ptr == NULL || f.len < 8 ? (uam_span){NULL, 0} : (uam_span){f.ptr + 8, f.len - 8};
}

/* A composite's list, without its descriptor. */
static inline uam_span list_of(const char *text) {
  uam_span v = value_of(text);
  if (v.ptr == NULL || v.len == 0 || v.ptr[0] != 0) return v;
  uam_reader r = uam_reader_of(v.ptr + 1, v.len - 1);
  uam_read_value(&r);
  return (uam_span){r.p, (size_t)(r.end - r.p)};
}

/* A frame or header as text. */
static inline const char *text_of_frame(const uint8_t *p, size_t n) {
  static char *room[NOTATION_TURNS];
  static unsigned turn;
  unsigned t = turn++ % NOTATION_TURNS;
  size_t used = 0;
  if (room[t] == NULL) room[t] = malloc(NOTATION_ROOM);
  if (room[t] == NULL) return "(no memory)";
  int64_t len = uam_dump(p, n, 1, room[t], NOTATION_ROOM - 1, &used);
  if (len < 0 || len >= NOTATION_ROOM) return "(can't be dumped)";
  room[t][len] = '\0';
  return room[t];
}

/* A value as text. `code` is put in front as a descriptor when it is not 0. */
static inline const char *text_of_value(const uint8_t *p, size_t n, uint32_t code) {
  static uint8_t *frame;
  size_t head = code != 0 ? 11 : 8;
  if (n == 0) return "";
  if (frame == NULL) frame = malloc(NOTATION_ROOM);
  if (frame == NULL || n + head > NOTATION_ROOM) return "(too large)";
  store_be32(frame, (uint32_t)(n + head));
  frame[4] = 2;
  frame[5] = code >= 0x40 && code <= 0x44 ? 1 : 0;
  store_be16(frame + 6, 0);
  frame[8] = 0x00;
  frame[9] = 0x53;
  frame[10] = (uint8_t)code;
  memcpy(frame + head, p, n);
  const char *text = text_of_frame(frame, n + head);
  return strncmp(text, "ch=0 ", 5) == 0 ? text + 5 : text;
}

/* Bytes of the first whole frame or header at p; 0 when there is none. */
static inline size_t frame_size(const uint8_t *p, size_t n) {
  if (n < 8) return 0;
  size_t size = memcmp(p, "AMQP", 4) == 0 ? 8 : load_be32(p);
  return size >= 8 && size <= n ? size : 0;
}

#endif
