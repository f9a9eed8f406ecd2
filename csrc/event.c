/* event.c - the event queue: what the layers tell the user of the engine. Events of one batch lie in one array, the
 * bytes they speak of lie in the receive window, in a text arena, or in joined messages lent for the batch; all of that
 * lives until the next commit. Settlements in a row become one range. */
#include "uam_int.h"

#define EV_TEXT \
  0x8000u /* internal: offset counts from e->events.text; resolved to an address when the batch is handed out */

uam_event *uam_event_push(uam_engine *e, uint16_t kind, uint32_t id) {
  static const uam_event none;
  if (e->events.count == e->events.cap) {
    size_t cap = e->events.cap ? e->events.cap * 2 : 64;
    uam_event *grown = uam_mem_realloc(&e->mem, e->events.queue, cap * sizeof *grown);
    if (grown == NULL) {
      uam_oom(e);
      if (e->events.cap == 0) return NULL;
      e->events.count = e->events.cap - 1; /* the engine is dead: the last one serves as a spare */
    } else {
      e->events.queue = grown;
      e->events.cap = cap;
    }
  }
  uam_event *ev = &e->events.queue[e->events.count++];
  *ev = none;
  ev->kind = kind;
  ev->id = id;
  return ev;
}

void uam_event_window(uam_engine *e, uam_event *ev, uam_span span) {
  if (ev == NULL || span.len == 0) return;
  ev->offset = (uint64_t)(span.ptr - e->in.window[e->in.current].data);
  ev->length = span.len;
}

void uam_event_text(uam_engine *e, uam_event *ev, uam_span span) {
  if (ev == NULL || span.len == 0) return;
  size_t at = e->events.text.tail;
  if (!uam_buf_put(&e->events.text, &e->mem, span.ptr, span.len)) {
    uam_oom(e);
    return;
  }
  ev->flags = (uint16_t)(ev->flags | UAM_FLAG_ADDRESS | EV_TEXT);
  ev->offset = at;
  ev->length = span.len;
}

void uam_event_state(uam_engine *e, uint16_t kind, uint32_t id, uint32_t old, uint32_t next) {
  if (old == next) return;
  uam_event *ev = uam_event_push(e, kind, id);
  if (ev == NULL) return;
  ev->first = old;
  ev->last = next;
}

static bool extends(const uam_engine *e, const uam_event *ev, uint32_t link, uint32_t first, uint32_t code,
                    uint16_t flags, uam_span state) {
  if (ev->kind != UAM_EVENT_SETTLED || ev->id != link || ev->code != code || ev->last + 1 != first) return false;
  if ((ev->flags & UAM_FLAG_SETTLED) != flags || ev->length != state.len) return false;
  return state.len == 0 || memcmp(e->events.text.data + ev->offset, state.ptr, state.len) == 0;
}

void uam_event_new_state(uam_engine *e) { e->events.state_at = SIZE_MAX; }

/* One disposition may make an event for each of very many deliveries: its state is copied for the first of them. */
static void put_state(uam_engine *e, uam_event *ev, uam_span state) {
  if (state.len == 0) return;
  if (e->events.state_at == SIZE_MAX) {
    e->events.state_at = e->events.text.tail;
    uam_event_text(e, ev, state);
    return;
  }
  ev->flags = (uint16_t)(ev->flags | UAM_FLAG_ADDRESS | EV_TEXT);
  ev->offset = e->events.state_at;
  ev->length = state.len;
}

void uam_event_settled(uam_engine *e, uint32_t link, uint32_t first, uint32_t last, uint32_t code, uint16_t flags,
                       uam_span state) {
  if (e->events.count > e->events.resolved &&
      extends(e, &e->events.queue[e->events.count - 1], link, first, code, flags, state)) {
    e->events.queue[e->events.count - 1].last = last;
    return;
  }
  uam_event *ev = uam_event_push(e, UAM_EVENT_SETTLED, link);
  if (ev == NULL) return;
  ev->first = first;
  ev->last = last;
  ev->code = code;
  ev->flags = flags;
  put_state(e, ev, state);
}

void uam_event_error(uam_engine *e, uint32_t scope, uint32_t id, uam_span error) {
  uam_event *ev = uam_event_push(e, UAM_EVENT_PEER_ERROR, id);
  if (ev == NULL) return;
  ev->code = scope;
  uam_event_text(e, ev, error);
}

/* Offsets into the arena become addresses: nothing moves it until the next call. */
void uam_event_resolve(uam_engine *e) {
  for (size_t i = e->events.resolved; i < e->events.count; i++) {
    uam_event *ev = &e->events.queue[i];
    if (!(ev->flags & EV_TEXT)) continue;
    ev->flags = (uint16_t)(ev->flags & ~EV_TEXT);
    ev->offset += (uint64_t)(uintptr_t)e->events.text.data;
  }
  e->events.resolved = e->events.count;
  e->events.are_lent = true;
}

/* The arena keeps what the events that stay speak of. */
static void shift_text(uam_engine *e) {
  size_t from = e->events.text.tail;
  for (size_t i = 0; i < e->events.count; i++) {
    const uam_event *ev = &e->events.queue[i];
    if ((ev->flags & EV_TEXT) && ev->offset < from) from = (size_t)ev->offset;
  }
  if (from == 0) return;
  for (size_t i = 0; i < e->events.count; i++)
    if (e->events.queue[i].flags & EV_TEXT) e->events.queue[i].offset -= from;
  e->events.text.tail -= from;
  if (e->events.text.tail > 0) memmove(e->events.text.data, e->events.text.data + from, e->events.text.tail);
}

/* What was handed out is over; what was pushed since then stays. */
void uam_event_reset(uam_engine *e) {
  if (!e->events.are_lent) return;
  e->events.are_lent = false;
  e->events.count -= e->events.resolved;
  if (e->events.count > 0)
    memmove(e->events.queue, e->events.queue + e->events.resolved, e->events.count * sizeof *e->events.queue);
  shift_text(e);
  e->events.resolved = 0;
  for (size_t i = 0; i < e->events.n_lent; i++) uam_buf_free(&e->events.lent[i], &e->mem);
  e->events.n_lent = 0;
}
