/* frame.c - protocol headers and frames (§2.2, §2.3): cutting them out of the receive window, and putting them into the
 * output buffer. Knows sizes and types; what is inside belongs to the layers above. Whatever is put out passes here, so
 * this is also where the trace is written. */
#include <stdarg.h>
#include <stdio.h>

#include "uam_int.h"

#define FRAME_GUESS 192 /* room tried first for a performative */

void uam_frame_trace(uam_engine *e, bool out, const uint8_t *frame, size_t n) {
  char line[1024];
  size_t used = 0;
  if (uam_buf_len(&e->traced.text) > UAM_MAX_TRACE) return;
  int64_t need = uam_dump(frame, n, e->options.trace > 1, line, sizeof line, &used);
  if (need < 0) return;
  uam_buf *t = &e->traced.text;
  bool ok = uam_buf_put(t, &e->mem, out ? "-> " : "<- ", 3);
  if ((size_t)need < sizeof line) {
    ok = ok && uam_buf_put(t, &e->mem, line, (size_t)need);
  } else {
    ok = ok && uam_buf_reserve(t, &e->mem, (size_t)need + 1);
    if (ok) uam_dump(frame, n, e->options.trace > 1, (char *)t->data + t->tail, (size_t)need + 1, &used);
    if (ok) t->tail += (size_t)need;
  }
  if (!ok || !uam_buf_put(t, &e->mem, "\n", 1)) uam_oom(e);
}

void uam_frame_header(uam_engine *e, uint8_t protocol) {
  const uint8_t h[8] = {'A', 'M', 'Q', 'P', protocol, 1, 0, 0};
  if (!uam_buf_put(&e->out.buf, &e->mem, h, sizeof h)) uam_oom(e);
  else if (e->options.trace) uam_frame_trace(e, true, h, sizeof h);
}

void uam_frame_empty(uam_engine *e) {
  const uint8_t f[8] = {0, 0, 0, 8, 2, 0, 0, 0};
  if (!uam_buf_put(&e->out.buf, &e->mem, f, sizeof f)) uam_oom(e);
  else if (e->options.trace) uam_frame_trace(e, true, f, sizeof f);
}

/* Absent fields at the end may be left out (§1.4). There are peers (Azure's clients in Python) that look for a field in its
 * place all the same: UAM_OPT_EXPLICIT is for them. */
static void encode(const uam_engine *e, uam_writer *w, uint32_t code, const void *performative) {
  if (e->options.all_fields) uam_composite_encode_all(w, code, performative);
  else uam_composite_encode(w, code, performative);
}

void uam_frame_put(uam_engine *e, uint8_t type, uint16_t channel, uint32_t code, const void *performative) {
  uam_buf *o = &e->out.buf;
  uam_writer w;
  size_t room = FRAME_GUESS;
  for (;;) {
    if (!uam_buf_reserve(o, &e->mem, 8 + room)) {
      uam_oom(e);
      return;
    }
    w = (uam_writer){o->data + o->tail + 8, 0, room};
    encode(e, &w, code, performative);
    if (w.len <= room) break;
    room = w.len;
  }
  uint8_t *h = o->data + o->tail;
  store_be32(h, (uint32_t)(8 + w.len));
  h[4] = 2;
  h[5] = type;
  store_be16(h + 6, type == 0 ? channel : 0);
  o->tail += 8 + w.len;
  if (e->options.trace) uam_frame_trace(e, true, h, 8 + w.len);
}

/* A detach, end or close. Where its error does not fit into the peer's frames (§2.3.1) its condition goes alone, or nothing of it. */
void uam_frame_put_last(uam_engine *e, uint16_t channel, uint32_t code, void *performative, uam_span *error) {
  uint8_t room[UAM_MIN_MAX_FRAME / 2];
  uam_p_error whole;
  uam_fault fault = {0};
  if (error->len > sizeof room && uam_frame_size(e, code, performative) > e->conn.remote_max_frame) {
    uam_writer w = {room, 0, sizeof room};
    uam_reader r = uam_reader_of(error->ptr, error->len);
    uint64_t what = uam_read_descriptor(&r);
    uam_span list = uam_read_value(&r);
    *error = (uam_span){0};
    if (r.err == 0 && what == UAM_COMPOSITE_error &&
        uam_composite_decode(UAM_COMPOSITE_error, list, &whole, &fault) == 0) {
      whole.set = UAM_SET(error, condition);
      encode(e, &w, UAM_COMPOSITE_error, &whole);
      if (w.len <= sizeof room) *error = (uam_span){room, w.len};
    }
    if (error->len == 0)
      *(uint32_t *)performative &= ~(1u << (uam_composite_field_count(code) - 1)); /* `set`, its first member */
  }
  uam_frame_put(e, 0, channel, code, performative);
}

size_t uam_frame_size(const uam_engine *e, uint32_t code, const void *performative) {
  uam_writer w = {NULL, 0, 0};
  encode(e, &w, code, performative);
  return 8 + w.len;
}

int uam_frame_cut(const uint8_t *p, size_t n, uint32_t max, uam_frame *f, size_t *size, uam_fault *fault) {
  if (n < 8) return 0;
  uint32_t whole = load_be32(p);
  uint32_t doff = (uint32_t)p[4] * 4;
  if (whole < 8 || doff < 8 || doff > whole) {
    uam_fault_set(fault, "amqp:connection:framing-error", "frame of size %lu with data offset %lu",
                  (unsigned long)whole, (unsigned long)doff);
    return -1;
  }
  if (whole > max) {
    uam_fault_set(fault, "amqp:connection:framing-error", "frame of %lu bytes > max-frame-size %lu",
                  (unsigned long)whole, (unsigned long)max);
    return -1;
  }
  if (n < whole) return 0;
  f->type = p[5];
  f->channel = load_be16(p + 6);
  f->body = (uam_span){p + doff, whole - doff};
  *size = whole;
  return 1;
}

/* b = the described list `error`. */
void uam_error_encode(uam_engine *e, uam_buf *b, const char *condition, const char *text) {
  uam_p_error err = {.set = UAM_SET(error, condition) | UAM_SET(error, description)};
  err.condition = (uam_span){(const uint8_t *)condition, strlen(condition)};
  err.description = (uam_span){(const uint8_t *)text, strlen(text)};
  uint8_t room[512];
  uam_writer w = {room, 0, sizeof room};
  encode(e, &w, UAM_COMPOSITE_error, &err);
  uam_keep(e, b, room, w.len <= sizeof room ? w.len : 0);
}
